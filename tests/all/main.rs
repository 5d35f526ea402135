//! End-to-end tests: the real host, real sockets.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

mod api;
mod api_directory;
mod api_emit;
mod api_idempotency;
mod campaign_progress;
mod chat_confirmation;
mod clients;
mod command_line;
mod connections;
mod crm_events;
mod descriptors;
mod doors;
mod durable;
mod engineio;
mod events;
mod front_http;
mod front_proxies;
mod greeting;
mod hostile;
mod instructions;
mod limits;
mod moving;
mod polling;
mod recovery;
mod resume;
mod shutdown;
mod signing_in;
mod socketio;
mod socketio_clients;
mod store;
mod swap;
mod table;
mod ticket_collision;
mod ticket_events;
mod time;
mod timeline;
mod tutorial;
mod upgrade;
