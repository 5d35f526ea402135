//! The store by itself: one contract, held to by SQLite and PostgreSQL.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use roundhouse::ledger::Charge;
use roundhouse::metrics::Metrics;
use roundhouse::model::{Clock, ErrorCode};
use roundhouse::store::{
    AnsweredCall, MAX_ANSWERED_CALLS, Outcome, Page, PageRequest, Promise, ScopeRecord, Store, StoreConfig,
    StoreFailure, StoreUrl, TimerRecord, Turn,
};
use roundhouse_tests::{PATIENCE, TestPostgres, skip};
use tempfile::TempDir;

/// When the contract begins, in milliseconds since 1970.
const BEGINNING: u64 = 1_800_000_000_000;

/// A database that the test can take away.
enum Database {
    Sqlite(TempDir, Option<rusqlite::Connection>),
    Postgres(TestPostgres),
}

impl Database {
    fn url(&self) -> StoreUrl {
        match self {
            Self::Sqlite(dir, _) => StoreUrl::Sqlite(dir.path().join("store.db")),
            Self::Postgres(server) => StoreUrl::parse(&server.url(), &PathBuf::new()).unwrap(),
        }
    }

    /// From now on nothing can be written.
    fn goes(&mut self) {
        match self {
            Self::Sqlite(dir, lock) => {
                let connection = rusqlite::Connection::open(dir.path().join("store.db")).unwrap();
                connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
                *lock = Some(connection);
            }
            Self::Postgres(server) => server.stop(),
        }
    }

    fn comes_back(&mut self) {
        match self {
            Self::Sqlite(_, lock) => drop(lock.take()),
            Self::Postgres(server) => server.resume(),
        }
    }
}

/// A store that is open, and what it tells.
struct Open {
    store: Store,
    clock: Clock,
    told: mpsc::Receiver<(Arc<Promise>, Outcome)>,
}

impl Open {
    fn new(database: &Database, journal: &TempDir) -> Self {
        let clock = Clock::manual(BEGINNING);
        let config =
            StoreConfig { url: database.url(), journal: journal.path().to_owned(), give_up: Duration::from_secs(60) };
        let store = Store::open(&config, clock.clone(), Metrics::new().unwrap()).unwrap();
        let (tell, told) = mpsc::channel();
        // Nobody listens any more when the test has ended.
        store.start(Box::new(move |promise, outcome| drop(tell.send((promise, outcome))))).unwrap();
        Self { store, clock, told }
    }

    fn next(&self) -> (Arc<Promise>, Outcome) {
        self.told.recv_timeout(PATIENCE).expect("an outcome comes")
    }

    /// Waits for `n` outcomes, which the features have then been told.
    fn settle(&self, n: usize) -> Vec<(String, Outcome)> {
        let told: Vec<_> = (0..n).map(|_| self.next()).collect();
        told.iter().for_each(|(promise, _)| self.store.settle(promise));
        told.into_iter().map(|(promise, outcome)| (promise.tag.clone(), outcome)).collect()
    }

    fn page(&self, scope: &str, before: Option<&str>, limit: u32) -> Result<Page, StoreFailure> {
        let request = PageRequest {
            plugin: "chat".to_owned(),
            scope: scope.to_owned(),
            collection: "messages".to_owned(),
            before: before.map(str::to_owned),
            limit,
        };
        let (reply, answer) = mpsc::channel();
        self.store.page(request, Turn::default(), Box::new(move |page| reply.send(page).unwrap()));
        answer.recv_timeout(PATIENCE).expect("an answer comes")
    }

    fn scope(&self, key: &str) -> Option<ScopeRecord> {
        let (reply, answer) = mpsc::channel();
        self.store.scope("campaign", key, None, Box::new(move |scope| reply.send(scope).unwrap()));
        answer.recv_timeout(PATIENCE).expect("an answer comes").unwrap()
    }

    /// Puts a scope and waits until that is on disk.
    fn put(&self, record: &ScopeRecord) {
        let (reply, written) = mpsc::channel();
        self.store.put_scope(
            record.clone(),
            Charge::default(),
            Some(Box::new(move |result| reply.send(result).unwrap())),
            None,
        );
        written.recv_timeout(PATIENCE).expect("it is written").unwrap();
    }
}

