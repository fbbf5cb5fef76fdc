//! The chat room, as those see it who are in it.

use serde_json::{Value, json};
use std::net::SocketAddr;
use test_support::browser::ask;
use test_support::browser::{Browser, ENTER, Page, SHIFT, SPACE, TAB};
use test_support::{Server, command, wait_until};

/// The messages as they are shown, oldest first.
const TEXTS: &str = "[...document.querySelectorAll('.log .text')].map(text => text.textContent)";
const NAMES: &str = "[...document.querySelectorAll('.log .who')].map(name => name.textContent)";
const STATE: &str = "document.querySelector('.state').textContent";
const BOX: &str = "document.querySelector('textarea').value";

/// The status that a page with a connection shows.
const CONNECTED: &str = "document.querySelector('.state').textContent.startsWith('Connected')";

/// The server, on `port` or any.
pub(crate) fn serve(port: u16) -> Option<Server> {
    Server::try_spawn(command(env!("CARGO_BIN_EXE_pubsub"), &["--listen", &format!("127.0.0.1:{port}")]), 1)
}

/// The same server again, which has lost all that it knew.
fn restart(server: Server) -> Server {
    let port = server.address().port();
    drop(server); // which kills it
    // Another program may still have the port for a moment.
    wait_until("the port is free again", || serve(port))
}

/// A page that is in a room, and connected.
pub(crate) fn enter<'a>(browser: &'a Browser, server: SocketAddr, room: &str) -> Page<'a> {
    let page = browser.page();
    page.open(&format!("http://{server}/#{room}"));
    page.wait_for(CONNECTED);
    page
}

/// Publishes as a program does, and returns the id.
pub(crate) fn publish(server: SocketAddr, room: &str, text: &str) -> u64 {
    let (status, reply) = ask(server, "POST", &format!("/channels/{room}"), "text/plain", text);
    assert_eq!(status, 200, "{reply}");
    serde_json::from_str::<Value>(&reply).unwrap()["id"].as_u64().expect("an id")
}

/// Writes a line into whatever has the focus, and sends it.
pub(crate) fn say(page: &Page<'_>, text: &str) {
    page.press(text.chars().chain([ENTER]));
}

/// Waits until all that is shown is `texts`.
pub(crate) fn expect(page: &Page<'_>, texts: &[&str]) {
    let last = json!(texts.last());
    page.wait_for(&format!("{TEXTS}.at(-1) === {last} && {TEXTS}.length >= {}", texts.len()));
    assert_eq!(page.value(TEXTS), json!(texts));
}

/// Lost otherwise: the chat.
#[test]
fn two_pages_talk() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0).unwrap();
    let (ann, bob) = (enter(&browser, server.address(), "a.room"), enter(&browser, server.address(), "a.room"));
    let elsewhere = enter(&browser, server.address(), "elsewhere");
    ann.press_with(SHIFT, TAB);
    ann.press_with(SHIFT, TAB);
    ann.press("ann".chars().chain([TAB, TAB]));
    say(&ann, "hello");
    expect(&bob, &["hello"]);
    say(&bob, "hello, all of you");
    expect(&ann, &["hello", "hello, all of you"]);
    bob.press("two".chars());
    bob.press_with(SHIFT, ENTER);
    say(&bob, "lines");
    for page in [&ann, &bob] {
        expect(page, &["hello", "hello, all of you", "two\nlines"]);
        assert_eq!(page.value(NAMES), json!(["ann", "anonymous", "anonymous"]));
        assert_eq!(page.value(BOX), "");
    }
    assert_eq!(elsewhere.value(TEXTS), json!([]));
    // Entering another room leaves this one.
    ann.run("location.hash = 'elsewhere'");
    ann.wait_for(&format!("{CONNECTED} && {TEXTS}.length === 0"));
    say(&bob, "where is ann?");
    bob.wait_for(&format!("{TEXTS}.length === 4"));
    say(&elsewhere, "here");
    expect(&ann, &["here"]);
    assert_eq!(browser.complaints(), [""; 0]);
}

