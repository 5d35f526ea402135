//! Who may come in, and for how long.

mod blocks;
mod expiry;
mod limits;
mod secrets;
mod tls;
