//! The chat room in a real browser (`room`), and behind an nginx (`proxy`). They run if `BROWSER` is
//! set in the environment.

mod proxy;
mod room;
