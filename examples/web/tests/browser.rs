//! A page of the kind that there are many of, from the static web server.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use test_support::browser::Browser;
use test_support::{Server, command};

const DOTS: usize = 40;

const PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>A page</title>
<link rel="icon" href="icon.svg">
<link rel="stylesheet" href="style.css">
<script src="early.js" defer></script>
<script src="module.mjs" type="module"></script>
<h1>A page</h1>
<p class="text">Some text.</p>
<img src="big.bmp" alt="a large picture">
<audio src="silence.wav" preload="auto"></audio>
<iframe src="sub/" title="another page"></iframe>
"#;

const EARLY: &str = r#"
for (let n = 0; n < 40; n += 1) {
    const dot = new Image();
    dot.src = `dots/${n}.svg`;
    document.body.append(dot);
}
"#;

const MODULE: &str = r#"
import { answer } from "./part.mjs";
const data = await (await fetch("data.json")).json();
document.body.dataset.answer = answer + data.more;
"#;

const STYLE: &str = r#"
body { background: url("icon.svg"); }
.text { color: rgb(1, 2, 3); font-family: Ours, serif; }
"#;

const FONT_STYLE: &str = r#"@font-face { font-family: Ours; src: url("font.ttf"); }"#;

const ICON: &str =
    r#"<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle cx="4" cy="4" r="4"/></svg>"#;

/// The requests for one address.
#[derive(Debug, Default)]
struct Fetched {
    statuses: Vec<u64>,
    failures: Vec<String>,
    connections: BTreeSet<u64>,
}

/// The requests since the last call, by address.
fn fetched(browser: &Browser) -> BTreeMap<String, Fetched> {
    let mut addresses: BTreeMap<String, String> = BTreeMap::new();
    let mut all: BTreeMap<String, Fetched> = BTreeMap::new();
    let traffic = browser.traffic();
    let id = |event: &Value| event["requestId"].as_str().unwrap_or_default().to_owned();
    for (name, event) in &traffic {
        if name == "requestWillBeSent" {
            let address = event["request"]["url"].as_str().unwrap();
            addresses.insert(id(event), address.to_owned());
            all.entry(address.to_owned()).or_default();
        }
    }
    for (name, event) in &traffic {
        let Some(of) = addresses.get(&id(event)).and_then(|address| all.get_mut(address)) else { continue };
        match name.as_str() {
            // The status as it was sent: a page is told of a 304 as if it were the 200 of before.
            "responseReceivedExtraInfo" => of.statuses.extend(event["statusCode"].as_u64()),
            "responseReceived" => of.connections.extend(event["response"]["connectionId"].as_u64()),
            // A player that has heard enough cancels the rest.
            "loadingFailed" if event["canceled"] != true => of.failures.push(event["errorText"].to_string()),
            _ => {}
        }
    }
    all.retain(|address, _| address.starts_with("http"));
    all
}

/// A folder with all that the page refers to.
fn layout() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join("www").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    fs::write(folder.path().join("web.conf"), "host default www\n").unwrap();
    write("index.html", PAGE.as_bytes());
    write("sub/index.html", b"<!DOCTYPE html><title>Another</title><img src='../icon.svg' alt=''>");
    write("early.js", EARLY.as_bytes());
    write("module.mjs", MODULE.as_bytes());
    write("part.mjs", b"export const answer = 40;\n");
    write("data.json", b"{ \"more\": 2 }\n");
    let font = font(Path::new("/usr/share/fonts")).map(|path| fs::read(path).unwrap());
    write("style.css", format!("{}{STYLE}", if font.is_some() { FONT_STYLE } else { "" }).as_bytes());
    write("font.ttf", &font.unwrap_or_default());
    write("icon.svg", ICON.as_bytes());
    write("big.bmp", &bitmap(1200));
    write("silence.wav", &silence(4_000_000));
    (0..DOTS).for_each(|n| write(&format!("dots/{n}.svg"), ICON.as_bytes()));
    folder
}

/// A square picture.
fn bitmap(side: u32) -> Vec<u8> {
    let size = side * side * 3;
    let mut file = b"BM".to_vec();
    let header = [54 + size, 0, 54, 40, side, side, 1 | 24 << 16, 0, size, 0, 0, 0, 0];
    file.extend(header.iter().flat_map(|number| number.to_le_bytes()));
    file.resize(54 + size as usize, 0x7F);
    file
}