fn promise(tag: &str) -> Promise {
    Promise {
        number: 0,
        plugin: "chat".to_owned(),
        scope: "room:1".to_owned(),
        tag: tag.to_owned(),
        collection: "messages".to_owned(),
        key: None,
        id: format!("id-{tag}"),
        document: format!(r#"{{"body":"{tag} \u0000 é"}}"#),
        restored: false,
        charge: None,
    }
}

fn ids(page: &Page) -> Vec<&str> {
    page.documents.iter().map(|document| document.id.as_str()).collect()
}

fn stored(tag: &str, id: &str) -> (String, Outcome) {
    (tag.to_owned(), Outcome::Stored(id.to_owned()))
}

fn record(key: &str, state: Option<&[u8]>) -> ScopeRecord {
    ScopeRecord {
        plugin: "campaign".to_owned(),
        key: key.to_owned(),
        version: 7,
        state: state.map(<[u8]>::to_vec),
        before: state.map(|_| (6, b"as it was".to_vec())),
        sequence: 41,
        timers: vec![TimerRecord { name: "end \"é\"".to_owned(), due_ms: 5, after_ms: 5, payload: "{}".to_owned() }],
        expires_ms: BEGINNING + 1000,
    }
}

/// Runs one part of the contract on each kind of database.
fn on_each(part: &str, run: fn(Database)) {
    run(Database::Sqlite(tempfile::tempdir().unwrap(), None));
    match TestPostgres::start() {
        Ok(server) => run(Database::Postgres(server)),
        Err(why) => skip(&format!("{part}, on PostgreSQL"), &why),
    }
}

#[test]
fn documents_are_stored_in_order_and_paged() {
    on_each("documents_are_stored_in_order_and_paged", |database| {
        let journal = tempfile::tempdir().unwrap();
        let open = Open::new(&database, &journal);
        let tags: Vec<String> = (0..2500).map(|n| format!("{n:04}")).collect();
        let (first, rest) = tags.split_at(700);
        open.store.promise(first.iter().map(|tag| promise(tag)).collect()).unwrap();
        rest.iter().for_each(|tag| open.store.promise(vec![promise(tag)]).unwrap());
        let elsewhere = [
            Promise { scope: "room:2".to_owned(), ..promise("a") },
            Promise { plugin: "other".to_owned(), ..promise("b") },
            Promise { collection: "drafts".to_owned(), ..promise("c") },
        ];
        open.store.promise(elsewhere.into()).unwrap();
        let outcomes = open.settle(2503);
        let expected: Vec<_> = tags.iter().map(|tag| stored(tag, &format!("id-{tag}"))).collect();
        assert_eq!(outcomes[..2500], expected);

        let newest = open.page("room:1", None, 2).unwrap();
        assert_eq!((ids(&newest), newest.has_more), (vec!["id-2499", "id-2498"], true));
        assert_eq!(newest.documents[0].body, promise("2499").document);
        let older = open.page("room:1", Some("id-2498"), 1000).unwrap();
        assert_eq!((older.documents.len(), ids(&older)[0], older.has_more), (1000, "id-2497", true));
        let oldest = open.page("room:1", Some("id-0002"), 2).unwrap();
        assert_eq!((ids(&oldest), oldest.has_more), (vec!["id-0001", "id-0000"], false));
        assert_eq!(open.page("room:9", None, 10).unwrap(), Page::default());
        for unknown in ["id-a", "nothing", ""] {
            let failure = open.page("room:1", Some(unknown), 10).unwrap_err();
            assert_eq!((failure.code, failure.retryable), (ErrorCode::NotFound, false), "{failure:?}");
        }
        open.store.shut_down();
    });
}

#[test]
fn page_is_bounded_in_bytes_but_never_empty() {
    on_each("page_is_bounded_in_bytes_but_never_empty", |database| {
        let journal = tempfile::tempdir().unwrap();
        let open = Open::new(&database, &journal);
        let large =
            |tag: &str, bytes: usize| Promise { document: format!("\"{}\"", "x".repeat(bytes)), ..promise(tag) };
        open.store.promise(vec![large("a", 100_000), large("b", 450_000), large("c", 900_000)]).unwrap();
        open.settle(3);
        let newest = open.page("room:1", None, 10).unwrap();
        assert_eq!((ids(&newest), newest.has_more), (vec!["id-c"], true));
        let older = open.page("room:1", Some("id-c"), 10).unwrap();
        assert_eq!((ids(&older), older.has_more), (vec!["id-b"], true));
        open.store.shut_down();
    });
}

#[test]
fn key_is_stored_once() {
    on_each("key_is_stored_once", |database| {
        let journal = tempfile::tempdir().unwrap();
        let open = Open::new(&database, &journal);
        let keyed =
            |tag: &str, scope: &str| Promise { key: Some("ana 1".to_owned()), scope: scope.to_owned(), ..promise(tag) };
        open.store.promise(vec![keyed("a", "room:1"), keyed("b", "room:1"), keyed("c", "room:2")]).unwrap();
        assert_eq!(open.settle(3), [stored("a", "id-a"), stored("b", "id-a"), stored("c", "id-c")]);
        open.store.promise(vec![keyed("d", "room:1")]).unwrap();
        let (told, outcome) = open.next();
        assert_eq!((told.tag.as_str(), outcome), ("d", Outcome::Stored("id-a".to_owned())));
        assert_eq!(told.document, promise("a").document, "what is stored is told");
        open.store.settle(&told);
        assert_eq!(ids(&open.page("room:1", None, 10).unwrap()), ["id-a"]);
        open.store.shut_down();
    });
}

#[test]
fn unacknowledged_outcomes_return_after_a_restart() {
    on_each("unacknowledged_outcomes_return_after_a_restart", |database| {
        let journal = tempfile::tempdir().unwrap();
        let open = Open::new(&database, &journal);
        let others = Promise { plugin: "other".to_owned(), ..promise("d") };
        open.store.promise(vec![promise("a"), promise("b"), promise("c"), others]).unwrap();
        let told: Vec<_> = (0..4).map(|_| open.next()).collect();
        assert!(told.iter().all(|(promise, _)| !promise.restored));
        open.store.settle(&told[1].0);
        open.store.shut_down();
        drop(open);

        let open = Open::new(&database, &journal);
        assert_eq!(open.store.resume("chat"), 2);
        assert!(open.next().0.restored);
        open.store.promise(vec![promise("e")]).unwrap();
        let told = [open.next(), open.next()];
        assert_eq!(told[1].1, Outcome::Stored("id-e".to_owned()));
        assert_eq!(ids(&open.page("room:1", None, 10).unwrap()), ["id-e", "id-c", "id-b", "id-a"]);
        open.store.shut_down();
        drop(open);

        let open = Open::new(&database, &journal);
        assert_eq!((open.store.resume("chat"), open.store.resume("other")), (3, 1));
        open.settle(4);
        open.store.shut_down();
        drop(open);
        let open = Open::new(&database, &journal);
        assert_eq!((open.store.resume("chat"), open.store.resume("other")), (0, 0));
        open.store.shut_down();
    });
}

#[test]
fn outage_is_waited_for() {
    on_each("outage_is_waited_for", |mut database| {
        let journal = tempfile::tempdir().unwrap();
        let open = Open::new(&database, &journal);
        database.goes();
        for tag in ["a", "b"] {
            open.store.promise(vec![promise(tag)]).unwrap();
        }
        let (reply, written) = mpsc::channel();
        let acknowledge = Box::new(move |result| reply.send(result).unwrap());
        open.store.put_scope(record("campaign:1", Some(b"1")), Charge::default(), Some(acknowledge), None);
        assert!(open.told.recv_timeout(Duration::from_millis(300)).is_err(), "nothing is told before it is stored");
        assert!(written.try_recv().is_err());
        database.comes_back();
        // Pauses between attempts are of the clock's time.
        let outcomes = moving(&open, || open.told.try_recv().ok(), 2);
        let tags: Vec<_> = outcomes.iter().map(|(promise, _)| promise.tag.as_str()).collect();
        assert_eq!(tags, ["a", "b"]);
        moving(&open, || written.try_recv().ok(), 1).remove(0).unwrap();
        assert_eq!(open.scope("campaign:1").unwrap().state.as_deref(), Some(&b"1"[..]));
        open.store.shut_down();
    });
}

/// Moves the clock by a second until `probe` has given `n` things.
fn moving<T>(open: &Open, probe: impl Fn() -> Option<T>, n: usize) -> Vec<T> {
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut found = Vec::new();
    while found.len() < n {
        assert!(std::time::Instant::now() < deadline, "it does not come");
        open.clock.advance(Duration::from_secs(1));
        match probe() {
            Some(one) => found.push(one),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    found
}

#[test]
fn long_outage_fails_documents_once_for_good() {
    on_each("long_outage_fails_documents_once_for_good", |mut database| {
        let journal = tempfile::tempdir().unwrap();
        let open = Open::new(&database, &journal);
        database.goes();
        open.store.promise(vec![promise("a")]).unwrap();
        let (given_up, outcome) = moving(&open, || open.told.try_recv().ok(), 1).remove(0);
        let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
        assert_eq!((failure.code, failure.retryable), (ErrorCode::FeatureUnavailable, true));
        open.store.settle(&given_up);
        open.store.shut_down();
        drop(open);

        // It may have been written for all that the host knows: that has to be undone first, then it is settled.
        database.comes_back();
        let open = Open::new(&database, &journal);
        assert_eq!(open.store.resume("chat"), 1);
        open.store.promise(vec![promise("b")]).unwrap();
        let (again, outcome) = open.next();
        assert_eq!(again.tag, "a");
        assert!(matches!(outcome, Outcome::Failed(_)), "an outcome does not change: {outcome:?}");
        assert_eq!(open.next().1, Outcome::Stored("id-b".to_owned()));
        open.store.settle(&again);
        assert_eq!(ids(&open.page("room:1", None, 10).unwrap()), ["id-b"]);
        open.store.shut_down();
    });
}

#[test]
fn documents_behind_a_batch_fail_in_time() {
    on_each("documents_behind_a_batch_fail_in_time", |mut database| {
        let journal = tempfile::tempdir().unwrap();
        let open = Open::new(&database, &journal);
        database.goes();
        // More than one batch, however the writer takes them.
        open.store.promise((0..1500).map(|n| promise(&n.to_string())).collect()).unwrap();
        let told = moving(&open, || open.told.try_recv().inspect(|(promise, _)| open.store.settle(promise)).ok(), 1500);
        assert!(told.iter().all(|(_, outcome)| matches!(outcome, Outcome::Failed(_))));
        open.store.shut_down();
    });
}

/// Promises `tag` while the database is away, until it is given up.
fn give_up(open: &Open, tag: &str) -> Arc<Promise> {
    open.store.promise(vec![promise(tag)]).unwrap();
    let (told, outcome) = moving(open, || open.told.try_recv().ok(), 1).remove(0);
    assert!(told.tag == tag && matches!(outcome, Outcome::Failed(_)), "{told:?} {outcome:?}");
    told
}

#[test]
fn requeued_failure_is_reported_despite_another_failure() {
    on_each("requeued_failure_is_reported_despite_another_failure", |mut database| {
        let journal = tempfile::tempdir().unwrap();
        let open = Open::new(&database, &journal);
        database.goes();
        let first = give_up(&open, "a");
        // Its feature was unloaded when it was to be told, and is there again.
        open.store.put_back(&first);
        assert_eq!(open.store.resume("chat"), 1);
        give_up(&open, "b");
        database.comes_back();
        let (told, outcome) = moving(&open, || open.told.try_recv().ok(), 1).remove(0);
        assert!(told.tag == "a" && matches!(outcome, Outcome::Failed(_)), "{told:?} {outcome:?}");
        open.store.shut_down();
    });
}

#[test]
fn expiry_in_an_earlier_process_is_final() {
    on_each("expiry_in_an_earlier_process_is_final", |mut database| {
        let journal = tempfile::tempdir().unwrap();
        let open = Open::new(&database, &journal);
        database.goes();
        let given_up = give_up(&open, "a");
        open.store.shut_down();
        drop(open);
        database.comes_back();
        let open = Open::new(&database, &journal);
        // It could not be told in this process either.
        open.store.put_back(&given_up);
        open.store.resume("chat");
        assert!(matches!(open.next().1, Outcome::Failed(_)));
        assert_eq!(ids(&open.page("room:1", None, 10).unwrap()), [""; 0]);
        open.store.shut_down();
    });
}

#[test]
fn possibly_reported_outcome_stays_stored_after_restart() {
    let mut database = Database::Sqlite(tempfile::tempdir().unwrap(), None);
    let journal = tempfile::tempdir().unwrap();
    let open = Open::new(&database, &journal);
    open.store.promise(vec![promise("a")]).unwrap();
    // The process ends when this was told, and not yet settled.
    assert_eq!(open.next().1, Outcome::Stored("id-a".to_owned()));
    open.store.shut_down();
    drop(open);
    database.goes();
    let open = Open::new(&database, &journal);
    assert_eq!(open.store.resume("chat"), 1);
    give_up(&open, "b");
    database.comes_back();
    assert_eq!(moving(&open, || open.told.try_recv().ok(), 1)[0].1, Outcome::Stored("id-a".to_owned()));
    assert_eq!(ids(&open.page("room:1", None, 10).unwrap()), ["id-a"]);
    open.store.shut_down();
}

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
        let config =
            StoreConfig { url: url.clone(), journal: journal.path().to_owned(), give_up: Duration::from_secs(60) };
        let store = Store::open(&config, Clock::system(), Metrics::new().unwrap()).unwrap();
        store.start(Box::new(|_, _| {})).unwrap();
        store
    };
    let put = |store: &Store, state: &[u8]| {
        let (reply, written) = mpsc::channel();
        let acknowledge = Box::new(move |result| reply.send(result).unwrap());
        store.put_scope(record("campaign:1", Some(state)), Charge::default(), Some(acknowledge), None);
        written.recv_timeout(PATIENCE)
    };
    let first = open(&journals[0]);
    put(&first, b"1").unwrap().unwrap();
    // Its connections end, and it does not notice.
    server.stop();
    server.resume();
    // It was away for longer than its lease lasts.
    server.run("UPDATE roundhouse_owner SET expires = '-infinity'");
    let second = open(&journals[1]);
    put(&second, b"2").unwrap().unwrap();
    second.shut_down();
    drop(second);
    // In a host this ends the process.
    put(&first, b"old").expect_err("nobody is acknowledged");
    let mut client = postgres::Client::connect(&server.url(), postgres::NoTls).unwrap();
    let state: Vec<u8> = client.query_one("SELECT state FROM roundhouse_scopes", &[]).unwrap().get(0);
    assert_eq!(state, b"2");
}

#[test]
fn moved_sqlite_file_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let (path, elsewhere) = (dir.path().join("store.db"), dir.path().join("elsewhere"));
    let database = Database::Sqlite(dir, None);
    let journal = tempfile::tempdir().unwrap();
    let open = Open::new(&database, &journal);
    std::fs::rename(&path, &elsewhere).unwrap();
    // Neither without a file of its name, nor with another.
    give_up(&open, "a");
    std::fs::write(&path, "").unwrap();
    give_up(&open, "b");
    std::fs::rename(&elsewhere, &path).unwrap();
    open.store.promise(vec![promise("c")]).unwrap();
    let (told, outcome) = moving(&open, || open.told.try_recv().ok(), 1).remove(0);
    assert_eq!((told.tag.as_str(), outcome), ("c", Outcome::Stored("id-c".to_owned())));
    open.store.shut_down();
}

