//! Tests of the documentation.

mod contract_table;
mod tutorial;