/// Lost otherwise: every reader's browser, to any client that can publish.
#[test]
fn what_others_write_is_text() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0).unwrap();
    let page = enter(&browser, server.address(), "lobby");
    let hostile = [
        "<img src=x onerror='window.caught = 1'>",
        "<script>window.caught = 2</script>",
        "</p></div><style>* { display: none }</style>",
        "\u{2028}window.caught = 3\u{2029}",
        "data: x\n\nid: 7\nevent: gap\ndata: y\n\nretry: 1",
        "one\r\ntwo\rthree\nfour",
        "\u{202e}backwards \0 \u{feff}",
        "null",
        "{\"text\": 5}",
        "[\"text\"]",
        "{\"text\":",
        "javascript:window.caught=4",
    ];
    for text in hostile {
        publish(server.address(), "lobby", text);
    }
    let named = json!({ "name": "<b onmouseover='window.caught = 5'>", "text": "<svg onload='window.caught = 6'>" });
    publish(server.address(), "lobby", &named.to_string());
    publish(server.address(), "lobby", &json!({ "name": [1], "text": "no name" }).to_string());
    say(&page, "<iframe srcdoc='<script>top.caught = 7</script>'>");
    let mut shown: Vec<String> = hostile.iter().map(|text| text.replace("\r\n", "\n").replace('\r', "\n")).collect();
    shown.extend(["<svg onload='window.caught = 6'>", "no name"].map(String::from));
    shown.push("<iframe srcdoc='<script>top.caught = 7</script>'>".to_owned());
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    expect(&page, &shown);
    // A page that comes later gets the same from the history.
    let late = enter(&browser, server.address(), "lobby");
    expect(&late, &shown);
    for page in [&page, &late] {
        assert_eq!(page.value("window.caught === undefined"), true);
        assert_eq!(page.value("document.querySelectorAll('.log :not(ol, li, p, bdi, time)').length"), 0);
        assert_eq!(page.value(&format!("{NAMES}.at(-3)")), "<b onmouseover='window.caught = 5'>");
        assert_eq!(page.value(&format!("{NAMES}.at(-2)")), "anonymous");
        assert_eq!(page.value("getComputedStyle(document.querySelector('h1')).display"), "block");
    }
    // Nothing was even tried that the policy had to prevent.
    assert_eq!(browser.complaints(), [""; 0]);
}

/// Lost otherwise: the second wall, should there be a hole in the first.
#[test]
fn the_policy_lets_nothing_else_run() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0).unwrap();
    let page = enter(&browser, server.address(), "lobby");
    let markup = "try { document.body.innerHTML = '<img src=x onerror=\"window.caught = 1\">' } catch (error) { return error.name }";
    assert_eq!(page.run(markup), "TypeError");
    let inline = "const a = document.createElement('a'); a.setAttribute('href', '#x'); \
        try { a.setAttribute('onclick', 'window.caught = 2') } catch { } a.click()";
    page.run(inline);
    let other = "document.addEventListener('securitypolicyviolation', event => window.rejected = event.blockedURI); \
        fetch('http://127.0.0.1:9/').catch(() => 0)";
    page.run(other);
    assert_eq!(page.wait_for("window.rejected"), "http://127.0.0.1:9/");
    assert_eq!(page.value("window.caught === undefined"), true);
}

