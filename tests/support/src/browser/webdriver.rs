//! A headless Chromium, driven by chromedriver over the W3C WebDriver protocol.

use super::http::ask;
use super::tools::{leave_out, tool};
use crate::{Server, TEST_TIMEOUT, no_fork, wait_until};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// The names of keys without a character.
pub const TAB: char = '\u{E004}';
pub const ENTER: char = '\u{E007}';
pub const SHIFT: char = '\u{E008}';
pub const SPACE: char = ' ';

/// No other host is ever looked up; and what a browser does on its own account is not done.
const ARGUMENTS: [&str; 13] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-breakpad",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.*",
    "--window-size=1000,800",
];

/// A browser with a profile of its own. All of its processes are killed when it is dropped.
pub struct Browser {
    driver: Server,
    session: String,
    /// Its main process.
    process: u64,
    /// The window that commands go to.
    window: RefCell<String>,
    /// Whether the window that it starts with has been taken for a page.
    used: RefCell<bool>,
    profile: tempfile::TempDir,
}

/// A window of it.
pub struct Page<'a> {
    browser: &'a Browser,
    window: String,
}

impl Browser {
    /// A browser, or a word about why there is none.
    pub fn start() -> Option<Browser> {
        let chromium = tool(&["chromium", "chromium-browser", "google-chrome"])?;
        let driver = tool(&["chromedriver"])?;
        let profile = tempfile::tempdir().unwrap();
        let driver = start_driver(&driver, profile.path());
        let mut browser = Browser {
            driver,
            session: String::new(),
            process: 0,
            window: RefCell::default(),
            used: RefCell::default(),
            profile,
        };
        match browser.begin(&chromium) {
            Ok(()) => Some(browser),
            Err(why) => {
                leave_out(&format!("{} does not start: {why}", chromium.display()));
                None
            }
        }
    }

