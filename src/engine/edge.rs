//! A stack in an engine, with its HTTP face.

use super::link::{Link, LinkEvent};
use super::linked::{Engaged, Linked};
use super::resp::Reply;
use super::script::{self, SCRIPT};
use super::target::Target;
use crate::context::Context;
use crate::net::Address;
use crate::operate::Operated;
use crate::stack::Asks;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// Shares the stack of an engine at `addresses`, in a loop on [its network](Target::network): that of `operated` is
/// empty. Clients are answered when so many `replicas` have it, too.
pub fn edge(mut operated: Operated, target: Target, addresses: Vec<Address>, replicas: usize) -> Linked<Operated> {
    operated.stack_mut().share(new_name());
    Linked::new(operated, Link::new(target, addresses, SCRIPT).replicas(replicas))
}

/// Returns a name that no edge has had: they are random.
fn new_name() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Brings the engine a batch, if there is one.
fn bring(link: &mut Link, capacity: usize, batch: Option<&Asks>) {
    if let Some(batch) = batch {
        link.run(&script::keys(link.target()), &script::args(capacity, batch));
    }
}

impl Engaged for Operated {
    fn on_link(&mut self, cx: &mut Context<'_>, link: &mut Link, event: LinkEvent) {
        match event {
            LinkEvent::Ready => {
                if let Some(edge) = self.stack().edge() {
                    link.send_unanswered(&["SSUBSCRIBE", &script::channel(link.target(), edge)]);
                }
                let capacity = self.stack().capacity();
                bring(link, capacity, self.stack_mut().unanswered_batch(cx.now()));
            }
            LinkEvent::Message(..) => self.stack_mut().call(),
            LinkEvent::Answer(Reply::Error(error)) if error.starts_with("CAPACITY") => {
                let error = script::other_capacity(&error, self.stack().capacity());
                self.fail(format!("--engine {}: {error}", link.target()));
                cx.stop(Duration::ZERO);
            }
            LinkEvent::Answer(Reply::Error(_)) => {
                log::warn!("--engine {}: it took this edge for dead; its clients are closed", link.target());
                self.expire(cx, new_name());
                link.restart(cx);
            }
            LinkEvent::Answer(reply) => match script::told(&reply) {
                Some(told) => self.on_stack(cx, |stack, cx| stack.hear(cx, told)),
                None => link.give_up("its answer is not that of our script"),
            },
            LinkEvent::Down => {}
        }
    }

    fn settle(&mut self, cx: &mut Context<'_>, link: &mut Link) -> bool {
        let is_over = self.failure().is_some() || self.stack().has_left();
        let stack = self.stack_mut();
        if stack.is_stopping() && stack.clients().next().is_none() {
            stack.leave();
        }
        let capacity = stack.capacity();
        if link.is_ready() {
            bring(link, capacity, stack.next_batch(cx.now()));
        }
        self.set_engine(link.state());
        !is_over
    }

    fn timer(&self, link: &Link) -> Option<Instant> {
        let batch = self.stack().batch_due().filter(|_| link.is_ready());
        [Operated::timer(self), batch].into_iter().flatten().min()
    }
}
