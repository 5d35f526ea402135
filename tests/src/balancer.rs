//! HAProxy before several hosts, as in `examples/haproxy.cfg`.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::process::{find_program, free_port, wait_until};

/// The header of the answer to a handshake with the number of the host that answered.
pub(crate) const NODE_HEADER: &str = "x-node";

/// A running load balancer, which is killed when this value is dropped.
#[derive(Debug)]
pub struct TestBalancer {
    port: u16,
    child: Child,
    _dir: TempDir,
}

impl TestBalancer {
    /// Starts a balancer before hosts, each with the addresses for its clients and of its API, as `127.0.0.1:PORT`.
    ///
    /// # Errors
    /// If HAProxy is not installed, with the reason.
    pub fn start(hosts: &[(String, String)]) -> Result<Self, String> {
        let program = find_program("haproxy").ok_or("HAProxy is not installed (no haproxy in PATH or /usr/sbin)")?;
        let (dir, port) = (tempfile::tempdir().expect("a temporary folder"), free_port());
        fs::write(dir.path().join("haproxy.cfg"), config(port, hosts)).expect("a configuration can be written");
        let log = fs::File::create(dir.path().join("log")).expect("a log can be made");
        let child = Command::new(program)
            .current_dir(dir.path())
            .args(["-db", "-f", "haproxy.cfg"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("haproxy runs");
        wait_until("the balancer listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Ok(Self { port, child, _dir: dir })
    }

    /// The address for clients, as `ws://127.0.0.1:PORT`.
    pub fn ws(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }
}

impl Drop for TestBalancer {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(port: u16, hosts: &[(String, String)]) -> String {
    let mut config = format!(
        "global\n    maxconn 8192\n\
         defaults\n    mode http\n    timeout connect 1s\n    timeout http-request 10s\n    timeout client 90s\n    \
         timeout server 90s\n    timeout tunnel 90s\n    timeout check 500ms\n\
         frontend clients\n    bind 127.0.0.1:{port}\n    option forwardfor\n    default_backend hosts\n\
         backend hosts\n    balance leastconn\n    option httpchk GET /readyz\n    option redispatch 1\n    \
         http-response set-header {NODE_HEADER} %s\n    \
         default-server inter 200ms fall 2 rise 1\n"
    );
    for (number, (clients, api)) in hosts.iter().enumerate() {
        let api_port = api.rsplit(':').next().unwrap_or_default();
        let _ = writeln!(config, "    server {number} {clients} check port {api_port}");
    }
    config
}