/// Lost otherwise: the page's promise that no third party hears of its readers.
#[test]
fn nothing_comes_from_elsewhere() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0).unwrap();
    let page = enter(&browser, server.address(), "lobby");
    say(&page, "hello");
    expect(&page, &["hello"]);
    page.reload();
    page.wait_for(CONNECTED);
    let origin = format!("http://{}/", server.address());
    let (mut unchanged, mut requests) = (0, 0);
    for (name, event) in browser.traffic() {
        if name == "requestWillBeSent" {
            let address = event["request"]["url"].as_str().unwrap();
            // The browser's own first page is not ours; and what is in the address itself comes from there.
            if !address.starts_with("chrome:") && !address.starts_with("data:") {
                assert!(address.starts_with(&origin), "{address}");
                requests += 1;
            }
        }
        unchanged += usize::from(name == "responseReceivedExtraInfo" && event["statusCode"] == 304);
    }
    assert!(requests >= 4, "the page, its stream, and what was said");
    assert_eq!(unchanged, 1, "the page itself is not sent again");
    assert_eq!(browser.complaints(), [""; 0]);
}

/// Lost otherwise: a conversation, each time that the server is brought up to date.
#[test]
fn pages_go_on_when_the_server_is_killed() {
    let Some(browser) = Browser::start() else { return };
    let mut server = serve(0).unwrap();
    let (ann, bob) = (enter(&browser, server.address(), "lobby"), enter(&browser, server.address(), "lobby"));
    let mut said = vec!["first".to_owned()];
    say(&ann, "first");
    for round in 0..2 {
        for page in [&ann, &bob] {
            page.wait_for(&format!("{TEXTS}.length === {}", said.len()));
        }
        server = restart(server);
        // Some of it before they are back, and some of it when they may be.
        for n in 0..20 {
            said.push(format!("round {round}, message {n}"));
            publish(server.address(), "lobby", said.last().unwrap());
        }
        for page in [&ann, &bob] {
            expect(page, &said.iter().map(String::as_str).collect::<Vec<_>>());
            page.wait_for(&format!(
                "{STATE}.includes('missed') && document.querySelectorAll('.note').length === {}",
                round + 1
            ));
        }
        say(&bob, "still here");
        said.push("still here".to_owned());
    }
    for page in [&ann, &bob] {
        expect(page, &said.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// Lost otherwise: the words that a reader has just typed.
#[test]
fn what_cannot_be_sent_stays_in_the_box() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0).unwrap();
    let page = enter(&browser, server.address(), "lobby");
    let port = server.address().port();
    drop(server);
    page.wait_for(&format!("{STATE} === 'Connection lost. Reconnecting…'"));
    say(&page, "is there a reader?");
    page.wait_for("document.querySelector('.said').textContent.startsWith('Not sent')");
    assert_eq!(page.value(BOX), "is there a reader?");
    let _server = wait_until("the port is free again", || serve(port));
    page.wait_for(CONNECTED);
    page.press([ENTER]);
    expect(&page, &["is there a reader?"]);
    page.wait_for(&format!("{BOX} === '' && document.querySelector('.said').textContent === ''"));
    // The same goes for what the server does not take.
    page.run("document.querySelector('textarea').value = 'long '.repeat(20000)");
    page.press([ENTER]);
    page.wait_for("document.querySelector('.said').textContent.startsWith('Not sent: it is too long')");
    assert_eq!(page.value(&format!("{BOX}.length")), 100_000);
}

/// Lost otherwise: the time of a reader who waits for a room that there cannot be.
#[test]
fn a_room_that_cannot_be_says_so() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0).unwrap();
    let page = browser.page();
    for room in ["a%20room", "..", "%", "%2F%3F"] {
        page.open(&format!("http://{}/#{room}", server.address()));
        page.wait_for(&format!("{STATE}.startsWith('The server rejects this room: status 40')"));
        say(&page, "hello");
        page.wait_for("document.querySelector('.said').textContent.startsWith('Not sent: the server answers 40')");
    }
    page.run("location.hash = ''");
    page.wait_for(&format!("{CONNECTED} && document.querySelector('h1').textContent === 'lobby'"));
}

