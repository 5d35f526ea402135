//! Who may come in, and how: the ways to the host, and what is kept from everybody.

mod limits;
mod tls;
