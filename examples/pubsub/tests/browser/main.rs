//! The chat room in a real browser (`room`), behind an nginx (`proxy`), and on several servers (`nodes`). They run if `BROWSER` is
//! set in the environment.

mod nodes;
mod proxy;
mod room;
