//! HTTP on sockets, shared by the listeners of clients and of the API.
//!
//! - `accept`, `descriptors`: a listener that fails, and file descriptors kept from clients
//! - `requests`: the requests of a connection, one after another, each within a `deadline`;
//!   `watched`, `framing`: the bytes as they arrive
//! - `budget`: bytes held of requests and messages that are incomplete; `upload`: bodies within it
//! - `head`: what a request's head must be; `response`: answers

mod accept;
mod budget;
mod deadline;
mod descriptors;
mod framing;
mod head;
mod requests;
pub mod response;
mod upload;
mod watched;

pub use accept::accept_failed;
pub use budget::{Budget, Holding, MAX_LAG_MS, MIN_BYTES_PER_SECOND, TransportKey};
pub use deadline::REQUEST_TIMEOUT;
pub use descriptors::{Descriptors, raise_limit};
pub use head::{header_lists, is_upgrade, refuse_ambiguous};
pub use requests::{HttpTimes, MAX_HEAD_BYTES, RequestFacts, serve_requests};
pub use upload::{Upload, UploadError};
pub use watched::{CONNECTION_BYTES, WatchedSocket};
