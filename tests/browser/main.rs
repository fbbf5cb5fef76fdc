//! The servers before a real browser, a headless Chromium which is driven over WebDriver: a page from
//! the static web server (`web`), the chat room (`room`), and the same behind an nginx (`proxy`).
//! Where Chromium, its driver or nginx is not installed, the tests say that they are left out, and
//! pass; with `BROWSER=required` in the environment they fail.

#[path = "../common/mod.rs"]
mod common;
mod http;
mod proxy;
mod room;
mod tools;
mod web;
mod webdriver;
