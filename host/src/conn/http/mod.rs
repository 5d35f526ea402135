//! HTTP on a client's socket, until it becomes a WebSocket; and Engine.IO's polling.
//!
//! - `serve`: requests on a socket that was accepted; `proxy_header`: the PROXY protocol before them;
//!   `peer`: their client
//! - `routes`: the paths; `config`: how clients may connect; `handshake`: WebSocket handshakes; `engineio`: Engine.IO's
//!   requests
//! - `peer`: who makes a request; `origin`, `forwarded`: where a page and a client behind proxies come from
//! - `bundle`, `demo`: Socket.IO's client for browsers, and the page of development mode

mod bundle;
mod config;
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
