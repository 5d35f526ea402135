use std::fs;
use std::io::{Read as _, pipe};
use std::os::fd::OwnedFd;
use std::sync::mpsc::Receiver;

use super::*;

/// The time after which a waiting test has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Opens a store in this folder. Returns it with the outcomes that it sends.
fn open(dir: &std::path::Path) -> (Store, Receiver<(Arc<Promise>, Outcome)>) {
    let config = StoreConfig {
        url: StoreUrl::Sqlite(dir.join("store.db")),
        journal: dir.join("journal"),
        give_up: Duration::from_secs(60),
        is_shared: false,
    };
    let (send, outcomes) = mpsc::channel();
    let listener = Box::new(move |promise, outcome| send.send((promise, outcome)).is_ok());
    (Store::open(&config, Clock::system(), Metrics::new().unwrap(), listener).unwrap(), outcomes)
}

fn promises(n: usize) -> Vec<Promise> {
    (0..n).map(|n| Promise { id: n.to_string(), ..Promise::of_test() }).collect()
}

#[test]
fn receipts_do_not_wait_for_a_blocked_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (store, outcomes) = open(dir.path());
    store.promise(promises(1000)).unwrap();
    let receipts: Vec<_> = (0..1000).map(|_| store.receipt(&outcomes.recv_timeout(PATIENCE).unwrap().0)).collect();
    let (mut reader, writer) = pipe().unwrap();
    store.journal.write_to(OwnedFd::from(writer).into());
    thread::scope(|threads| {
        let document = "x".repeat(4 << 20);
        let waiting = threads.spawn(|| store.promise(vec![Promise { document, ..Promise::of_test() }]));
        let mut first = [0];
        reader.read_exact(&mut first).unwrap();
        // From here on a write to the journal is under way, and its lock held, until the pipe is read.
        let shard = threads.spawn(|| drop(receipts));
        let deadline = Instant::now() + PATIENCE;
        while !shard.is_finished() {
            assert!(Instant::now() < deadline, "the shard waits for the journal");
            thread::yield_now();
        }
        assert!(!waiting.is_finished() && store.journal.is_locked());
        let reading = threads.spawn(move || {
            let mut lines = String::new();
            reader.read_to_string(&mut lines).unwrap();
            lines
        });
        waiting.join().unwrap().unwrap();
        outcomes.recv_timeout(PATIENCE).unwrap();
        store.shut_down();
        store.journal.write_to(fs::File::create(dir.path().join("end")).unwrap());
        let lines = reading.join().unwrap();
        let settled: Vec<_> = lines.lines().filter(|line| line.contains("settled")).collect();
        assert!((1..=3).contains(&settled.len()), "many are acknowledged in one line, not in {}", settled.len());
    });
}

#[test]
fn unloaded_features_promises_are_kept_until_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, outcomes) = open(dir.path());
    drop(outcomes);
    store.promise(promises(1)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while store.resume("chat") == 0 {
        assert!(Instant::now() < deadline, "the promise is not kept");
        thread::yield_now();
    }
}
