//! HTTP on a client's socket, until it becomes a WebSocket; and Engine.IO's polling.
//!
//! - `serve`: requests on an accepted socket; `proxy_header`: the PROXY protocol before the requests
//! - `routes`: the paths; `config`: settings of the listener; `handshake`: WebSocket handshakes;
//!   `credentials`: what a first request signs in with; `engineio`: Engine.IO's requests
//! - `peer`: the client of a request; `origin`: the page of a request; `forwarded`: the client behind proxies
//! - `bundle`: Socket.IO's browser client; `demo`: the page of development mode

mod bundle;
mod config;
mod credentials;
mod demo;
mod engineio;
mod forwarded;
mod handshake;
mod origin;
mod peer;
pub(super) mod proxy_header;
mod routes;
mod serve;

pub use bundle::ClientBundle;
pub use config::ClientConfig;
pub use origin::AllowedOrigin;