    fn begin(&mut self, chromium: &Path) -> Result<(), String> {
        let profile = format!("--user-data-dir={}", self.profile.path().join("profile").display());
        let arguments: Vec<&str> = ARGUMENTS.into_iter().chain([profile.as_str()]).collect();
        let wanted = json!({
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        let session = self.call("POST", "/session", &json!({ "capabilities": { "alwaysMatch": wanted } }))?;
        self.session = text(&session["sessionId"]);
        self.process = session["capabilities"]["goog:processID"].as_u64().expect("a process id");
        *self.window.borrow_mut() = text(&self.get("window"));
        Ok(())
    }

    /// A window with nothing in it yet.
    pub fn page(&self) -> Page<'_> {
        let window = match self.used.replace(true) {
            false => self.window.borrow().clone(),
            true => text(&self.post("window/new", json!({ "type": "window" }))["handle"]),
        };
        Page { browser: self, window }
    }

    /// The complaints of the pages since the last call: errors and warnings, of their
    /// scripts and of the browser about them.
    pub fn complaints(&self) -> Vec<String> {
        let grave = |entry: &&Value| ["SEVERE", "WARNING"].iter().any(|level| entry["level"] == *level);
        self.log("browser").iter().filter(grave).map(|entry| text(&entry["message"])).collect()
    }

    /// The events of the network since the last call: names of events and what is
    /// told of them, as in the domain `Network` of the DevTools protocol.
    pub fn traffic(&self) -> Vec<(String, Value)> {
        let event = |entry: &Value| {
            let entry: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let method = entry["message"]["method"].as_str()?.strip_prefix("Network.")?;
            Some((method.to_owned(), entry["message"]["params"].clone()))
        };
        self.log("performance").iter().filter_map(event).collect()
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        self.post("se/log", json!({ "type": kind })).as_array().expect("entries").clone()
    }

    fn get(&self, command: &str) -> Value {
        self.in_session("GET", command, &Value::Null)
    }

    fn post(&self, command: &str, parameters: Value) -> Value {
        self.in_session("POST", command, &parameters)
    }

    fn in_session(&self, method: &str, command: &str, parameters: &Value) -> Value {
        let path = format!("/session/{}/{command}", self.session);
        self.call(method, &path, parameters).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    fn call(&self, method: &str, path: &str, parameters: &Value) -> Result<Value, String> {
        let body = if parameters.is_null() { String::new() } else { parameters.to_string() };
        let (status, reply) = ask(self.address(), method, path, "application/json", &body);
        let mut reply: Value = serde_json::from_str(&reply).expect("a driver speaks JSON");
        match status {
            200 => Ok(reply["value"].take()),
            _ => Err(text(&reply["value"]["message"])),
        }
    }

    fn address(&self) -> SocketAddr {
        let port = self.driver.ready[0].trim_end_matches('.').parse().expect("a port");
        (Ipv4Addr::LOCALHOST, port).into()
    }
}

/// Starts a driver on a free port, as the leader of a group of processes that its browser is in.
fn start_driver(path: &Path, home: &Path) -> Server {
    let mut command = Command::new(path);
    command.arg("--port=0").process_group(0).stdin(Stdio::null()).stderr(Stdio::null());
    for variable in ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
        command.env(variable, home);
    }
    let mut driver = Server::spawn(command, 1);
    let started = |line: String| line.split_once("started successfully on port ").map(|(_, port)| port.to_owned());
    let port = wait_until("the driver has a port", || started(driver.line()));
    driver.ready = vec![port];
    driver
}

impl Drop for Browser {
    /// Nothing in here panics: it also runs when a test has failed.
    fn drop(&mut self) {
        {
            let _guard = no_fork();
            let group = format!("-{}", self.driver.pid());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        }
        let start = Instant::now();
        while is_alive(self.process) && start.elapsed() < TEST_TIMEOUT {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Returns whether there is such a process; a zombie is none.
fn is_alive(process: u64) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat"));
    status.is_ok_and(|status| !status.contains(") Z "))
}

impl Page<'_> {
    /// Goes to an address, and waits until the page and all that it refers to has been loaded.
    pub fn open(&self, url: &str) {
        self.post("url", json!({ "url": url }));
    }

    pub fn reload(&self) {
        self.post("refresh", json!({}));
    }

    /// Runs a script before any of a page's own, in every page that is opened from here on.
    pub fn before_all(&self, script: &str) {
        self.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script }));
    }

    /// Says how wide and high the page is, and whether the reader likes it dark.
    pub fn show(&self, (width, height): (u32, u32), dark: bool) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
        let value = if dark { "dark" } else { "light" };
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.devtools("Emulation.setEmulatedMedia", scheme);
    }

    fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post("goog/cdp/execute", json!({ "cmd": command, "params": parameters }))
    }

    /// Returns the value of an expression in the page.
    pub fn value(&self, expression: &str) -> Value {
        self.run(&format!("return ({expression})"))
    }

    /// Runs a script in the page.
    pub fn run(&self, script: &str) -> Value {
        self.post("execute/sync", json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression is true, or something like it, and returns its value.
    pub fn wait_for(&self, expression: &str) -> Value {
        let truthy = |value: &Value| !matches!(value, Value::Null | Value::Bool(false)) && *value != 0 && *value != "";
        wait_until(&format!("`{expression}`; there is: {}", self.value("document.body.innerText")), || {
            Some(self.value(expression)).filter(truthy)
        })
    }

    /// Presses and releases keys, one after the other.
    pub fn press(&self, keys: impl IntoIterator<Item = char>) {
        let press = |key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })];
        self.act(keys.into_iter().flat_map(press).collect());
    }

    /// Presses a key while another one is held down.
    pub fn press_with(&self, held: char, key: char) {
        let (down, up) =
            (|key| json!({ "type": "keyDown", "value": key }), |key| json!({ "type": "keyUp", "value": key }));
        self.act(vec![down(held), down(key), up(key), up(held)]);
    }

    fn act(&self, actions: Vec<Value>) {
        self.post("actions", json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] }));
    }

    fn post(&self, command: &str, parameters: Value) -> Value {
        self.turn_to();
        self.browser.post(command, parameters)
    }

    /// Commands go to this window from here on.
    fn turn_to(&self) {
        if *self.browser.window.borrow() != self.window {
            self.browser.post("window", json!({ "handle": self.window }));
            *self.browser.window.borrow_mut() = self.window.clone();
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
