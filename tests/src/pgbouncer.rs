//! PgBouncer, the connection pooler, before a [`TestPostgres`]: in transaction mode, where each transaction may run on another
//! connection to the server.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::TIMEOUT;
use crate::postgres::{TestPostgres, give_to_server_account, server_command};
use crate::process::{find_program, free_port};

/// A running pooler, which is killed when this value is dropped.
#[derive(Debug)]
pub struct TestPgBouncer {
    port: u16,
    child: Child,
    _dir: TempDir,
}

impl TestPgBouncer {
    /// Starts a pooler in transaction mode. It has few connections to the server, so that clients share them.
    ///
    /// # Errors
    /// If PgBouncer is not installed, with the reason.
    pub fn start(server: &TestPostgres) -> Result<Self, String> {
        Self::start_in_mode(server, "transaction")
    }

    /// Starts a pooler in another mode.
    ///
    /// # Errors
    /// If PgBouncer is not installed, with the reason.
    pub fn start_in_mode(server: &TestPostgres, mode: &str) -> Result<Self, String> {
        let program =
            find_program("pgbouncer").ok_or("PgBouncer is not installed (no pgbouncer in PATH or /usr/sbin)")?;
        let dir = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = roles\npool_mode = {mode}\ndefault_pool_size = 2\n",
            server.port()
        );
        fs::write(dir.path().join("pgbouncer.ini"), config).expect("a configuration can be written");
        fs::write(dir.path().join("roles"), "\"roundhouse\" \"\"\n").expect("the roles can be written");
        give_to_server_account(dir.path());
        let log = fs::File::create(dir.path().join("log")).expect("a log can be made");
        let child = server_command(&program, dir.path())
            .arg("pgbouncer.ini")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("pgbouncer runs");
        let deadline = Instant::now() + TIMEOUT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the pooler did not start: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { port, child, _dir: dir })
    }

    /// The URL of the pooler.
    pub fn url(&self) -> String {
        format!("postgres://roundhouse@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for TestPgBouncer {
    fn drop(&mut self) {
        // The pooler may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
