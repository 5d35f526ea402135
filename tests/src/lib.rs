//! Hosts, clients and databases for the end-to-end tests and the benchmarks.
//!
//! # Layout
//! - [`TestHost`]: the real binary in a folder of its own, and its API
//! - [`CountedHost`]: the real binary under a tool that counts its instructions
//! - [`InnerHost`]: the host within the test's process, on a clock that the test moves
//! - [`TestClient`]: a client of the plain protocol
//! - [`Polling`], [`EngineSocket`]: clients of Engine.IO, packet by packet
//! - [`SocketIoClient`]: a client of Socket.IO on either transport
//! - [`TestPostgres`], [`TestPgBouncer`]: a PostgreSQL server, and a pooler before it
//! - [`TestRedis`], [`TestSentinel`], [`TestRedisCluster`]: a Redis server, a pair that fails over, and three that share slots
//! - [`TestCluster`]: several hosts over a Redis; [`TestBalancer`]: HAProxy before them; [`ShiftedClock`]: a host's wall clock
//! - [`CuttableProxy`]: a way that breaks and hangs
//! - [`fault_bench`]: agents on several hosts that have faults
//! - [`guests`]: components to load
//! - [`mutants`]: features with one small regression each, and traffic that shows it
//! - [`abuse`]: attacks, and their cost to others
//! - [`faults_of_many`]: faults that count against a feature, and not against one sender
//! - [`bench`]: helpers of the benchmarks
//! - [`chat`]: chat under load
//! - [`Script`]: the scripts that run third-party clients
//! - [`cost`]: the worst cost of payloads within the limits
//! - [`restarts`]: kills in the middle of a change, and the starts after them
//! - [`smith`]: generated components, most of them invalid
//! - [`Random`]: pseudo-random numbers from a seed
//! - [`raw`]: WebSockets without a library, for load generators
//! - [`swaps`]: swaps of all features under load
//! - [`StubServer`], [`StubTable`]: a stand-in for an HTTP service of the operator
//! - [`TestAuthority`]: certificates; [`Tunnel`]: reaches a host with TLS for clients without
//! - [`Walk`]: reads the lengths of a server's frames
//! - [`target_dir`]: the target folder of the running program
//! - [`skip`]: reports a test that lacks a requirement

pub mod abuse;
mod balancer;
pub mod bench;
mod callgrind;
pub mod chat;
mod client;
mod cluster;
pub mod cost;
mod cut;
mod engine;
pub mod fault_bench;
mod faults;
pub mod guests;
mod host;
mod http;
mod inner;
pub mod issuer;
pub mod mutants;
mod pgbouncer;
mod postgres;
mod process;
mod random;
pub mod raw;
mod redis;
mod redis_cluster;
pub mod restarts;
mod scripts;
mod sentinel;
mod shifted_clock;
pub mod smith;
mod socketio;
mod stub;
pub mod swaps;
mod tls;
mod walk;

pub use balancer::TestBalancer;
pub use callgrind::CountedHost;
pub use client::{Closed, TestClient};
pub use cluster::{ClusterOptions, Engine, TestCluster};
pub use cut::CuttableProxy;
pub use engine::{ENGINE, EngineSocket, Packet, Polling, with_headers};
pub use faults::{FaultyHost, faults_of_many};
pub use host::TestHost;
pub use http::{Answer, http, http_within, metric};
pub use inner::InnerHost;
pub use pgbouncer::TestPgBouncer;
pub use postgres::{BlockedTable, TestPostgres};
pub use random::Random;
pub use redis::{Persistence, TestRedis};
pub use redis_cluster::TestRedisCluster;
pub use scripts::{Running, Script};
pub use sentinel::TestSentinel;
pub use shifted_clock::ShiftedClock;
pub use socketio::{Received, SocketIoClient};
pub use stub::{StubAnswer, StubRequest, StubServer, StubTable};
pub use tls::{TestAuthority, TestCertificate, Tunnel, connect_tls, connect_tls_on};
pub use walk::{Long, Walk};

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The time that a test waits for an expected result. Generous, because machines may be busy: only failing tests take
/// so long.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// The time that a test listens for frames that must not come.
pub const SILENCE: Duration = Duration::from_millis(150);

/// The frames of a client that has received none.
pub const NOTHING: Vec<Value> = Vec::new();

/// Calls `probe` again and again until it returns a value. Returns that value.
///
/// # Panics
/// If `probe` returns no value within [`TIMEOUT`].
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
/// If cargo did not build the program.
pub fn target_dir() -> PathBuf {
    // cargo's `CACHEDIR.TAG` does not mark the folder: cargo writes none into a folder that existed before its first
    // build.
    let program = std::env::current_exe().expect("a program has a path");
    let profile = program.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    profile.and_then(|profile| profile.parent()).expect("it is within a target folder").to_owned()
}

/// Reports that a test is skipped, and why.
///
/// # Panics
/// If `TESTS_MUST_NOT_SKIP` is set, as in continuous integration, where no requirement may be missing.
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("TESTS_MUST_NOT_SKIP").is_none(), "{test} must not be skipped here: {why}");
    // Written to standard error directly, because the test runner captures the output of a passing test.
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED {test}: {why}");
}