/// Lost otherwise: those whose browser, or whose proxy, does not do streams.
#[test]
fn where_there_is_no_stream_it_polls() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0).unwrap();
    let page = browser.page();
    page.before_all("delete window.EventSource; delete window.WebSocket");
    page.open(&format!("http://{}/", server.address()));
    page.wait_for(CONNECTED);
    assert_eq!(page.value("window.EventSource === undefined"), true);
    say(&page, "one");
    expect(&page, &["one"]);
    let numbers: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    for number in &numbers {
        publish(server.address(), "lobby", number);
    }
    let mut said: Vec<&str> = ["one"].into_iter().chain(numbers.iter().map(String::as_str)).collect();
    expect(&page, &said);
    let server = restart(server);
    page.wait_for(&format!("{STATE}.includes('missed')"));
    publish(server.address(), "lobby", "again");
    said.push("again");
    expect(&page, &said);
    assert_eq!(page.value("document.querySelectorAll('.note').length"), 1, "it is told of once");
}

/// Lost otherwise: the same, where a stream never opens, or opens and never brings anything.
#[test]
fn a_stream_that_brings_nothing_is_given_up() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0).unwrap();
    // One that never opens; one that does, in which a reader misses their own words; and one in which
    // a reader only listens, with a faster clock.
    let clock = "const every = setInterval; setInterval = (what, when) => every(what, when / 100);";
    for (room, opens, clock) in
        [("closed", false, ""), ("own", true, "setInterval = () => 0;"), ("others", true, clock)]
    {
        let page = browser.page();
        page.before_all(&format!(
            "{clock} delete window.WebSocket; window.EventSource = class extends EventTarget {{ \
                constructor() {{ super(); if ({opens}) setTimeout(() => this.onopen(), 1) }} \
                close() {{ }} \
            }}"
        ));
        page.open(&format!("http://{}/#{room}", server.address()));
        page.wait_for(CONNECTED);
        match room {
            "others" => {
                publish(server.address(), room, "is there a reader?");
            }
            _ => say(&page, "is there a reader?"),
        }
        expect(&page, &["is there a reader?"]);
        publish(server.address(), room, "and on");
        expect(&page, &["is there a reader?", "and on"]);
    }
}

/// Lost otherwise: the place of a reader who has scrolled back.
#[test]
fn the_reader_keeps_their_place() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0).unwrap();
    let page = enter(&browser, server.address(), "lobby");
    let publish = |from, to| {
        let mut ids = (from..to).map(|n| publish(server.address(), "lobby", &format!("message {n}")));
        let last = ids.by_ref().last().unwrap();
        page.wait_for(&format!("document.querySelector('[data-id=\"{last}\"]')"));
    };
    const TO_THE_END: &str =
        "(log => log.scrollHeight - log.clientHeight - log.scrollTop)(document.querySelector('.log'))";
    page.wait_for("document.querySelector('.log').ariaBusy === 'false'");
    publish(0, 480);
    assert!(page.value(TO_THE_END).as_f64().unwrap() < 2.0, "it follows");
    page.run("document.querySelector('.log').scrollTop -= 1000");
    page.wait_for("atEnd === false");
    page.wait_for("list.childElementCount >= 480");
    let place = "[...document.querySelectorAll('.text')].find(line => line.textContent.endsWith(' 450')).getBoundingClientRect().top";
    let before = page.value(place).as_f64().unwrap();
    publish(480, 481);
    page.wait_for("document.querySelector('.newer').textContent === '1 new message'");
    // More than the page keeps.
    publish(481, 560);
    page.wait_for("document.querySelector('.newer').textContent === '80 new messages'");
    assert_eq!(page.value("document.title"), "(80) lobby: chat room");
    let count = page.value("document.querySelector('.list').childElementCount").as_u64().unwrap();
    assert!((500..=550).contains(&count), "{count}");
    let after = page.value(place).as_f64().unwrap();
    assert!((before - after).abs() < 2.0, "{before} is now {after}");
    // The button is one Tab away, backwards; and it gives the box back.
    page.press_with(SHIFT, TAB);
    assert_eq!(page.value("document.activeElement.className"), "newer");
    page.press([ENTER]);
    page.wait_for("document.querySelector('.newer').hidden && document.activeElement.localName === 'textarea'");
    assert!(page.value(TO_THE_END).as_f64().unwrap() < 2.0, "it is at the end");
    publish(560, 570);
    assert!(page.value(TO_THE_END).as_f64().unwrap() < 2.0, "it follows again");
}

