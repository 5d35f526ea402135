//! PostgreSQL as administrators set it up: with prepared tables, a role with few rights, or another encoding.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use roundhouse::ledger::Charge;
use roundhouse::model::Clock;
use roundhouse::store::{AnsweredCall, Outcome, Promise, ScopeRecord, Store, StoreConfig, StoreUrl};
use roundhouse_tests::{TIMEOUT, TestHost, TestPostgres, skip};
use tempfile::TempDir;

use crate::store::database::{Outcomes, open_store};

/// The output of `roundhouse store schema`.
fn script(args: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let printed = TestHost::command(dir.path()).args(["store", "schema"]).args(args).output().unwrap();
    assert!(printed.status.success() && printed.stderr.is_empty(), "{}", String::from_utf8_lossy(&printed.stderr));
    assert!(dir.path().read_dir().unwrap().next().is_none(), "to print something leaves nothing behind");
    String::from_utf8(printed.stdout).unwrap()
}

fn try_to_open(url: &str, journal: &TempDir) -> Result<(Store, Outcomes), String> {
    let url = StoreUrl::parse(url, Path::new("")).unwrap();
    let config =
        StoreConfig { url, journal: journal.path().to_owned(), give_up: Duration::from_secs(60), is_shared: false };
    open_store(&config, Clock::system()).map_err(|error| format!("{error:#}"))
}

fn refusal(url: &str) -> String {
    let journal = tempfile::tempdir().unwrap();
    try_to_open(url, &journal).map(drop).expect_err("it is refused")
}

/// Writes and reads every kind of record.
fn use_store(store: &Store, outcomes: &Outcomes, tag: &str) {
    let promise = Promise {
        number: 0,
        plugin: "chat".to_owned(),
        scope: "room:1".to_owned(),
        tag: tag.to_owned(),
        collection: "messages".to_owned(),
        key: Some("€ key".to_owned()),
        id: tag.to_owned(),
        document: "{\"body\":\"5 € 🚂\"}".to_owned(),
        restored: false,
        charge: None,
    };
    // A later document with the same key is looked up in the store.
    store.promise(vec![promise.clone(), Promise { id: format!("{tag}-2"), ..promise }]).unwrap();
    for _ in 0..2 {
        let (promise, outcome) = outcomes.recv_timeout(TIMEOUT).unwrap();
        assert!(matches!(outcome, Outcome::Stored(_)), "{outcome:?}");
        drop(store.receipt(&promise));
    }
}

fn write_scope(store: &Store) {
    let record = ScopeRecord {
        plugin: "campaign".to_owned(),
        key: "campaign:€".to_owned(),
        version: 1,
        state: Some(b"1".to_vec()),
        before: None,
        sequence: 1,
        timers: Vec::new(),
        expires_ms: u64::MAX / 2,
        epoch: 0,
    };
    let answered = AnsweredCall {
        caller: "ops".to_owned(),
        key: "€".to_owned(),
        fingerprint: [1; 32],
        answer: "\"€\"".to_owned(),
        answered_ms: 1,
    };
    let (reply, written) = mpsc::channel();
    for _ in 0..2 {
        let reply = reply.clone();
        let acknowledge = Box::new(move |result| reply.send(result).unwrap());
        store.put_scope(record.clone(), Charge::default(), Some(acknowledge), Some(answered.clone()));
        written.recv_timeout(TIMEOUT).unwrap().unwrap();
    }
    assert_eq!(store.answered_calls(0).unwrap().len(), 1);
    let acknowledge = Box::new(move |result| reply.send(result).unwrap());
    store.drop_scope("campaign", "campaign:€", 0, Some(acknowledge), None);
    written.recv_timeout(TIMEOUT).unwrap().unwrap();
}

