//! Tests of the documentation.

mod contract_table;
mod examples;
mod tutorial;