/// Sound of which there is nothing to hear, 8000 bytes a second.
fn silence(len: u32) -> Vec<u8> {
    let mut file = b"RIFF".to_vec();
    file.extend((36 + len).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend([16, 1 | 1 << 16, 8000, 8000, 1 | 8 << 16].iter().flat_map(|number: &u32| number.to_le_bytes()));
    file.extend(b"data");
    file.extend(len.to_le_bytes());
    file.resize(44 + len as usize, 0x80);
    file
}

/// Some font of the machine's.
fn font(folder: &Path) -> Option<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).ok()?.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let found = paths.iter().find(|path| path.extension().is_some_and(|extension| extension == "ttf"));
    found.cloned().or_else(|| paths.iter().filter(|path| path.is_dir()).find_map(|path| font(path)))
}

/// The server, and the address of its page.
fn serve(folder: &Path) -> (Server, String) {
    let config = folder.join("web.conf");
    let server = Server::spawn(
        command(env!("CARGO_BIN_EXE_web"), &["--listen", "127.0.0.1:0", "--config", config.to_str().unwrap()]),
        1,
    );
    let address = format!("http://{}/", server.address());
    (server, address)
}

/// Lost otherwise: the readers who look at a site with a browser instead of a test's client.
#[test]
fn a_page_loads_with_all_that_is_in_it() {
    let Some(browser) = Browser::start() else { return };
    let folder = layout();
    let (_server, address) = serve(folder.path());
    let page = browser.page();
    page.open(&address);
    assert_eq!(page.wait_for("document.body.dataset.answer"), "42", "the scripts have run");
    page.wait_for("document.fonts.status == 'loaded' && document.querySelector('audio').readyState == 4");
    page.wait_for("[...document.images].length == 41 && [...document.images].every(image => image.complete)");
    assert_eq!(page.value("[...document.images].filter(image => image.naturalWidth == 0).length"), 0);
    assert_eq!(page.value("getComputedStyle(document.querySelector('.text')).color"), "rgb(1, 2, 3)");
    assert_eq!(page.value("document.querySelector('iframe').contentDocument.title"), "Another");
    assert_eq!(page.value("document.querySelector('audio').duration"), 500);
    // The rest has not been fetched yet: the player asks for a range.
    page.value("document.querySelector('audio').currentTime = 400");
    page.wait_for("!document.querySelector('audio').seeking && document.querySelector('audio').currentTime >= 400");

    assert_eq!(browser.complaints(), [""; 0]);
    let fetched = fetched(&browser);
    assert!(fetched.len() >= DOTS + 10, "all is looked at: {fetched:?}");
    for (address, of) in &fetched {
        assert!(of.failures.is_empty() && !of.statuses.is_empty(), "{address}: {of:?}");
        let right: &[u64] = if address.ends_with(".wav") { &[206] } else { &[200, 304] };
        assert!(of.statuses.iter().all(|status| right.contains(status)), "{address}: {of:?}");
    }
    let rejected = "performance.getEntriesByType('resource').filter(entry => entry.responseStatus >= 400).length";
    assert_eq!(page.value(rejected), 0);
}

/// Lost otherwise: the time of readers who come back, and a connection for each thing they ask for.
#[test]
fn who_comes_back_only_asks_what_has_changed() {
    let Some(browser) = Browser::start() else { return };
    let folder = layout();
    let (_server, address) = serve(folder.path());
    let page = browser.page();
    page.open(&address);
    page.wait_for("document.body.dataset.answer == 42 && document.images.length == 41");
    let mut all: Vec<_> = fetched(&browser).into_values().collect();

    page.reload();
    page.wait_for("document.body.dataset.answer == 42 && document.images.length == 41");
    let reloaded = fetched(&browser);
    assert_eq!(reloaded[&address].statuses, [304]);
    all.extend(reloaded.into_values());

    let names = "const names = performance.getEntriesByType('resource').map(entry => entry.name)";
    let again =
        "Promise.all(names.filter(name => !/wav$|sub.$/.test(name)).map(name => fetch(name, { cache: 'no-cache' })))";
    page.run(&format!("{names}; {again}.then(all => {{ document.body.dataset.again = all.length }})"));
    page.wait_for("document.body.dataset.again > 40");
    let again = fetched(&browser);
    assert!(again.len() >= DOTS, "{again:?}");
    for (address, of) in &again {
        let unchanged = !of.statuses.is_empty() && of.statuses.iter().all(|status| *status == 304);
        assert!(unchanged && of.failures.is_empty(), "{address}: {of:?}");
    }
    all.extend(again.into_values());
    let connections: BTreeSet<u64> = all.iter().flat_map(|of| of.connections.iter().copied()).collect();
    let requests: usize = all.iter().map(|of| of.statuses.len()).sum();
    assert!(requests > 2 * DOTS && connections.len() * 4 < requests, "{requests} over {connections:?}");
}