#[test]
fn sqlite_log_shrinks_after_a_long_read() {
    let database = Database::Sqlite(tempfile::tempdir().unwrap(), None);
    let journal = tempfile::tempdir().unwrap();
    let open = Open::new(&database, &journal);
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
        open.settle(1);
    }
    drop(reading);
    // Nothing more is written.
    let deadline = Instant::now() + PATIENCE;
    while log_bytes() > 8_388_608 {
        assert!(Instant::now() < deadline, "the log still has {} bytes", log_bytes());
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(open.page("room:1", None, 1).unwrap().documents.len(), 1);
    open.store.shut_down();
}

/// A TCP proxy before the database that can cut the host's side off while the server notices nothing.
struct CuttableProxy {
    port: u16,
    links: Arc<Mutex<Vec<[TcpStream; 2]>>>,
}

impl CuttableProxy {
    fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, links) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<[TcpStream; 2]>>>::default());
        let kept = links.clone();
        // It ends with the process of the tests.
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
    };
    let store = Store::open(&config, Clock::system(), Metrics::new().unwrap()).unwrap();
    let (tell, told) = mpsc::channel();
    store.start(Box::new(move |promise, outcome| drop(tell.send((promise, outcome))))).unwrap();
    let keep = |tag: &str| {
        store.promise(vec![promise(tag)]).unwrap();
        assert_eq!(told.recv_timeout(PATIENCE).unwrap().1, Outcome::Stored(format!("id-{tag}")));
    };
    keep("a");
    between.cut();
    keep("b");
    store.shut_down();
}

