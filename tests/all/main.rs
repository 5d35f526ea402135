//! End-to-end tests: the real host, real sockets.

mod clients;
mod command_line;
mod connections;
mod doors;
mod events;
mod hostile;
mod limits;
mod shutdown;
mod swap;
mod ticket_collision;
mod time;
