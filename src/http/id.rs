//! The names of exchanges, and how one ends.

use crate::arena::Index;

/// A request and its response, from [`Handler::on_request`](super::Handler::on_request) until
/// [`Handler::on_close`](super::Handler::on_close). An id is never given out twice: once its
/// exchange is over, it is stale. Ids are ordered as the requests came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId(pub(super) Index);

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The whole response has been given to the loop. The client may or may not read it.
    Complete,
    /// The connection ended before that.
    Aborted,
}