#[test]
fn expired_document_settles_once_retracted_and_acknowledged() {
    on_each("expired_document_settles_once_retracted_and_acknowledged", |mut database| {
        let journal = tempfile::tempdir().unwrap();
        let open = Open::new(&database, &journal);
        database.goes();
        open.store.promise(vec![promise("a"), promise("b")]).unwrap();
        let given_up = moving(&open, || open.told.try_recv().ok(), 2);
        database.comes_back();
        // Behind their withdrawal, and in the same segment of the journal, which must stay for it.
        open.store.promise(vec![promise("c")]).unwrap();
        moving(&open, || open.told.try_recv().ok(), 1);
        open.store.settle(&given_up[0].0);
        let large = Promise { document: format!("\"{}\"", "x".repeat(17 << 20)), ..promise("d") };
        for next in [large, promise("e")] {
            open.store.promise(vec![next]).unwrap();
            open.settle(1);
        }
        open.store.shut_down();
        drop(open);

        let open = Open::new(&database, &journal);
        assert_eq!(open.store.resume("chat"), 2, "nobody has heard of b and c");
        open.store.shut_down();
    });
}

#[test]
fn outcomes_during_shutdown_are_reported_again() {
    on_each("outcomes_during_shutdown_are_reported_again", |database| {
        let journal = tempfile::tempdir().unwrap();
        let open = Open::new(&database, &journal);
        open.store.promise(vec![promise("a")]).unwrap();
        open.settle(1);
        open.store.begin_shutdown();
        open.store.promise(vec![promise("b")]).unwrap();
        open.settle(1);
        open.store.shut_down();
        drop(open);
        let open = Open::new(&database, &journal);
        assert_eq!(open.store.resume("chat"), 1);
        assert_eq!(open.next().1, Outcome::Stored("id-b".to_owned()));
        open.store.shut_down();
    });
}

