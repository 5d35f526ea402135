//! Attacks on a host, and their cost to others: good clients, newcomers, the operator, and memory.
//!
//! # Layout
//! - [`Attack`]: an attack; [`all`]: the list of all
//! - [`Field`]: an attacker's resources, and its floods
//! - [`Line`]: an attacker's connection
//! - [`Tally`]: an attacker's sent and received frames
//! - [`GoodClients`]: the good clients, and their service
//! - [`Campaign`]: attacks one after another, on hosts that it starts
//! - [`Verdict`]: the result of one attack, and the table of all results

mod attack;
mod attacks;
mod campaign;
mod field;
mod flood;
mod front;
mod glimpse;
mod good;
mod handshake;
mod ledger;
mod line;
mod list;
mod page;
mod requests;
mod sampling;
mod stage;
mod tally;
mod verdict;
mod visitors;

pub use attack::{Attack, Attacker, Group, Setting};
pub use campaign::{Campaign, Length};
pub use field::Field;
pub use flood::Flood;
pub use good::{GOOD_CLIENTS, GoodClients};
pub use handshake::Handshake;
pub use ledger::{RequestKind, Served};
pub use line::Line;
pub use list::all;
pub use page::{page, page_of_one};
pub use tally::Tally;
pub use verdict::{Latency, Memory, Verdict, table};
