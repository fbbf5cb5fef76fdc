//! The stack for operators: an HTTP face on a listener of its own, which answers when the stack is full.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /push` | 204 when the body, 1 to 127 bytes, is stored; it waits while the stack is full |
//! | `POST /pop` | 200 with the item; it waits while the stack is empty |
//! | `GET /stack`, `/clients` | JSON: what there is, beside its limits; who waits for what, over either protocol |
//! | `DELETE /clients/N` | 204: the client is disconnected |
//! | `GET /metrics`, `/healthz` | counts for Prometheus; `ok` |
//! | `GET /` | a live page |
//!
//! `?timeout=S` bounds a wait: a push is answered 503 then, a pop 204. Both wait in the same lines as the clients
//! of the other protocol. A client that goes away is cancelled; an item whose response the kernel did not
//! take goes back on top, which is why the connection ends with it.

mod face;
mod metrics;
mod observed;
mod service;
mod workers;

pub use self::metrics::{EngineState, Text};
pub use self::observed::{Metrics, Observed, ObservedConn};
pub use self::service::{Operated, OperatedConn, Places};
pub use self::workers::Workers;
