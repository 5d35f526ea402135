//! Databases that cannot be written to for a while: locked, stopped, moved or cut off.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use roundhouse::ledger::Charge;
use roundhouse::model::{Clock, ErrorCode};
use roundhouse::store::{Outcome, Promise, StoreConfig, StoreUrl};
use roundhouse_tests::{TIMEOUT, TestPostgres, skip};

use crate::store::database::{
    Database, OpenStore, advance_until, expire, ids, on_each_database, open_store, promise, record,
};

#[test]
fn writes_wait_for_the_end_of_an_outage() {
    on_each_database("writes_wait_for_the_end_of_an_outage", |mut database| {
        let journal = tempfile::tempdir().unwrap();
        let open = OpenStore::new(&database, &journal);
        database.stop();
        for tag in ["a", "b"] {
            open.store.promise(vec![promise(tag)]).unwrap();
        }
        let (reply, written) = mpsc::channel();
        let acknowledge = Box::new(move |result| reply.send(result).unwrap());
        open.store.put_scope(record("campaign:1", Some(b"1")), Charge::default(), Some(acknowledge), None);
        assert!(open.outcomes.recv_timeout(Duration::from_millis(300)).is_err(), "nothing is told before it is stored");
        assert!(written.try_recv().is_err());
        database.resume();
        // The pauses between attempts follow the test's clock.
        let outcomes = advance_until(&open, || open.outcomes.try_recv().ok(), 2);
        let tags: Vec<_> = outcomes.iter().map(|(promise, _)| promise.tag.as_str()).collect();
        assert_eq!(tags, ["a", "b"]);
        advance_until(&open, || written.try_recv().ok(), 1).remove(0).unwrap();
        assert_eq!(open.scope("campaign:1").unwrap().state.as_deref(), Some(&b"1"[..]));
        open.store.shut_down();
    });
}

#[test]
fn documents_failed_by_an_outage_stay_failed() {
    on_each_database("documents_failed_by_an_outage_stay_failed", |mut database| {
        let journal = tempfile::tempdir().unwrap();
        let open = OpenStore::new(&database, &journal);
        database.stop();
        open.store.promise(vec![promise("a")]).unwrap();
        let (given_up, outcome) = advance_until(&open, || open.outcomes.try_recv().ok(), 1).remove(0);
        let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
        assert_eq!((failure.code, failure.retryable), (ErrorCode::FeatureUnavailable, true));
        open.acknowledge(&given_up);
        open.store.shut_down();
        drop(open);

        // The batch may have been written before the failure, so it is retracted first and then settled.
        database.resume();
        let open = OpenStore::new(&database, &journal);
        assert_eq!(open.store.resume("chat"), 1);
        open.store.promise(vec![promise("b")]).unwrap();
        let (again, outcome) = open.next();
        assert_eq!(again.tag, "a");
        assert!(matches!(outcome, Outcome::Failed(_)), "an outcome does not change: {outcome:?}");
        assert_eq!(open.next().1, Outcome::Stored("id-b".to_owned()));
        open.acknowledge(&again);
        assert_eq!(ids(&open.page("room:1", None, 10).unwrap()), ["id-b"]);
        open.store.shut_down();
    });
}

#[test]
fn documents_beyond_one_batch_fail_in_time() {
    on_each_database("documents_beyond_one_batch_fail_in_time", |mut database| {
        let journal = tempfile::tempdir().unwrap();
        let open = OpenStore::new(&database, &journal);
        database.stop();
        // More documents than one batch holds, however the writer divides them.
        open.store.promise((0..1500).map(|n| promise(&n.to_string())).collect()).unwrap();
        let outcomes = advance_until(
            &open,
            || open.outcomes.try_recv().inspect(|(promise, _)| open.acknowledge(promise)).ok(),
            1500,
        );
        assert!(outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Failed(_))));
        open.store.shut_down();
    });
}

#[test]
fn moved_sqlite_file_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let (path, elsewhere) = (dir.path().join("store.db"), dir.path().join("elsewhere"));
    let database = Database::Sqlite(dir, None);
    let journal = tempfile::tempdir().unwrap();
    let open = OpenStore::new(&database, &journal);
    std::fs::rename(&path, &elsewhere).unwrap();
    // Nothing is written while the file's name is missing, nor while another file has that name.
    expire(&open, "a");
    std::fs::write(&path, "").unwrap();
    expire(&open, "b");
    std::fs::rename(&elsewhere, &path).unwrap();
    open.store.promise(vec![promise("c")]).unwrap();
    let (document, outcome) = advance_until(&open, || open.outcomes.try_recv().ok(), 1).remove(0);
    assert_eq!((document.tag.as_str(), outcome), ("c", Outcome::Stored("id-c".to_owned())));
    open.store.shut_down();
}

