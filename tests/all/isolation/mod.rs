//! Limits, budgets and fairness: one client, service or plugin cannot cost the others service.

mod abuse;
mod budgets;
mod connection_limits;
mod descriptors;
mod fairness;
mod floods;
mod limits;
mod payloads;
mod unfinished_input;
