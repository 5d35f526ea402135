//! TLS on the host's listeners, by rustls.
//!
//! - `session`: TLS of one connection, without I/O: a shard drives it over its own poller, `stream` over the runtime
//! - `server`: the settings of a listener, the handshake, and the certificate that is exchanged while the host runs
//! - `files`: certificates and keys in PEM, and their mistakes; `watch`: the files when they change

mod files;
mod server;
mod session;
mod stream;
mod watch;

pub use files::TlsFiles;
pub use server::{HandshakeFailure, Tls};
pub use session::TlsSession;
pub use stream::{RawSocket, Stream};
pub use watch::CertificateWatch;
