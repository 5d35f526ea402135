//! The tasks of this repository: `cargo xtask` lists them.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode};

use xtask::{shape, sources};

/// A task: its name, its description, and the commands that it runs.
type Task = (&'static str, &'static str, &'static [&'static str]);

const TASKS: [Task; 7] = [
    ("fmt", "format all code", &["cargo fmt --all"]),
    (
        "lint",
        "formatting, clippy, dependencies",
        &["cargo fmt --all --check", "cargo clippy --release --all-targets -- -D warnings", "cargo deny check"],
    ),
    (
        "test",
        "unit tests, the features' rules, the layers",
        &["cargo test --release --workspace --exclude roundhouse-tests"],
    ),
    (
        "e2e",
        "tests against the real binary; a filter may follow",
        &["cargo build --release -p roundhouse", "cargo test --release -p roundhouse-tests"],
    ),
    ("bench", "measure against other servers; options may follow", &["cargo bench -p roundhouse-tests --"]),
    (
        "baseline",
        "write the instruction baseline anew",
        &["env INSTRUCTIONS_BASELINE=write cargo test --release -p roundhouse-tests --test all instructions"],
    ),
    ("shape", "figures of the code, of this tree or of a folder that follows", &[]),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let Some((_, _, commands)) = TASKS.iter().find(|(task, ..)| *task == name) else {
        return say(&TASKS.map(|(name, help, _)| format!("cargo xtask {name:<9} {help}\n")).concat(), 2);
    };
    if name == "shape" {
        let root = rest.first().map_or(Path::new("."), Path::new);
        return match sources::read(root).map_err(|e| e.to_string()).and_then(|sources| shape::shape(&sources)) {
            Ok(text) => say(&text, 0),
            Err(error) => say(&format!("{error}\n"), 1),
        };
    }
    let last = commands.len().saturating_sub(1);
    for (number, command) in commands.iter().enumerate() {
        let mut words = command.split(' ');
        let mut process = Command::new(words.next().unwrap_or_default());
        process.args(words).args(if number == last { rest.as_slice() } else { &[] });
        match process.status() {
            Ok(status) if status.success() => {}
            Ok(_) => return ExitCode::FAILURE,
            Err(error) => return say(&format!("cannot run {command}: {error}\n"), 1),
        }
    }
    ExitCode::SUCCESS
}

fn say(text: &str, code: u8) -> ExitCode {
    // A reader that has closed the pipe, such as `head`, wants no more.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    ExitCode::from(code)
}
