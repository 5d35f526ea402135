//! The fault bench: agents work on several hosts while one fault after another strikes, and at each rest invariants are
//! checked.
//!
//! # Layout
//! - `model`: what agents have open, and what each should see
//! - `page`, `connection`, `wire`: a page of an agent, its connection, and the bytes; `service`, `campaigns`: what services send
//! - `record`: what pages have seen, and the story; `health`: when faults touched hosts
//! - `presence`, `timelines`, `messages`, `figures`: the invariants, as functions of record and model; `order`, `violation`
//! - `fault`, `bench`, `inject`: the run; `report`: what it prints

mod bench;
mod campaigns;
mod connection;
mod fault;
mod figures;
mod health;
mod inject;
mod messages;
mod model;
mod order;
mod page;
mod presence;
mod record;
mod report;
mod service;
mod timelines;
mod violation;
mod visits;
mod wire;

pub use bench::{Options, run};
pub use fault::Fault;
pub use report::{Failure, Report};