/// Lost otherwise: those who have no mouse, or cannot see where it is.
#[test]
fn the_keyboard_is_enough() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0).unwrap();
    let page = enter(&browser, server.address(), "lobby");
    let focused = "(at => at.className || at.localName)(document.activeElement)";
    let outline = "getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(page.value(focused), "textarea");
    page.press("by the button".chars().chain([TAB]));
    assert_eq!((page.value(focused), page.value(outline)), (json!("send"), json!("solid")));
    page.press([SPACE]);
    expect(&page, &["by the button"]);
    assert_eq!(page.value(focused), "textarea", "ready for the next");
    let mut seen = vec![];
    for _ in 0..3 {
        assert_eq!(page.value(outline), "solid", "at {}", page.value(focused));
        seen.push(page.value(focused));
        page.press_with(SHIFT, TAB);
    }
    assert_eq!(seen, ["textarea", "log", "input"]);
    assert_eq!(page.value("document.querySelector('.log').role"), "log");
    assert_eq!(page.value("document.querySelector('.log').ariaLive"), "polite");
}

/// The least contrast between a text and what is behind it, as WCAG 2 has it (section 1.4.3).
const CONTRAST: &str = "(() => {
    const numbers = color => color.match(/[\\d.]+/g).map(Number);
    const channel = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => [r, g, b].map(value => channel(value / 255))
        .reduce((sum, value, n) => sum + value * [0.2126, 0.7152, 0.0722][n], 0);
    const behind = at => numbers(getComputedStyle(at).backgroundColor)[3] === 0 ? behind(at.parentElement)
        : numbers(getComputedStyle(at).backgroundColor);
    const contrast = (at, part) => {
        const [low, high] = [light(numbers(getComputedStyle(at, part).color)), light(behind(at))].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    };
    const all = [...document.querySelectorAll('h1, .state, .here, .who, .text, time, .note, .more, .send, label, input, textarea, .said')];
    const hints = [...document.querySelectorAll('input, textarea')].map(at => contrast(at, '::placeholder'));
    return Math.min(...all.map(at => contrast(at)), ...hints);
})()";

/// Lost otherwise: readers on a phone, who would have to scroll sideways, or cannot read grey on grey.
#[test]
fn it_fits_a_phone() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0).unwrap();
    let page = enter(&browser, server.address(), &"a-room-with-a-long-name".repeat(2));
    let long = json!({ "name": "n".repeat(100), "text": format!("{} {}", "w".repeat(500), "some words ".repeat(50)) });
    publish(server.address(), &"a-room-with-a-long-name".repeat(2), &long.to_string());
    page.wait_for(&format!("{TEXTS}.length === 1"));
    for dark in [false, true] {
        page.show((320, 480), dark);
        page.wait_for("innerWidth === 320");
        assert_eq!(page.value("document.documentElement.scrollWidth"), 320);
        assert_eq!(page.value("(log => log.scrollWidth - log.clientWidth)(document.querySelector('.log'))"), 0);
        // All of the form is to be seen, and some of what is said.
        assert_eq!(page.value("document.querySelector('form').getBoundingClientRect().bottom <= innerHeight"), true);
        assert_eq!(page.value("document.querySelector('.log').clientHeight > 100"), true);
        let back = page.value("getComputedStyle(document.body).backgroundColor");
        assert_eq!(back == "rgb(255, 255, 255)", !dark, "{back}");
        let contrast = page.value(CONTRAST).as_f64().unwrap();
        assert!(contrast >= 4.5, "dark: {dark}, contrast: {contrast}");
        page.run("say(state, 'Lost.', 'bad'); say(said, 'Not sent.', 'bad')");
        let contrast = page.value(CONTRAST).as_f64().unwrap();
        assert!(contrast >= 4.5, "in red, dark: {dark}, contrast: {contrast}");
    }
}