#[test]
fn requeued_outcomes_are_reported_on_resume() {
    on_each("requeued_outcomes_are_reported_on_resume", |mut database| {
        let journal = tempfile::tempdir().unwrap();
        let open = Open::new(&database, &journal);
        open.store.promise(vec![promise("a")]).unwrap();
        open.store.put_back(&open.next().0);
        database.goes();
        open.store.promise(vec![promise("b")]).unwrap();
        let given_up = moving(&open, || open.told.try_recv().ok(), 1).remove(0);
        open.store.put_back(&given_up.0);
        database.comes_back();
        assert_eq!(open.store.resume("chat"), 2);
        let told = moving(&open, || open.told.try_recv().ok(), 2);
        assert!(told.iter().all(|(promise, _)| promise.restored));
        assert_eq!(told[0].1, Outcome::Stored("id-a".to_owned()));
        assert!(matches!(told[1].1, Outcome::Failed(_)), "an outcome does not change: {told:?}");
        told.iter().for_each(|(promise, _)| open.store.settle(promise));
        assert_eq!(ids(&open.page("room:1", None, 10).unwrap()), ["id-a"]);
        open.store.shut_down();
        drop(open);
        let open = Open::new(&database, &journal);
        assert_eq!(open.store.resume("chat"), 0);
        open.store.shut_down();
    });
}

