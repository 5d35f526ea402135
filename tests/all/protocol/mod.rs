//! The plain protocol, and HTTP and WebSocket beneath it.

mod connections;
mod credentials;
mod events;
mod http;
mod invisible_characters;
mod request_heads;
mod surrogates;
mod third_party_clients;
