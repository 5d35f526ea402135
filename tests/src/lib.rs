//! Hosts, clients and databases for the end-to-end tests and the benchmarks.
//!
//! # Layout
//! - [`TestHost`]: the real binary in a folder of its own, and its API
//! - [`CountedHost`]: the same under a tool that counts its instructions
//! - [`InnerHost`]: the same host within the test's process, on a clock that the test moves
//! - [`TestClient`]: a client of the plain protocol
//! - [`Polling`], [`EngineSocket`]: clients of Engine.IO, packet by packet
//! - [`SocketIoClient`]: a client of Socket.IO on either of them
//! - [`TestPostgres`], [`TestPgBouncer`]: a PostgreSQL server of its own, and a pooler before it
//! - [`guests`]: components to load
//! - [`abuse`]: attacks, and their cost to others
//! - [`faults_of_many`]: faults that count against a feature, and not against one sender
//! - [`bench`]: shared by the benchmarks
//! - [`chat`]: chat under load
//! - [`Script`]: the scripts that run third-party clients
//! - [`cost`]: the worst cost of payloads within the limits
//! - [`restarts`]: kills in the middle of a change, and the starts after them
//! - [`Random`]: pseudo-random numbers from a seed
//! - [`raw`]: WebSockets without a library, for load generators
//! - [`Walk`]: from frame to frame through a server's bytes
//! - [`target_dir`]: the target folder of the running program
//! - [`skip`]: reports a test that lacks a requirement

pub mod abuse;
pub mod bench;
mod callgrind;
pub mod chat;
mod client;
pub mod cost;
mod engine;
mod faults;
pub mod guests;
mod host;
mod inner;
mod pgbouncer;
mod postgres;
mod random;
pub mod raw;
pub mod restarts;
mod scripts;
mod socketio;
mod walk;

pub use callgrind::CountedHost;
pub use client::{Closed, TestClient};
pub use engine::{ENGINE, EngineSocket, Packet, Polling, with_headers};
pub use faults::{FaultyHost, faults_of_many};
pub use host::{Answer, TestHost, http, metric};
pub use inner::InnerHost;
pub use pgbouncer::TestPgBouncer;
pub use postgres::TestPostgres;
pub use random::Random;
pub use scripts::{Running, Script};
pub use socketio::{Received, SocketIoClient};
pub use walk::{Long, Walk};

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a test waits for an expected result. Generous, for machines may be busy: only failing tests take so long.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// How long a test listens for frames that must not come.
pub const SILENCE: Duration = Duration::from_millis(150);

/// The frames of a client that has received none.
pub const NOTHING: Vec<Value> = Vec::new();

/// Calls `probe` again and again until it returns a value.
///
/// # Panics
/// Where it returns none in time.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not come to this in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The target folder that this program was built into.
///
/// # Panics
/// Where it was not built by cargo.
pub fn target_dir() -> PathBuf {
    // Not by cargo's `CACHEDIR.TAG`: cargo does not put one into a folder that existed before its first build.
    let program = std::env::current_exe().expect("a program has a path");
    let profile = program.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    profile.and_then(|profile| profile.parent()).expect("it is within a target folder").to_owned()
}

/// Reports that a test is skipped, and why.
///
/// # Panics
/// Where `TESTS_MUST_NOT_SKIP` is set, as it is in continuous integration: there nothing may be missing.
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("TESTS_MUST_NOT_SKIP").is_none(), "{test} must not be skipped here: {why}");
    // Written to standard error itself: the test runner captures the output of a passing test.
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED {test}: {why}");
}
