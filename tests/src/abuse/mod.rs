//! Attacks on a host, and what they cost everybody else: good clients, newcomers, the operator, and memory.
//!
//! # Layout
//! - [`Attack`]: who does what, and the list of all
//! - [`Field`]: what an attacker is given, and its floods
//! - [`Line`]: a connection of an attacker
//! - [`Tally`]: what an attacker sent and got
//! - [`Neighbours`]: the good ones, and what they are served
//! - [`Campaign`]: attacks one after another, on hosts that it starts
//! - [`Verdict`]: what one attack led to, and the tables of all

mod attack;
mod attacks;
mod campaign;
mod field;
mod flood;
mod glimpse;
mod good;
mod ledger;
mod line;
mod page;
mod requests;
mod sampling;
mod stage;
mod tally;
mod verdict;
mod visitors;

pub use attack::{Attack, Group, Setting, Who, all};
pub use campaign::{Campaign, Length};
pub use field::Field;
pub use flood::{Flood, Way};
pub use good::Neighbours;
pub use ledger::{Served, Service};
pub use line::Line;
pub use page::page;
pub use tally::Tally;
pub use verdict::{Latency, Memory, Verdict, table};
