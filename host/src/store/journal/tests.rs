use super::segments::{SEGMENT_BYTES, SUFFIX};
use super::*;

fn promise(tag: &str) -> Promise {
    Promise { tag: tag.to_owned(), ..Promise::of_test() }
}

fn tags(unacknowledged: &[Unacknowledged]) -> Vec<(&str, bool)> {
    unacknowledged
        .iter()
        .map(|unacknowledged| (unacknowledged.promise.tag.as_str(), unacknowledged.is_expired))
        .collect()
}

#[test]
fn unacknowledged_promises_are_restored_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, unacknowledged) = Journal::open(dir.path()).unwrap();
    assert!(unacknowledged.is_empty());
    let mut promises = ["a", "b", "c"].map(promise);
    journal.promise(&mut promises).unwrap();
    let numbers = promises.map(|promise| promise.number);
    let mut last = [promise("d\n\u{0}\u{1f600}")];
    journal.promise(&mut last).unwrap();
    journal.acknowledge(vec![numbers[1]]).unwrap();
    journal.expire(vec![numbers[2]]).unwrap();
    drop(journal);
    for _ in 0..2 {
        let (_, unacknowledged) = Journal::open(dir.path()).unwrap();
        assert_eq!(tags(&unacknowledged), [("a", false), ("c", true), ("d\n\u{0}\u{1f600}", false)]);
    }
}

#[test]
fn restart_continues_numbers_and_removes_acknowledged_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for _ in 0..3 {
        let (journal, unacknowledged) = Journal::open(dir.path()).unwrap();
        assert!(unacknowledged.is_empty());
        let mut one = [promise("a")];
        journal.promise(&mut one).unwrap();
        assert!(one[0].number > last);
        last = one[0].number;
        journal.acknowledge(vec![last]).unwrap();
    }
    let (_journal, _) = Journal::open(dir.path()).unwrap();
    assert_eq!(segments_in(dir.path()).unwrap().len(), 1);
}

#[test]
fn segments_are_deleted_in_order_once_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path()).unwrap();
    let body = "x".repeat(SEGMENT_BYTES as usize / 2 + 1);
    let mut numbers = Vec::new();
    for tag in ["a", "b", "c", "d", "e"] {
        let mut one = [Promise { document: body.clone(), ..promise(tag) }];
        journal.promise(&mut one).unwrap();
        numbers.push(one[0].number);
    }
    assert_eq!(segments_in(dir.path()).unwrap().len(), 3);
    journal.acknowledge(numbers[2..].to_vec()).unwrap();
    assert_eq!(segments_in(dir.path()).unwrap().len(), 3);
    journal.acknowledge(numbers[..2].to_vec()).unwrap();
    assert_eq!(segments_in(dir.path()).unwrap().len(), 1);
}

#[test]
fn shorten_copies_an_unacknowledged_promise() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path()).unwrap();
    let mut kept = [promise("a"), promise("b")];
    journal.promise(&mut kept).unwrap();
    journal.expire(vec![kept[1].number]).unwrap();
    let body = "x".repeat(SEGMENT_BYTES as usize + 1);
    for _ in 0..20 {
        let mut one = [Promise { document: body.clone(), ..promise("c") }];
        journal.promise(&mut one).unwrap();
        journal.acknowledge_or_log(vec![one[0].number]);
        journal.shorten().unwrap();
    }
    assert!(segments_in(dir.path()).unwrap().len() <= MANY_SEGMENTS + 1);
    drop(journal);
    let (_, unacknowledged) = Journal::open(dir.path()).unwrap();
    assert_eq!(tags(&unacknowledged), [("a", false), ("b", true)]);
}

#[test]
fn shorten_copies_many_promises_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path()).unwrap();
    let mut kept: Vec<Promise> = (0..PIECE * 3 / 2).map(|n| promise(&n.to_string())).collect();
    journal.promise(&mut kept).unwrap();
    let body = "x".repeat(SEGMENT_BYTES as usize / 1000);
    for _ in 0..12 {
        let mut many: Vec<Promise> = (0..1001).map(|_| Promise { document: body.clone(), ..promise("c") }).collect();
        journal.promise(&mut many).unwrap();
        journal.acknowledge_or_log(many.iter().map(|promise| promise.number).collect());
        journal.shorten().unwrap();
        journal.shorten().unwrap();
    }
    assert!(segments_in(dir.path()).unwrap().len() <= MANY_SEGMENTS + 2);
    drop(journal);
    let (_, unacknowledged) = Journal::open(dir.path()).unwrap();
    assert_eq!(unacknowledged.len(), kept.len());
}

#[test]
fn interrupted_copy_keeps_a_promises_state() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path()).unwrap();
    let mut both = [promise("a"), promise("b")];
    journal.promise(&mut both).unwrap();
    journal.expire(vec![both[0].number]).unwrap();
    drop(journal);
    // As if the process ended after the promises were copied, but before their other records were.
    let mut copies = Vec::new();
    both.iter().for_each(|promise| append_line(&mut copies, &Record::Promise(promise)).unwrap());
    fs::write(dir.path().join(format!("{:020}.{SUFFIX}", 3)), copies).unwrap();
    let (journal, unacknowledged) = Journal::open(dir.path()).unwrap();
    assert_eq!(tags(&unacknowledged), [("a", true), ("b", false)]);
    assert!(journal.is_expired(both[0].number) && !journal.is_expired(both[1].number));
    journal.acknowledge(both.map(|promise| promise.number).to_vec()).unwrap();
    assert_eq!(segments_in(dir.path()).unwrap().len(), 1);
    drop(journal);
    assert!(Journal::open(dir.path()).unwrap().1.is_empty());
}

#[test]
fn damaged_lines_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path()).unwrap();
    for tag in ["a", "b", "c", "d"] {
        journal.promise(&mut [promise(tag)]).unwrap();
    }
    drop(journal);
    let (_, path) = segments_in(dir.path()).unwrap().remove(0);
    let mut text = fs::read_to_string(&path).unwrap().replace("\"tag\":\"b\"", "\"tag\":\"x\"");
    text.truncate(text.len() - 10);
    fs::write(&path, text).unwrap();
    let (_, unacknowledged) = Journal::open(dir.path()).unwrap();
    assert_eq!(tags(&unacknowledged), [("a", false), ("c", false)]);
}

#[test]
fn journal_is_locked_against_other_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let first = Journal::open(dir.path()).unwrap();
    let error = Journal::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("another host"), "{error}");
    drop(first);
    Journal::open(dir.path()).unwrap();
}

#[test]
fn saved_promises_leave_no_line() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path()).unwrap();
    journal.expire(vec![FIRST_SAVED, FIRST_SAVED + 1]).unwrap();
    journal.acknowledge(vec![FIRST_SAVED]).unwrap();
    assert!(!journal.is_expired(FIRST_SAVED) && journal.is_expired(FIRST_SAVED + 1));
    let lines = |dir: &Path| fs::read_to_string(&segments_in(dir).unwrap()[0].1).unwrap();
    assert_eq!(lines(dir.path()), "");
    let mut one = [promise("a")];
    journal.promise(&mut one).unwrap();
    journal.expire(vec![one[0].number, FIRST_SAVED]).unwrap();
    assert!(!lines(dir.path()).contains(&FIRST_SAVED.to_string()));
    drop(journal);
    let (journal, unacknowledged) = Journal::open(dir.path()).unwrap();
    assert_eq!(tags(&unacknowledged), [("a", true)]);
    assert!(!journal.is_expired(FIRST_SAVED));
}
