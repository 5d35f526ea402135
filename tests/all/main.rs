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
mod credentials;
mod crm_events;
mod doors;
mod durable;
mod engineio;
mod environment;
mod events;
mod greeting;
mod hostile;
mod installed;
mod instructions;
mod limits;
mod logs;
mod moving;
mod own_files;
mod polling;
mod postgres_lease;
mod postgres_rights;
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
