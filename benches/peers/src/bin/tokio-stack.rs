//! The stack server on tokio: a task for each client, the state shared by all in a `RefCell`.
//!
//! One thread, as the server it is compared with has one, and therefore a `LocalRuntime` with
//! `spawn_local`: no lock, no `Send`. A parked client waits for a oneshot channel and, at the same
//! time, for the end of its stream. Whatever happens to a parked client is decided at the moment
//! when the other client comes, not when its task runs, so the order is that of the protocol.
//!
//! Left out: an item goes back on the stack if its response cannot be written; who is served is
//! closed at once, so that a client that sent too much may read a reset behind its response.

use pollstack_peers::stack::{BUSY, CAPACITY, Frame, Request, evict_after, max_clients};
use pollstack_peers::{BACKLOG, address, announce};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, spawn_local};

/// Everything is numbered as it comes, so the first of each map is the oldest, and a client in the
/// middle of a line leaves it without a search.
#[derive(Default)]
struct Server {
    stack: Vec<Frame>,
    clients: BTreeMap<u64, Client>,
    pushes: BTreeMap<u64, (Frame, oneshot::Sender<Frame>)>,
    pops: BTreeMap<u64, oneshot::Sender<Frame>>,
    last: u64,
}

struct Client {
    since: Instant,
    task: AbortHandle,
    /// Its place in `pushes` or `pops`, if it has been parked.
    place: Option<u64>,
}

enum Answer {
    Now(Frame),
    Later(oneshot::Receiver<Frame>),
}

impl Server {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn push(&mut self, client: u64, item: Frame) -> Answer {
        if let Some((_, pop)) = self.pops.pop_first() {
            let _ = pop.send(item);
        } else if self.stack.len() < CAPACITY {
            self.stack.push(item);
        } else {
            let (sender, receiver) = oneshot::channel();
            let place = self.park(client);
            self.pushes.insert(place, (item, sender));
            return Answer::Later(receiver);
        }
        Answer::Now(Frame::STORED)
    }

    fn pop(&mut self, client: u64) -> Answer {
        let Some(item) = self.stack.pop() else {
            let (sender, receiver) = oneshot::channel();
            let place = self.park(client);
            self.pops.insert(place, sender);
            return Answer::Later(receiver);
        };
        if let Some((_, (waiting, push))) = self.pushes.pop_first() {
            self.stack.push(waiting);
            let _ = push.send(Frame::STORED);
        }
        Answer::Now(item)
    }

    fn park(&mut self, client: u64) -> u64 {
        let place = self.number();
        if let Some(client) = self.clients.get_mut(&client) {
            client.place = Some(place);
        }
        place
    }

    /// The client has gone, or has to go: nothing is stored or handed out for it any more.
    fn forget(&mut self, client: u64) {
        if let Some(place) = self.clients.remove(&client).and_then(|client| client.place) {
            self.pushes.remove(&place);
            self.pops.remove(&place);
        }
    }

    /// Returns whether there is a place for a newcomer, by now.
    fn make_room(&mut self, max_clients: usize) -> bool {
        if self.clients.len() < max_clients {
            return true;
        }
        let Some((&oldest, client)) = self.clients.first_key_value() else { return false };
        let too_old = client.since.elapsed() > evict_after();
        if too_old {
            client.task.abort();
            self.forget(oldest);
        }
        too_old
    }
}

async fn serve(server: &RefCell<Server>, id: u64, mut stream: TcpStream) -> io::Result<()> {
    let (mut frame, mut len) = (Frame::EMPTY, 0);
    let request = loop {
        match stream.read(&mut frame.0[len..]).await? {
            0 => return Ok(()),
            n => len += n,
        }
        match frame.request(len) {
            None => {}
            Some(Ok(request)) => break request,
            Some(Err(())) => return Ok(()),
        }
    };
    let answer = match request {
        Request::Push => server.borrow_mut().push(id, frame),
        Request::Pop => server.borrow_mut().pop(id),
    };
    let response = match answer {
        Answer::Now(response) => response,
        Answer::Later(mut response) => tokio::select! {
            biased; // an item that has been handed out is not lost to a hang-up in the same moment
            Ok(response) = &mut response => response,
            _ = end(&mut stream) => return Ok(()),
        },
    };
    stream.write_all(response.bytes()).await
}

/// Waits until the client hangs up, and ignores what it sends.
async fn end(stream: &mut TcpStream) {
    while !matches!(stream.read(&mut [0; 128]).await, Ok(0) | Err(_)) {}
}

/// The request has often come by now. To close with it unread would be a reset.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(BUSY).await?;
    stream.shutdown().await?;
    let _ = tokio::time::timeout(Duration::from_secs(1), end(&mut stream)).await;
    Ok(())
}

async fn run(listener: TcpListener, max_clients: usize) {
    let server = Rc::new(RefCell::new(Server::default()));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: trying again at once would only spin.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut state = server.borrow_mut();
        if !state.make_room(max_clients) {
            spawn_local(refuse(stream));
            continue;
        }
        let id = state.number();
        let server = server.clone();
        let task = spawn_local(async move {
            let _ = serve(&server, id, stream).await; // an error is a client that has gone
            server.borrow_mut().forget(id);
        });
        state.clients.insert(id, Client { since: Instant::now(), task: task.abort_handle(), place: None });
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (address, max_clients) = (address()?, max_clients()?);
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.set_nodelay(true)?; // inherited by the connections
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        announce(listener.local_addr()?)?;
        run(listener, max_clients).await;
        Ok(())
    })
}