#[test]
fn least_privileged_role_uses_prepared_tables() {
    let mut server = match TestPostgres::start() {
        Ok(server) => server,
        Err(why) => return skip("least_privileged_role_uses_prepared_tables", &why),
    };
    server.run("CREATE ROLE \"the host\" LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let url = server.url_of("the%20host", "postgres");
    let error = refusal(&url);
    assert!(
        error.contains("permission denied") && error.contains("roundhouse store schema --role 'the host'"),
        "{error}"
    );

    // Tables without rights on them do not suffice.
    server.run(&script(&[]));
    let error = refusal(&url);
    assert!(error.contains("roundhouse_schema") && error.contains("roundhouse store schema --role"), "{error}");
    server.run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO \"the host\"");
    let error = refusal(&url);
    assert!(
        error.contains("INSERT on roundhouse_documents") && error.contains("UPDATE on roundhouse_owner"),
        "{error}"
    );

    for _ in 0..2 {
        server.run(&script(&["--role", "the host"]));
    }
    let journal = tempfile::tempdir().unwrap();
    let (store, outcomes) = try_to_open(&url, &journal).unwrap();
    use_store(&store, &outcomes, "a");
    write_scope(&store);
    // A lost connection is replaced, without the right to create tables.
    server.stop();
    server.resume();
    write_scope(&store);
    store.shut_down();
}

#[test]
fn older_tables_are_migrated_or_refused() {
    let server = match TestPostgres::start() {
        Ok(server) => server,
        Err(why) => return skip("older_tables_are_migrated_or_refused", &why),
    };
    server.run(&script(&[]));
    server.run("CREATE ROLE host LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO host");
    // The tables of hosts from before schema versions.
    let become_old = "DROP TABLE roundhouse_schema; ALTER TABLE roundhouse_owner DROP epoch, DROP expires, DROP holder;
                      INSERT INTO roundhouse_owner (owner) VALUES ('old')";
    server.run(become_old);
    let error = refusal(&server.url_of("host", "postgres"));
    assert!(error.contains("schema 3") && error.contains("roundhouse store schema --role"), "{error}");

    let journal = tempfile::tempdir().unwrap();
    let (store, outcomes) = try_to_open(&server.url(), &journal).unwrap();
    use_store(&store, &outcomes, "a");
    store.shut_down();
    drop(store);
    assert_eq!(server.value("SELECT version::text FROM roundhouse_schema"), "3");

    server.run("UPDATE roundhouse_schema SET version = 99");
    let error = refusal(&server.url());
    assert!(error.contains("newer host") && error.contains("99"), "{error}");
    server.run(&script(&[]));
    assert_eq!(server.value("SELECT version::text FROM roundhouse_schema"), "99", "an older script takes nothing back");
}

#[test]
fn pre_lease_host_excludes_newer_hosts() {
    let server = match TestPostgres::start() {
        Ok(server) => server,
        Err(why) => return skip("pre_lease_host_excludes_newer_hosts", &why),
    };
    let mut older = postgres::Client::connect(&server.url(), postgres::NoTls).unwrap();
    older.batch_execute("SELECT pg_advisory_lock(8245938559730085750)").unwrap();
    let error = refusal(&server.url());
    assert!(error.contains("of an older version") && error.contains("8245938559730085750"), "{error}");
    drop(older);
    let journal = tempfile::tempdir().unwrap();
    try_to_open(&server.url(), &journal).unwrap();
}

#[test]
fn database_encoding_must_hold_every_character() {
    let server = match TestPostgres::start() {
        Ok(server) => server,
        Err(why) => return skip("database_encoding_must_hold_every_character", &why),
    };
    let make = |encoding: &str| {
        server.run(&format!(
            "CREATE DATABASE {encoding} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        ));
        server.url_of("roundhouse", encoding)
    };
    let error = refusal(&make("latin1"));
    assert!(error.contains("latin1 is encoded as LATIN1") && error.contains("ENCODING 'UTF8'"), "{error}");
    for encoding in ["utf8", "sql_ascii"] {
        let journal = tempfile::tempdir().unwrap();
        let (store, outcomes) = try_to_open(&make(encoding), &journal).unwrap();
        use_store(&store, &outcomes, "a");
        write_scope(&store);
        store.shut_down();
    }
}
