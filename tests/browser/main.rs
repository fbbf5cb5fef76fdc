//! The servers before a real browser, a headless Chromium which is driven over WebDriver: a page from
//! the static web server (`web`), the chat room (`room`), and the same behind an nginx (`proxy`).
//! They run if `BROWSER` is set in the environment, and say that they are left out otherwise, or where
//! Chromium, its driver or nginx is not installed; with `BROWSER=required` they fail there.

#[path = "../common/mod.rs"]
mod common;
mod http;
mod proxy;
mod room;
mod tools;
mod web;
mod webdriver;
