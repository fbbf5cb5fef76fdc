//! A headless Chromium, for tests that run if `BROWSER` is set in the environment. They say that they
//! are left out otherwise, or where Chromium or its driver is not installed; with
//! `BROWSER=required` they fail there.

mod http;
mod tools;
mod webdriver;

pub use http::ask;
pub use tools::tool;
pub use webdriver::{Browser, ENTER, Page, SHIFT, SPACE, TAB};
