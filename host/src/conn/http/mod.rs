//! HTTP on a client's socket: everything before it becomes a WebSocket, and Engine.IO's polling.
//!
//! - `serve`: requests on a socket that was accepted; `proxy_header`: the PROXY protocol before them
//! - `client`: the paths; `handshake`: WebSocket handshakes; `engine`: Engine.IO's requests
//! - `origin`, `forwarded`: where a page and a client behind proxies come from
//! - `bundle`, `demo`: Socket.IO's client for browsers, and the page of development mode

mod bundle;
mod client;
mod demo;
mod engine;
mod forwarded;
mod handshake;
mod origin;
pub(super) mod proxy_header;
mod serve;

pub use bundle::ClientBundle;
pub use client::{ClientConfig, ClientService};
pub use origin::AllowedOrigin;
pub use serve::Caller;
