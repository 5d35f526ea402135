//! The management and service API, on a listener and a thread of its own.
//!
//! - `calls`: the table of calls, one row each; `route`: the type of a row, and the router
//! - `serve`: from a connection to the handler; `state`: state shared by the handlers
//! - `keys`: API keys and their scopes; `narrowing`: what a key may do within them; `body`: reads and parses requests; `idempotency`: remembers answers
//! - the handlers: `emit` (its recipients: `audience`), `events`, `directory`, `blocks`, `plugins`, `host`
//! - `openapi`: describes the table, with the schemas that `schema` generates from the types of bodies and answers

mod audience;
mod block_changes;
mod block_store;
mod blocks;
mod body;
mod calls;
mod cases;
mod cluster;
mod config_file;
mod directory;
mod emit;
mod events;
mod host;
mod idempotency;
mod keys;
mod narrowing;
mod openapi;
mod parameters;
mod plugins;
mod rollouts;
mod route;
mod schema;
mod scopes;
mod serve;
mod state;
mod why;

pub use body::MAX_BODY_BYTES;
pub use config_file::ConfigFile;
pub use keys::{ApiConfig, ApiKey, KeyScope};
pub use narrowing::{Narrowing, Patterns, rate};
pub use state::Api;
