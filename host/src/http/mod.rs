//! HTTP: what clients ask before they have a connection, and what operators and services ask at all.

mod api;
mod client;
mod demo;
mod engine;
mod forwarded;
mod handshake;
mod response;
mod upload;

pub use api::{Api, ApiConfig, ApiKey, KeyScope};
pub use client::{ClientConfig, ClientService};
