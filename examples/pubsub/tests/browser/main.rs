//! The chat room in a real browser (`send_capacity`), and behind an nginx (`proxy`). They run if `BROWSER` is
//! set in the environment.

mod proxy;
mod room;