#[test]
fn sqlite_log_shrinks_after_a_long_read() {
    let database = Database::Sqlite(tempfile::tempdir().unwrap(), None);
    let journal = tempfile::tempdir().unwrap();
    let open = OpenStore::new(&database, &journal);
    let Database::Sqlite(dir, _) = &database else { unreachable!() };
    let mut reader = rusqlite::Connection::open(dir.path().join("store.db")).unwrap();
    let reading = reader.transaction().unwrap();
    reading.query_row("SELECT count(*) FROM documents", [], |_| Ok(())).unwrap();
    let log_bytes = || std::fs::metadata(dir.path().join("store.db-wal")).map_or(0, |log| log.len());
    let mut n = 0;
    while log_bytes() < 20_000_000 {
        n += 1;
        let document = format!("\"{}\"", "x".repeat(900_000));
        open.store.promise(vec![Promise { document, ..promise(&n.to_string()) }]).unwrap();
        open.acknowledge_next(1);
    }
    drop(reading);
    // The log shrinks without a further write.
    let deadline = Instant::now() + TIMEOUT;
    while log_bytes() > 8_388_608 {
        assert!(Instant::now() < deadline, "the log still has {} bytes", log_bytes());
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(open.page("room:1", None, 1).unwrap().documents.len(), 1);
    open.store.shut_down();
}

/// A TCP proxy before the database. It can cut off the host without the server noticing.
struct CuttableProxy {
    port: u16,
    links: Arc<Mutex<Vec<[TcpStream; 2]>>>,
}

impl CuttableProxy {
    fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, links) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<[TcpStream; 2]>>>::default());
        let kept = links.clone();
        // The thread ends with the test process.
        thread::spawn(move || {
            for host in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let carry = |from: &TcpStream, to: &TcpStream| {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || std::io::copy(&mut from, &mut to));
                };
                carry(&host, &server);
                carry(&server, &host);
                kept.lock().unwrap().push([host, server]);
            }
        });
        Self { port, links }
    }

    fn cut(&self) {
        for [host, _] in &*self.links.lock().unwrap() {
            host.shutdown(Shutdown::Both).unwrap();
        }
    }
}

#[test]
fn half_open_connection_keeps_its_hosts_lease() {
    let server = match TestPostgres::start() {
        Ok(server) => server,
        Err(why) => {
            return skip("half_open_connection_keeps_its_hosts_lease", &why);
        }
    };
    let between = CuttableProxy::start(server.port());
    let url = server.url().replace(&server.port().to_string(), &between.port.to_string());
    let journal = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        url: StoreUrl::parse(&url, &PathBuf::new()).unwrap(),
        journal: journal.path().to_owned(),
        give_up: Duration::from_secs(60),
        is_shared: false,
    };
    let (store, outcomes) = open_store(&config, Clock::system()).unwrap();
    let keep = |tag: &str| {
        store.promise(vec![promise(tag)]).unwrap();
        assert_eq!(outcomes.recv_timeout(TIMEOUT).unwrap().1, Outcome::Stored(format!("id-{tag}")));
    };
    keep("a");
    between.cut();
    keep("b");
    store.shut_down();
}

#[test]
fn locked_table_is_treated_as_outage() {
    let server = match TestPostgres::start() {
        Ok(server) => server,
        Err(why) => return skip("locked_table_is_treated_as_outage", &why),
    };
    let (database, journal) = (Database::Postgres(server), tempfile::tempdir().unwrap());
    let open = OpenStore::new(&database, &journal);
    let Database::Postgres(server) = &database else { unreachable!() };
    let mut other = postgres::Client::connect(&server.url(), postgres::NoTls).unwrap();
    let mut transaction = other.transaction().unwrap();
    transaction.batch_execute("LOCK TABLE roundhouse_documents").unwrap();
    open.store.promise(vec![promise("a")]).unwrap();
    assert!(open.page("room:1", None, 10).unwrap_err().retryable);
    transaction.rollback().unwrap();
    assert_eq!(advance_until(&open, || open.outcomes.try_recv().ok(), 1)[0].1, Outcome::Stored("id-a".to_owned()));
    open.store.shut_down();
}
