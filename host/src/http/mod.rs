//! HTTP: what clients ask before they have a connection, and what operators and services ask at all.

mod api;
mod bundle;
mod client;
mod demo;
mod engine;
mod forwarded;
mod handshake;
mod head;
mod origin;
mod response;
mod upload;

pub use api::{Api, ApiConfig, ApiKey, ConfigFile, KeyScope};
pub use bundle::ClientBundle;
pub use client::{ClientConfig, ClientService};
pub use origin::AllowedOrigin;
