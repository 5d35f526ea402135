//! Swaps of all features under load: no client notices, and nothing is lost, doubled or out of order.
//!
//! # Layout
//! - `group`: the scopes that a group of clients shares; `board`: what was done in them, which all must see
//! - `member`: a client; `line`: its connection on either protocol; `acks`: what it waits to have acknowledged
//! - `seen`, `viewers`, `talk`, `sequence`: what it has seen, compared with the model
//! - `service`, `caller`: a service that posts numbered events
//! - `swapper`: the swaps; `probe`, `pauses`: round trips meanwhile
//! - `ends`: the host's reports, compared with the model; `tally`: the faults
//! - `bench`: the run

mod acks;
mod bench;
mod board;
mod caller;
mod ends;
mod group;
mod line;
mod member;
mod pauses;
mod probe;
mod seen;
mod sequence;
mod service;
mod swapper;
mod talk;
mod tally;
mod viewers;

pub use bench::{Options, Report, run};
pub use pauses::Pauses;
pub use tally::{Kind, Tally};
