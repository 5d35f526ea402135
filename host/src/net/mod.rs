//! HTTP on sockets, shared by the listeners of clients and of the API.
//!
//! - `accept`: failures to accept; `descriptors`: the reserve of file descriptors
//! - `requests`: the requests of a connection, one after another, each within a `deadline`;
//!   `watched`, `framing`: the bytes as they arrive
//! - `budget`: bytes of incomplete requests and messages; `upload`: bodies within the budget
//! - `tls`: TLS of a listener
//! - `head`: checks of a request's head; `response`: answers

mod accept;
mod budget;
mod deadline;
mod descriptors;
mod framing;
mod head;
mod requests;
pub mod response;
mod tls;
mod upload;
mod watched;

pub use accept::accept_failed;
pub use budget::{Budget, Holding, MAX_LAG_MS, MIN_BYTES_PER_SECOND, TransportKey};
pub use descriptors::{Descriptors, raise_limit};
pub use head::{header_lists, is_upgrade, refuse_ambiguous};
pub use requests::{HttpLimits, RequestFacts, serve_requests};
pub use tls::{CertificateWatch, HandshakeFailure, RawSocket, Stream, Tls, TlsFiles, TlsSession};
pub use upload::{Upload, UploadError};
pub use watched::{CONNECTION_BYTES, WatchedSocket};
