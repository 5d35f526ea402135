//! The lease of the one host that writes to a PostgreSQL database, with and without a pooler in transaction mode.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use roundhouse_tests::{TestHost, TestPgBouncer, TestPostgres, eventually, skip};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A time shorter than a lease.
const AT_ONCE: Duration = Duration::from_secs(8);

fn config(url: &str) -> String {
    format!("auth.jwt.secret = \"s\"\nstore.url = \"{url}\"\n")
}

/// A command that starts a host in a folder of its own. The host may fail to start.
fn start_elsewhere(config: &str) -> (TempDir, Command) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("roundhouse.toml"), config).unwrap();
    let mut command = TestHost::command(dir.path());
    command.args(["--config", "roundhouse.toml", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    (dir, command)
}

async fn start_campaign(host: &TestHost) {
    host.post_event("campaign:started", json!({ "campaignId": "c1", "name": "Spring", "total": 1000 })).await.unwrap();
}

/// Counts one more message. Returns the number of processed messages.
async fn count(host: &TestHost) -> Value {
    host.post_event("campaign:message", json!({ "campaignId": "c1", "status": "sent" })).await.unwrap()["processed"]
        .take()
}

fn pooled() -> Result<(TestPostgres, TestPgBouncer), String> {
    let server = TestPostgres::start()?;
    let pooler = TestPgBouncer::start(&server)?;
    Ok((server, pooler))
}

const BACKENDS: &str = "SELECT coalesce(string_agg(pid::text, ' ' ORDER BY pid), '') FROM pg_stat_activity
                        WHERE application_name = 'roundhouse'";

const SESSION_SETTINGS: &str = "SELECT coalesce(string_agg(name, ' '), '') FROM pg_settings
                                WHERE name LIKE '%\\_timeout' AND source = 'session'";

#[tokio::test]
async fn second_host_behind_a_pooler_is_refused() {
    let (server, pooler) = match pooled() {
        Ok(pooled) => pooled,
        Err(why) => return skip("second_host_behind_a_pooler_is_refused", &why),
    };
    let config = config(&pooler.url());
    let first = TestHost::start_with(&config, &[]);
    start_campaign(&first).await;
    assert_eq!(count(&first).await, 1);
    let backends = server.value(BACKENDS);

    let (_dir, mut second) = start_elsewhere(&config);
    let second = second.spawn().unwrap();
    let ended = tokio::task::spawn_blocking(|| second.wait_with_output().unwrap());
    let mut counted = 1;
    while !ended.is_finished() {
        counted += 1;
        assert_eq!(count(&first).await, counted, "the first goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ended = ended.await.unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    let holder = format!("process {}", first.pid());
    assert!(stderr.contains("another host uses this database") && stderr.contains(&holder), "{stderr}");
    assert!(stderr.contains("end that one first, or give each its own"), "{stderr}");

    assert_eq!(count(&first).await, counted + 1);
    let after = server.value(BACKENDS);
    assert!(backends.split(' ').all(|pid| after.split(' ').any(|other| other == pid)), "{backends} became {after}");
    assert_eq!(server.value("SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory'"), "0");
    let url = pooler.url();
    let left = tokio::task::spawn_blocking(move || {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        client.query_typed_one(SESSION_SETTINGS, &[]).unwrap().get::<_, String>(0)
    });
    assert_eq!(left.await.unwrap(), "", "nothing is set in the sessions that the pooler shares");
}

#[tokio::test]
async fn killed_host_restarts_immediately_others_after_lease_expiry() {
    let (_server, pooler) = match pooled() {
        Ok(pooled) => pooled,
        Err(why) => return skip("killed_host_restarts_immediately_others_after_lease_expiry", &why),
    };
    let config = config(&pooler.url());
    let mut host = TestHost::start_with(&config, &[]);
    start_campaign(&host).await;
    assert_eq!(count(&host).await, 1);

    host.kill();
    let killed = Instant::now();
    host.restart();
    assert!(killed.elapsed() < AT_ONCE, "it is known by its folder: {:?}", killed.elapsed());
    assert_eq!(count(&host).await, 2);

    // A host in another folder is another owner, and waits until the lease has expired.
    host.kill();
    let mut elsewhere = TestHost::start_with(&config, &[]);
    assert!(elsewhere.log().contains("waiting for its lease to expire"), "{}", elsewhere.log());
    assert_eq!(count(&elsewhere).await, 3);

    // A host that shuts down releases the lease.
    elsewhere.terminate();
    elsewhere.wait_for_exit();
    let ended = Instant::now();
    let last = TestHost::start_with(&config, &[]);
    assert!(ended.elapsed() < AT_ONCE, "nothing is waited for: {:?}", ended.elapsed());
    assert_eq!(count(&last).await, 4);
}

#[tokio::test]
async fn idle_host_ends_when_its_lease_was_taken() {
    let server = match TestPostgres::start() {
        Ok(server) => server,
        Err(why) => return skip("idle_host_ends_when_its_lease_was_taken", &why),
    };
    let mut host = TestHost::start_with(&config(&server.url()), &[]);
    let expires = "SELECT expires::text FROM roundhouse_owner";
    let before = server.value(expires);
    eventually("the lease is renewed", async || (server.value(expires) != before).then_some(())).await;
    server.run("UPDATE roundhouse_owner SET owner = 'other', epoch = epoch + 1, holder = 'db-2, process 7'");
    assert_eq!(host.wait_for_exit().code(), Some(1));
    let log = host.log();
    assert!(log.contains("another host has taken the database") && log.contains("db-2, process 7"), "{log}");
}

#[tokio::test]
async fn lease_is_recreated_in_an_emptied_database() {
    let server = match TestPostgres::start() {
        Ok(server) => server,
        Err(why) => return skip("lease_is_recreated_in_an_emptied_database", &why),
    };
    let host = TestHost::start_with(&config(&server.url()), &[]);
    start_campaign(&host).await;
    server.run(
        "DROP TABLE roundhouse_documents, roundhouse_scopes, roundhouse_answered_calls, roundhouse_owner, roundhouse_schema",
    );
    assert_eq!(count(&host).await, 1);
    assert_eq!(server.value("SELECT count(*)::text FROM roundhouse_owner"), "1");
    assert!(Path::new(host.dir()).join(".roundhouse/journal/owner").is_file());
}

#[test]
fn pooler_in_statement_mode_is_refused() {
    let pooled =
        TestPostgres::start().and_then(|server| Ok((TestPgBouncer::start_in_mode(&server, "statement")?, server)));
    let (pooler, _server) = match pooled {
        Ok(pooled) => pooled,
        Err(why) => return skip("pooler_in_statement_mode_is_refused", &why),
    };
    let (_dir, mut host) = start_elsewhere(&config(&pooler.url()));
    let ended = host.output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("must be in session or transaction mode"), "{stderr}");
}
