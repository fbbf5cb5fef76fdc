//! The live page of the stack server, in a real browser. It runs if `BROWSER` is set in the environment.
#![cfg(unix)]

use test_support::browser::{Browser, TAB};
use test_support::{Server, pollstack};

fn start(args: &[&str]) -> (Server, String) {
    let mut all = vec!["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    all.extend(args);
    let server = Server::spawn(pollstack!(&all), 2);
    let face = format!("http://{}/", server.address_behind("http on "));
    (server, face)
}

/// Lost otherwise: the operator's eyes: what there is as it changes, and the way to get rid of a client.
#[test]
fn the_page_lives() {
    let Some(browser) = Browser::start() else { return };
    let (server, face) = start(&["--capacity", "4"]);
    let page = browser.page();
    page.open(&face);
    let text = |class: &str, value: &str| format!("document.querySelector('.{class}').textContent === '{value}'");
    page.wait_for(&text("state", "Connected."));
    page.wait_for("!document.querySelector('.none').hidden");
    server.stored(b"x");
    let mut held = server.send(&[5, b'h']);
    page.wait_for(&format!("{} && {}", text("depth", "1"), text("clients", "1")));
    page.wait_for(&format!(
        "{} && document.querySelector('tbody td:nth-child(3)').textContent === 'reading'",
        text("most", "of 100")
    ));
    page.wait_for("document.querySelector('polyline.requests').getAttribute('points').split(' ').length > 1");
    // The first Tab is at the button of the only client, and stays there while the table is told anew.
    page.press([TAB]);
    let focused = "document.activeElement.textContent === 'Disconnect'";
    assert_eq!(page.value(focused), true);
    page.wait_for(
        "(age => age && Number.parseInt(age.textContent) > 1)(document.querySelector('tbody td:nth-child(4)'))",
    );
    assert_eq!(page.value(focused), true);
    page.run("document.activeElement.click()");
    assert_eq!(held.answer(), b"");
    page.wait_for(&text("clients", "0"));
    for (width, dark) in [(320, true), (1280, false)] {
        page.show((width, 700), dark);
        page.wait_for(&format!("innerWidth === {width}"));
        assert_eq!(page.value("document.documentElement.scrollWidth <= innerWidth"), true, "{width}");
    }
    assert_eq!(browser.complaints(), [""; 0]);
    drop(server);
    page.wait_for(&text("state", "Connection lost. Reconnecting…"));
}
