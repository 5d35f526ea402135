//! The plain protocol, and the HTTP and WebSocket under it.

mod connections;
mod credentials;
mod events;
mod http;
mod invisible_characters;
mod request_heads;
mod surrogates;
mod third_party_clients;
