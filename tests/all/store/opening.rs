//! Opening a database: its owner, its schema version, its TLS, and refusals.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use roundhouse::ledger::Charge;
use roundhouse::model::Clock;
use roundhouse::store::{Outcome, Store, StoreConfig, StoreUrl};
use roundhouse_tests::{TIMEOUT, TestPostgres, skip};
use tempfile::TempDir;

use crate::store::database::{BEGINNING, Database, OpenStore, on_each_database, open_store, promise, record};
use crate::store::scopes::answered;

#[test]
fn host_that_lost_its_database_writes_nothing() {
    let mut server = match TestPostgres::start() {
        Ok(server) => server,
        Err(why) => {
            return skip("host_that_lost_its_database_writes_nothing", &why);
        }
    };
    let journals = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let url = StoreUrl::parse(&server.url(), &PathBuf::new()).unwrap();
    let open = |journal: &TempDir| {
        let config = StoreConfig {
            url: url.clone(),
            journal: journal.path().to_owned(),
            give_up: Duration::from_secs(60),
            is_shared: false,
        };
        open_store(&config, Clock::system()).unwrap().0
    };
    let put = |store: &Store, state: &[u8]| {
        let (reply, written) = mpsc::channel();
        let acknowledge = Box::new(move |result| reply.send(result).unwrap());
        store.put_scope(record("campaign:1", Some(state)), Charge::default(), Some(acknowledge), None);
        written.recv_timeout(TIMEOUT)
    };
    let first = open(&journals[0]);
    put(&first, b"1").unwrap().unwrap();
    // The connections of the first store end, which it does not notice.
    server.stop();
    server.resume();
    // The lease expires, as if its host had been cut off for longer.
    server.run("UPDATE roundhouse_owner SET expires = '-infinity'");
    let second = open(&journals[1]);
    put(&second, b"2").unwrap().unwrap();
    second.shut_down();
    drop(second);
    // In a host, this loss of the lease ends the process.
    put(&first, b"old").expect_err("nobody is acknowledged");
    let mut client = postgres::Client::connect(&server.url(), postgres::NoTls).unwrap();
    let state: Vec<u8> = client.query_one("SELECT state FROM roundhouse_scopes", &[]).unwrap().get(0);
    assert_eq!(state, b"2");
}

#[test]
fn second_host_on_a_database_is_refused() {
    on_each_database("second_host_on_a_database_is_refused", |database| {
        let journals = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let first = OpenStore::new(&database, &journals[0]);
        let config = StoreConfig {
            url: database.url(),
            journal: journals[1].path().to_owned(),
            give_up: Duration::from_secs(1),
            is_shared: false,
        };
        let second = open_store(&config, Clock::system());
        let error = format!("{:#}", second.map(|_| ()).expect_err("the database is taken"));
        assert!(error.contains("another host uses"), "{error}");
        first.store.shut_down();
    });
}

#[test]
fn tls_verification_follows_the_url() {
    let mut server = match TestPostgres::start_with_tls() {
        Ok(server) => server,
        Err(why) => {
            return skip("tls_verification_follows_the_url", &why);
        }
    };
    let mine = server.authority().display().to_string();
    let others = tempfile::NamedTempFile::new().unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&others, other.cert.pem()).unwrap();
    let others = others.path().display().to_string();
    let journal = tempfile::tempdir().unwrap();
    let open = |url: &str| {
        let url = StoreUrl::parse(url, &PathBuf::new()).unwrap();
        let config =
            StoreConfig { url, journal: journal.path().to_owned(), give_up: Duration::from_secs(60), is_shared: false };
        open_store(&config, Clock::system()).map_err(|error| format!("{error:#}"))
    };
    for (host, parameters, refused) in [
        ("127.0.0.1", String::new(), None),
        ("127.0.0.1", "?sslmode=disable".to_owned(), Some("no encryption")),
        ("127.0.0.1", "?sslmode=require".to_owned(), None),
        ("127.0.0.1", format!("?sslmode=require&sslrootcert={mine}"), None),
        ("127.0.0.1", format!("?sslmode=require&sslrootcert={others}"), Some("invalid peer certificate")),
        ("127.0.0.1", format!("?sslmode=verify-ca&sslrootcert={mine}"), None),
        ("127.0.0.1", format!("?sslmode=verify-ca&sslrootcert={others}"), Some("invalid peer certificate")),
        ("127.0.0.1", format!("?sslmode=verify-full&sslrootcert={mine}"), Some("not valid for name")),
        ("localhost", format!("?sslmode=verify-full&sslrootcert={mine}"), None),
        ("localhost", format!("?sslmode=verify-full&sslrootcert={others}"), Some("invalid peer certificate")),
    ] {
        let opened = open(&format!("{}{parameters}", server.url_at(host)));
        match refused {
            None => drop(opened.unwrap_or_else(|error| panic!("{host} {parameters}: {error}"))),
            Some(why) => {
                let error = opened.map(drop).expect_err(&parameters);
                assert!(error.contains("cannot connect") && error.contains(why), "{host} {parameters}: {error}");
            }
        }
    }
    // A lost connection is replaced in the same way, over TLS.
    let (store, outcomes) =
        open(&format!("{}?sslmode=verify-full&sslrootcert={mine}", server.url_at("localhost"))).unwrap();
    server.stop();
    store.promise(vec![promise("a")]).unwrap();
    server.resume();
    assert_eq!(outcomes.recv_timeout(TIMEOUT).unwrap().1, Outcome::Stored("id-a".to_owned()));
    store.shut_down();
    drop(store);
    // With `sslmode=prefer`, the store connects without TLS to a server that refuses TLS.
    server.stop();
    server.let_in("hostnossl");
    server.resume();
    drop(open(&server.url()).unwrap());
    let error = open(&format!("{}?sslmode=require", server.url())).map(drop).expect_err("it is not let in");
    assert!(error.contains("SSL encryption"), "{error}");
}