#[test]
fn second_host_on_a_database_is_refused() {
    on_each("second_host_on_a_database_is_refused", |database| {
        let journals = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let first = Open::new(&database, &journals[0]);
        let config = StoreConfig {
            url: database.url(),
            journal: journals[1].path().to_owned(),
            give_up: Duration::from_secs(1),
        };
        let second = Store::open(&config, Clock::system(), Metrics::new().unwrap());
        let error = format!("{:#}", second.map(|_| ()).expect_err("the database is taken"));
        assert!(error.contains("another host uses"), "{error}");
        first.store.shut_down();
    });
}

#[test]
fn locked_table_is_an_outage() {
    let server = match TestPostgres::start() {
        Ok(server) => server,
        Err(why) => return skip("locked_table_is_an_outage", &why),
    };
    let (database, journal) = (Database::Postgres(server), tempfile::tempdir().unwrap());
    let open = Open::new(&database, &journal);
    let Database::Postgres(server) = &database else { unreachable!() };
    let mut other = postgres::Client::connect(&server.url(), postgres::NoTls).unwrap();
    let mut transaction = other.transaction().unwrap();
    transaction.batch_execute("LOCK TABLE roundhouse_documents").unwrap();
    open.store.promise(vec![promise("a")]).unwrap();
    assert!(open.page("room:1", None, 10).unwrap_err().retryable);
    transaction.rollback().unwrap();
    assert_eq!(moving(&open, || open.told.try_recv().ok(), 1)[0].1, Outcome::Stored("id-a".to_owned()));
    open.store.shut_down();
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
        let config = StoreConfig { url, journal: journal.path().to_owned(), give_up: Duration::from_secs(60) };
        Store::open(&config, Clock::system(), Metrics::new().unwrap()).map_err(|error| format!("{error:#}"))
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
    // A connection that was lost is made anew the same way.
    let store = open(&format!("{}?sslmode=verify-full&sslrootcert={mine}", server.url_at("localhost"))).unwrap();
    let (tell, told) = mpsc::channel();
    store.start(Box::new(move |promise, outcome| drop(tell.send((promise, outcome))))).unwrap();
    server.stop();
    store.promise(vec![promise("a")]).unwrap();
    server.resume();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().1, Outcome::Stored("id-a".to_owned()));
    store.shut_down();
    drop(store);
    // To prefer TLS is to do without it where the server wants that.
    server.stop();
    server.let_in("hostnossl");
    server.resume();
    drop(open(&server.url()).unwrap());
    let error = open(&format!("{}?sslmode=require", server.url())).map(drop).expect_err("it is not let in");
    assert!(error.contains("SSL encryption"), "{error}");
}

