//! HTTP: what clients ask before they have a connection, and what operators and services ask at all.

mod api;
mod bundle;
mod client;
mod demo;
mod engine;
mod handshake;
mod response;

pub use api::{Api, ApiConfig, ApiKey, KeyScope};
pub use bundle::ClientBundle;
pub use client::{ClientConfig, ClientService};
