//! A journal whose file system blocks: only the plugin threads that write to it wait.

use std::fs;
use std::io::{self, BufRead as _, BufReader, ErrorKind, PipeReader, PipeWriter, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futures_util::future::join_all;
use roundhouse_tests::{InnerHost, TIMEOUT, TestClient};
use rustix::fs::{OFlags, fcntl_setfl};
use serde_json::{Value, json};
use tokio::time::timeout;

/// The number of rooms: enough to be on several plugin threads.
const MANY: usize = 16;

/// The number of tickets: enough that some are on each of four threads, wherever the hash of this process puts them.
const N_TICKETS: usize = 80;

/// A full pipe: writes to it block until it is read from.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    let full = loop {
        if let Err(error) = writer.write_all(b"\n") {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    fcntl_setfl(&writer, OFlags::empty()).unwrap();
    (reader, writer)
}

/// Redirects the writes of this process to the journal in `dir` to `to`.
#[expect(unsafe_code, reason = "descriptors are replaced behind the back of their owner")]
fn replace_journal(dir: &Path, to: &PipeWriter) {
    let is_journal = |link: &Path| link.starts_with(dir) && link.extension().is_some_and(|suffix| suffix == "journal");
    let mut n_replaced = 0;
    for entry in fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap) {
        // The descriptor of the directory listing itself may be closed.
        if fs::read_link(entry.path()).is_ok_and(|link| is_journal(&link)) {
            let number: RawFd = entry.file_name().to_str().unwrap().parse().unwrap();
            // SAFETY: the descriptor is open and stays open: it is not closed here, and its owner does not notice the
            // replacement.
            let mut descriptor = unsafe { OwnedFd::from_raw_fd(number) };
            rustix::io::dup2(to, &mut descriptor).unwrap();
            std::mem::forget(descriptor);
            n_replaced += 1;
        }
    }
    assert_eq!(n_replaced, 1);
}

async fn say(client: &mut TestClient, room: usize) -> i64 {
    client.emit_with_id("roomMessage", json!({ "roomId": format!("r{room}"), "body": "hello" })).await
}

/// Sends an event to each ticket. Returns the number of acknowledgements in time.
async fn count_answers(host: &InnerHost, event: &str, data: impl Fn(usize) -> Value) -> usize {
    let asked = (0..N_TICKETS).map(async |n| {
        let mut client = host.client(&format!("user-{n}")).await;
        let id = client.emit_with_id(event, data(n)).await;
        timeout(Duration::from_secs(2), client.expect_ack(id)).await.is_ok()
    });
    join_all(asked).await.into_iter().filter(|is_answered| *is_answered).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_journal_delays_only_promises() {
    let host = InnerHost::start("plugins.threads = 4").await;
    let mut ana = host.client("ana").await;
    for room in 0..MANY {
        ana.emit_with_ack("joinRoom", json!({ "roomId": format!("r{room}") })).await.unwrap();
    }
    // Promises in the journal that wait for the database.
    let database = rusqlite::Connection::open(host.dir().join("roundhouse.db")).unwrap();
    database.execute_batch("PRAGMA busy_timeout = 10000; BEGIN EXCLUSIVE").unwrap();
    for room in 0..MANY {
        let id = say(&mut ana, room).await;
        ana.expect_ack(id).await.unwrap();
    }
    // The writer has failed, has synced the journal to disk, and waits for the clock to move.
    while !host.call("GET", "/metrics", "").await.text.contains("roundhouse_store_failures_total 1") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (reader, writer) = full_pipe();
    replace_journal(host.dir(), &writer);
    let blocked = say(&mut ana, 0).await;
    drop(database);

    // The outcomes of the other threads' rooms are delivered, though the writer cannot note them in the journal.
    host.advance(Duration::from_secs(2));
    ana.expect_event("roomMessageConfirmed").await;
    for _ in 0..2 {
        let answered = count_answers(&host, "ticket:view", |n| json!({ "ticketId": format!("t{n}") })).await;
        assert!((1..N_TICKETS).contains(&answered), "tickets of all threads but one: {answered} of {N_TICKETS}");
    }
    assert_eq!(host.call("GET", "/readyz", "").await.status, 200);

    let (report, acknowledged) = mpsc::channel();
    // The thread ends with the test process.
    thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok).filter(|line| line.contains("settled")) {
            // The receiver is gone if the test has ended.
            let _ = report.send(line);
        }
    });
    ana.expect_ack(blocked).await.expect("it is promised now");
    for _ in 1..=MANY {
        ana.expect_event("roomMessageConfirmed").await;
    }
    acknowledged.recv_timeout(TIMEOUT).expect("the writer acknowledges the promises now");
    host.shut_down().await;
}