#[test]
fn documents_over_the_queue_limit_are_refused() {
    let database = Database::Sqlite(tempfile::tempdir().unwrap(), None);
    let journal = tempfile::tempdir().unwrap();
    let open = Open::new(&database, &journal);
    let failure = open.store.promise(vec![promise("a"); 100_001]).unwrap_err();
    assert_eq!(failure.code, ErrorCode::FeatureUnavailable);
    let large = Promise { document: "x".repeat(256 * 1024 * 1024 + 1), ..promise("a") };
    assert_eq!(open.store.promise(vec![large]).unwrap_err().code, ErrorCode::FeatureUnavailable);
    open.store.promise(vec![promise("a")]).unwrap();
    open.settle(1);
    open.store.shut_down();
}

#[test]
fn scopes_have_their_last_record() {
    on_each("scopes_have_their_last_record", |database| {
        let journal = tempfile::tempdir().unwrap();
        let open = Open::new(&database, &journal);
        assert_eq!(open.scope("campaign:1"), None);
        for state in [Some(&[0, 255, 10][..]), None] {
            let record = record("campaign:1", state);
            open.put(&record);
            assert_eq!(open.scope("campaign:1").as_ref(), Some(&record));
        }
        // Read before it is written, it is what it is going to be.
        let next = ScopeRecord { sequence: 42, timers: Vec::new(), ..record("campaign:1", Some(b"x")) };
        open.store.put_scope(next.clone(), Charge::default(), None, None);
        assert_eq!(open.scope("campaign:1"), Some(next));
        open.store.drop_scope("campaign", "campaign:1", None, None);
        assert_eq!(open.scope("campaign:1"), None);
        open.store.shut_down();
        drop(open);
        assert_eq!(Open::new(&database, &journal).scope("campaign:1"), None, "what was queued was written at the end");
    });
}

#[test]
fn scopes_of_a_plugin_exclude_expired_ones() {
    on_each("scopes_of_a_plugin_exclude_expired_ones", |database| {
        let journal = tempfile::tempdir().unwrap();
        let open = Open::new(&database, &journal);
        for n in 0..2345 {
            open.store.put_scope(record(&format!("campaign:{n:04}"), Some(b"x")), Charge::default(), None, None);
        }
        let expired = ScopeRecord { expires_ms: BEGINNING - 1, ..record("campaign:0007", None) };
        open.store.put_scope(expired, Charge::default(), None, None);
        open.store.put_scope(
            ScopeRecord { plugin: "other".to_owned(), ..record("other:1", None) },
            Charge::default(),
            None,
            None,
        );
        let mut keys = Vec::new();
        let take = |page: Vec<ScopeRecord>| {
            keys.extend(page.into_iter().map(|scope| scope.key));
            ControlFlow::Continue(())
        };
        open.store.scopes("campaign", take).unwrap();
        let wanted: Vec<_> = (0..2345).filter(|n| *n != 7).map(|n| format!("campaign:{n:04}")).collect();
        assert_eq!(keys, wanted);
        assert_eq!(open.scope("campaign:0007"), None);
        open.store.shut_down();
    });
}

