//! The chat room on nodes that share it, behind haproxy.

use crate::room::{enter, expect, publish, say};
use serde_json::Value;
use std::net::SocketAddr;
use test_support::browser::{Browser, ENTER, ask};
use test_support::engine::{Redis, haproxy};
use test_support::{Server, command, wait_until};

fn node(redis: &Redis) -> Server {
    let url = format!("redis://{}/rooms", redis.address());
    let args = ["--listen", "127.0.0.1:0", "--engine", &url];
    Server::spawn(command(env!("CARGO_BIN_EXE_pubsub"), &args), 1)
}

fn subscribers(node: SocketAddr) -> u64 {
    let (_, reply) = ask(node, "GET", "/stats", "text/plain", "");
    serde_json::from_str::<Value>(&reply).unwrap()["subscribers"].as_u64().unwrap()
}

/// Lost otherwise: the people in a room, when one of the servers behind it dies.
#[test]
fn a_room_survives_its_server() {
    let Some(browser) = Browser::start() else { return };
    let Some(redis) = Redis::start(&[]) else { return };
    let mut nodes: Vec<Server> = (0..3).map(|_| node(&redis)).collect();
    let addresses: Vec<SocketAddr> = nodes.iter().map(Server::address).collect();
    let Some(haproxy) = haproxy(&addresses) else { return };

    let page = enter(&browser, haproxy.address(), "room");
    say(&page, "one");
    expect(&page, &["one"]);
    let mut said = vec!["one".to_owned()];
    for n in 0..2 {
        let at = nodes.iter().position(|node| subscribers(node.address()) == 1).expect("the page is somewhere");
        drop(nodes.remove(at)); // SIGKILL
        said.push(format!("meanwhile {n}"));
        publish(nodes[0].address(), "room", &said[said.len() - 1]);
        expect(&page, &said.iter().map(String::as_str).collect::<Vec<_>>());
    }
    // The browser may send it on a connection that has just died: the page says so, and keeps it in the box.
    page.press("and on".chars());
    wait_until("it is sent", || {
        page.press([ENTER]);
        page.wait_for(
            "document.querySelector('textarea').value === '' || document.body.innerText.includes('Not sent')",
        );
        (page.value("document.querySelector('textarea').value") == "").then_some(())
    });
    said.push("and on".to_owned());
    expect(&page, &said.iter().map(String::as_str).collect::<Vec<_>>());
}
