//! Who may come in, for how long, and what they may do.

mod api_keys;
mod blocks;
mod cookie_sessions;
mod expiry;
mod jwt;
mod limits;
mod rooms;
mod secrets;
mod tls;