fn answered(key: &str, answered_ms: u64) -> AnsweredCall {
    AnsweredCall {
        caller: "ops".to_owned(),
        key: key.to_owned(),
        fingerprint: [7; 32],
        answer: format!(r#"{{"key":"{key} é"}}"#),
        answered_ms,
    }
}

#[test]
fn answered_calls_are_stored_with_their_changes() {
    on_each("answered_calls_are_stored_with_their_changes", |database| {
        let journal = tempfile::tempdir().unwrap();
        let open = Open::new(&database, &journal);
        assert_eq!(open.store.answered_calls(0).unwrap(), []);
        let put = |key: &str, answered_ms: u64| {
            open.store.put_scope(
                record("campaign:1", Some(b"1")),
                Charge::default(),
                None,
                Some(answered(key, answered_ms)),
            );
        };
        put("a", BEGINNING);
        put("b", BEGINNING + 1);
        open.put(&record("campaign:2", None));
        // What has had its day may be used for another call.
        put("a", BEGINNING + 2);
        open.store.drop_scope("campaign", "campaign:1", None, Some(answered("c", BEGINNING + 3)));
        open.store.shut_down();
        drop(open);
        let open = Open::new(&database, &journal);
        assert_eq!(open.scope("campaign:1"), None);
        let [a, b, c] = [("a", 2), ("b", 1), ("c", 3)].map(|(key, ms)| answered(key, BEGINNING + ms));
        assert_eq!(open.store.answered_calls(BEGINNING + 1).unwrap(), [b, a.clone(), c.clone()]);
        assert_eq!(open.store.answered_calls(BEGINNING + 2).unwrap(), [a, c]);
        open.store.shut_down();
    });
}

#[test]
fn oldest_excess_answered_calls_are_forgotten() {
    on_each("oldest_excess_answered_calls_are_forgotten", |database| {
        let open = Open::new(&database, &tempfile::tempdir().unwrap());
        for n in 0..MAX_ANSWERED_CALLS + 5 {
            open.store.put_scope(
                record("campaign:1", None),
                Charge::default(),
                None,
                Some(answered(&n.to_string(), BEGINNING)),
            );
        }
        open.put(&record("campaign:1", None));
        let calls = open.store.answered_calls(0).unwrap();
        assert_eq!((calls.len(), calls[0].key.as_str()), (MAX_ANSWERED_CALLS, "5"));
        open.store.shut_down();
    });
}

#[test]
fn older_sqlite_file_migrates_newer_is_refused() {
    let database = Database::Sqlite(tempfile::tempdir().unwrap(), None);
    let journal = tempfile::tempdir().unwrap();
    let open = Open::new(&database, &journal);
    open.put(&record("campaign:1", Some(b"1")));
    open.store.shut_down();
    drop(open);
    let Database::Sqlite(dir, _) = &database else { unreachable!() };
    let file = || rusqlite::Connection::open(dir.path().join("store.db")).unwrap();
    // As the first version was.
    let first = "DROP TABLE answered_calls; ALTER TABLE scopes DROP COLUMN before_version;
                 ALTER TABLE scopes DROP COLUMN before_state; PRAGMA user_version = 1";
    file().execute_batch(first).unwrap();
    let open = Open::new(&database, &journal);
    assert_eq!(open.scope("campaign:1").unwrap().state.as_deref(), Some(&b"1"[..]));
    open.store.put_scope(record("campaign:1", None), Charge::default(), None, Some(answered("a", BEGINNING)));
    open.put(&record("campaign:1", None));
    assert_eq!(open.store.answered_calls(0).unwrap().len(), 1);
    open.store.shut_down();
    drop(open);
    file().execute_batch("PRAGMA user_version = 99").unwrap();
    let config =
        StoreConfig { url: database.url(), journal: journal.path().to_owned(), give_up: Duration::from_secs(1) };
    let opened = Store::open(&config, Clock::system(), Metrics::new().unwrap());
    let error = format!("{:#}", opened.map(drop).expect_err("it is of a newer host"));
    assert!(error.contains("newer host") && error.contains("99"), "{error}");
}

#[test]
fn invalid_stores_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    for (url, said) in [
        ("roundhouse.db", "sqlite:// or postgres://"),
        ("mysql://x", "sqlite:// or postgres://"),
        ("sqlite://", "must name a file"),
        ("sqlite://:memory:", "must name a file"),
        ("postgres://host:port/db", "connection string"),
        ("postgres://host/db?sslmode=always", "verify-full"),
        ("postgres://host/db?sslrootcert=/no/such.pem", "/no/such.pem"),
    ] {
        let error = format!("{:#}", StoreUrl::parse(url, dir.path()).expect_err(url));
        assert!(error.contains(said), "{url}: {error}");
    }
    let open = |url: StoreUrl| {
        let config = StoreConfig { url, journal: dir.path().join("journal"), give_up: Duration::from_secs(1) };
        let opened = Store::open(&config, Clock::system(), Metrics::new().unwrap());
        format!("{:#}", opened.map(|_| ()).expect_err("it cannot be opened"))
    };
    std::fs::write(dir.path().join("text"), "this is no database, though it is long enough to be one".repeat(99))
        .unwrap();
    assert!(open(StoreUrl::Sqlite(dir.path().join("text"))).contains("not a database"));
    assert!(open(StoreUrl::Sqlite(dir.path().join("none/store.db"))).contains("none/store.db"));
    assert!(open(StoreUrl::Postgres("postgres://x@127.0.0.1:1/x".to_owned())).contains("cannot connect"));
}
