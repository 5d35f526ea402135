//! The SDK from an author's side: a feature that does what it is told, run by the simulator.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test like the test itself")]

mod away;
mod case;
mod connections;
mod decoding;
mod documents;
mod effects;
mod host;
mod limits;
mod outcome;
mod probe;
