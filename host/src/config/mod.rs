//! Configuration: a TOML file and the environment, checked, and converted to the settings of each part of the host.
//!
//! - `file`: the file and the environment (`environment`), as `sections`, whose values `values`, `address` and `secret_file`
//!   check while they are read; `explain`: errors by their keys
//! - `build`: the whole configuration, made from the sections
//! - `prepare`: steps of a host before it serves: it generates `secrets`, and checks its `private` files
//! - `log`: the format of the log, which is known before the rest is read

mod address;
mod build;
mod environment;
mod explain;
mod file;
mod log;
mod prepare;
mod private;
mod secret_file;
mod secrets;
mod sections;
mod values;

pub use address::Address;
pub use build::{Config, Overrides};
pub use log::LogFormat;
pub use secrets::PRIVATE_DIR;
pub use sections::budget::Budgets;
pub use sections::shutdown::ShutdownConfig;
pub use sections::tls::TlsConfig;

/// The usual name of configuration files. Without `--config` such a file is not read.
pub const USUAL_FILE: &str = "roundhouse.toml";