/// Lost otherwise: a room for who has more than one window open: browsers allow six connections of the usual kind
/// to a server.
#[test]
fn ten_tabs_work() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0).unwrap();
    let pages: Vec<Page<'_>> = (0..10).map(|_| enter(&browser, server.address(), "lobby")).collect();
    for (n, page) in pages.iter().enumerate() {
        say(page, &format!("from tab {n}"));
    }
    for page in &pages {
        page.wait_for(&format!("flush() || {TEXTS}.length === 10"));
    }
    pages[9].wait_for("count(room) && document.querySelector('.here').textContent === '10 are here.'");
}

/// Lost otherwise: what a reader goes by: who says what, when, how much of it, and what has not been read.
#[test]
fn messages_are_told_apart() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0).unwrap();
    let page = enter(&browser, server.address(), "lobby");
    page.wait_for("!document.querySelector('.empty').hidden");
    let json =
        |name: &str, text: &str| json!({ "name": name, "text": text, "time": 1_000_000_000_000_u64 }).to_string();
    let (named, long) = ("\u{202e}eve\u{2066}\u{7}", "line\n".repeat(3000));
    for (name, text) in
        [(named, "see https://example.org/a?b=c. And http://"), ("ann", "one"), ("ann", "two"), ("bob", &long)]
    {
        publish(server.address(), "lobby", &json(name, text));
    }
    say(&page, "my own");
    page.wait_for(&format!("{TEXTS}.length === 5 && document.querySelectorAll('.mine').length === 1"));
    assert_eq!(page.value(NAMES), json!(["eve", "ann", "ann", "bob", "anonymous"]));
    let classes = "[...document.querySelectorAll('.message')].map(line => line.className)";
    let expected = ["message", "message", "message follows", "message folded", "message mine"];
    assert_eq!(page.value(classes), json!(expected));
    let link = "(link => [link.href, link.textContent, link.rel])(document.querySelector('.text a'))";
    let address = "https://example.org/a?b=c";
    assert_eq!(page.value(link), json!([address, address, "noopener noreferrer nofollow"]));
    assert_eq!(page.value("document.querySelectorAll('.text a').length"), 1);
    assert_eq!(page.value("document.querySelector('.folded').clientHeight < innerHeight"), true);
    assert_eq!(page.value("document.querySelector('time').dateTime"), "2001-09-09T01:46:40.000Z");
    page.run("document.querySelector('.more').click()");
    assert_eq!(page.value("document.querySelectorAll('.folded, .more').length"), 0);
    assert_eq!(page.value("document.querySelector('.empty').hidden"), true);
    // Its own messages are known when it comes back.
    page.reload();
    page.wait_for(&format!("{TEXTS}.length === 5 && document.querySelectorAll('.mine').length === 1"));
    // The history is not read aloud, and what follows is.
    page.wait_for("document.querySelector('.log').ariaBusy === 'false'");
}

/// Lost otherwise: a tab, for the time that a crowd's messages take to lay out one by one.
#[test]
fn a_flood_is_shown_once_a_frame() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0).unwrap();
    let page = enter(&browser, server.address(), "lobby");
    let flood = "window.shown = 0; const adds = change => change.addedNodes.length > 0; \
        new MutationObserver(changes => shown += changes.filter(adds).length).observe(list, { childList: true }); \
        let id = room.last; for (let n = 0; n < 18000; n += 1) take(room, id += 1, `message ${n}`); \
        requestAnimationFrame(() => setTimeout(() => window.is_over = true))";
    page.run(flood);
    page.wait_for("window.is_over");
    assert_eq!(page.value(&format!("{TEXTS}.at(-1)")), "message 17999");
    assert_eq!(page.value("list.childElementCount"), 500);
    assert_eq!(page.value("shown"), 1, "all of them are added at once");
}
