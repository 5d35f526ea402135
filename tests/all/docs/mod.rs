//! That the documentation is true.

mod contract_table;
mod tutorial;
