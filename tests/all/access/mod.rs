//! Who may come in, for how long, and what they may do.

mod admission;
mod api_keys;
mod attacks;
mod authorize;
mod blocks;
mod cookie_sessions;
mod expiry;
mod jwt;
mod limits;
mod roles;
mod rooms;
mod secrets;
mod tls;
