//! The `roundhouse` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    roundhouse::cli::run()
}
