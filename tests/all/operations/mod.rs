//! Running a host: command line, configuration, files, logs, proxies, shutdown, clock and cost.

mod clock;
mod command_line;
mod environment;
mod instructions;
mod logs;
mod own_files;
mod proxies;
mod shutdown;
