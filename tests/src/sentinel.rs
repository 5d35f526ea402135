//! Two Redis servers, of which one follows the other, and a Sentinel that lets the other take over.

use std::fs;
use std::process::Child;

use tempfile::TempDir;

use crate::process::{free_port, wait_until};
use crate::redis::{TestRedis, cli, spawn};

/// The name of the primary for clients of the Sentinel.
const NAME: &str = "test";
/// The password of the servers.
const PASSWORD: &str = "behind-the-sentinel";

/// A running Sentinel with its servers, which are killed when this value is dropped.
#[derive(Debug)]
pub struct TestSentinel {
    /// The primary first, then its replica.
    servers: [TestRedis; 2],
    port: u16,
    child: Child,
    _dir: TempDir,
}

impl TestSentinel {
    /// Starts a primary, a replica and a Sentinel that decides alone.
    ///
    /// # Errors
    /// If Redis is not installed, with the reason.
    pub fn start() -> Result<Self, String> {
        let start = || TestRedis::start_with_password(PASSWORD);
        let servers = [start()?, start()?];
        servers[1].follow(&servers[0]);
        let (dir, port) = (tempfile::tempdir().expect("a temporary folder"), free_port());
        let config = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor {NAME} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {NAME} 500\nsentinel failover-timeout {NAME} 2000\n\
             sentinel auth-pass {NAME} {PASSWORD}\n",
            servers[0].port()
        );
        fs::write(dir.path().join("sentinel.conf"), config).expect("a configuration can be written");
        // What `redis-sentinel` runs too.
        let child = spawn("redis-server", dir.path(), &["sentinel.conf", "--sentinel"]);
        let sentinel = Self { servers, port, child, _dir: dir };
        // It asks servers for their state every ten seconds otherwise, and chooses by what it knows.
        wait_until("the Sentinel answers", || {
            cli(port, None, &["SENTINEL", "DEBUG", "INFO-PERIOD", "200"]).is_ok_and(|answer| answer == "OK")
        });
        sentinel.wait_for_replica();
        Ok(sentinel)
    }

    /// The URL of the primary, by the Sentinel.
    pub fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/{NAME}?password={PASSWORD}", self.port)
    }

    /// The server that is the primary now.
    pub fn primary(&self) -> &TestRedis {
        &self.servers[0]
    }

    /// Cuts the replication: what the primary is told from now on is lost at a failover. The Sentinel mends this after
    /// eight seconds, so [`Self::fail_over`] has to follow sooner.
    pub fn cut_replication(&self) {
        assert_eq!(self.servers[1].cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    }

    /// Kills the primary, and waits until the Sentinel says that the replica is the primary.
    pub fn fail_over(&mut self) {
        self.servers[0].kill();
        self.servers.swap(0, 1);
        let port = self.servers[0].port().to_string();
        wait_until("the Sentinel has chosen", || {
            let answer = cli(self.port, None, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]);
            answer.is_ok_and(|answer| answer.lines().last() == Some(&port))
        });
    }

    /// Starts the server that failed, as the replica of the other.
    pub fn rejoin(&mut self) {
        let [primary, replica] = &mut self.servers;
        replica.restart_empty();
        replica.follow(primary);
        self.wait_for_replica();
    }

    /// Waits until the Sentinel knows a replica that can take over.
    fn wait_for_replica(&self) {
        let port = format!("port={}", self.servers[1].port());
        wait_until("the Sentinel knows the replica", || {
            let replicas = cli(self.port, None, &["SENTINEL", "REPLICAS", NAME]).unwrap_or_default();
            let fields: Vec<&str> = replicas.lines().collect();
            let value = |name: &str| fields.iter().position(|field| *field == name).map(|at| fields[at + 1]);
            value("port").is_some_and(|known| port.ends_with(&format!("={known}")))
                && value("master-link-status") == Some("ok")
                && value("flags") == Some("slave")
        });
    }
}

impl Drop for TestSentinel {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failover_loses_what_followed_the_cut() {
        let mut sentinel = match TestSentinel::start() {
            Ok(sentinel) => sentinel,
            Err(why) => return crate::skip("failover_loses_what_followed_the_cut", &why),
        };
        let primary = sentinel.primary().port();
        sentinel.primary().cli(&["SET", "kept", "1"]);
        assert_eq!(sentinel.primary().cli(&["WAIT", "1", "5000"]), "1");
        sentinel.cut_replication();
        sentinel.primary().cli(&["SET", "lost", "1"]);
        sentinel.fail_over();
        assert_ne!(sentinel.primary().port(), primary);
        assert_eq!(sentinel.primary().cli(&["MGET", "kept", "lost"]), "1");
        sentinel.rejoin();
        sentinel.fail_over();
        assert_eq!(sentinel.primary().port(), primary);
        assert_eq!(sentinel.primary().cli(&["GET", "kept"]), "1");
    }
}