#[test]
fn older_sqlite_file_migrates_newer_is_refused() {
    let database = Database::Sqlite(tempfile::tempdir().unwrap(), None);
    let journal = tempfile::tempdir().unwrap();
    let open = OpenStore::new(&database, &journal);
    open.put(&record("campaign:1", Some(b"1")));
    open.store.shut_down();
    drop(open);
    let Database::Sqlite(dir, _) = &database else { unreachable!() };
    let file = || rusqlite::Connection::open(dir.path().join("store.db")).unwrap();
    // The tables of the first schema version.
    let first = "DROP TABLE answered_calls; ALTER TABLE scopes DROP COLUMN before_version;
                 ALTER TABLE scopes DROP COLUMN before_state; PRAGMA user_version = 1";
    file().execute_batch(first).unwrap();
    let open = OpenStore::new(&database, &journal);
    assert_eq!(open.scope("campaign:1").unwrap().state.as_deref(), Some(&b"1"[..]));
    open.store.put_scope(record("campaign:1", None), Charge::default(), None, Some(answered("a", BEGINNING)));
    open.put(&record("campaign:1", None));
    assert_eq!(open.store.answered_calls(0).unwrap().len(), 1);
    open.store.shut_down();
    drop(open);
    file().execute_batch("PRAGMA user_version = 99").unwrap();
    let config = StoreConfig {
        url: database.url(),
        journal: journal.path().to_owned(),
        give_up: Duration::from_secs(1),
        is_shared: false,
    };
    let opened = open_store(&config, Clock::system());
    let error = format!("{:#}", opened.map(drop).expect_err("it is of a newer host"));
    assert!(error.contains("newer host") && error.contains("99"), "{error}");
}

#[test]
fn invalid_stores_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    for (url, expected) in [
        ("roundhouse.db", "sqlite:// or postgres://"),
        ("mysql://x", "sqlite:// or postgres://"),
        ("sqlite://", "must name a file"),
        ("sqlite://:memory:", "must name a file"),
        ("postgres://host:port/db", "connection string"),
        ("postgres://host/db?sslmode=always", "verify-full"),
        ("postgres://host/db?sslrootcert=/no/such.pem", "/no/such.pem"),
    ] {
        let error = format!("{:#}", StoreUrl::parse(url, dir.path()).expect_err(url));
        assert!(error.contains(expected), "{url}: {error}");
    }
    let open = |url: StoreUrl| {
        let config =
            StoreConfig { url, journal: dir.path().join("journal"), give_up: Duration::from_secs(1), is_shared: false };
        let opened = open_store(&config, Clock::system());
        format!("{:#}", opened.map(|_| ()).expect_err("it cannot be opened"))
    };
    std::fs::write(dir.path().join("text"), "this is no database, though it is long enough to be one".repeat(99))
        .unwrap();
    assert!(open(StoreUrl::Sqlite(dir.path().join("text"))).contains("not a database"));
    assert!(open(StoreUrl::Sqlite(dir.path().join("none/store.db"))).contains("none/store.db"));
    assert!(open(StoreUrl::Postgres("postgres://x@127.0.0.1:1/x".to_owned())).contains("cannot connect"));
}
