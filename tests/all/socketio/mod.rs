//! Engine.IO and Socket.IO.

mod authentication;
mod client_bundle;
mod engineio;
mod namespaces;
mod polling;
mod third_party_clients;
mod upgrade;
