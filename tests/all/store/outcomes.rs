//! Outcomes of documents are reported until they are acknowledged, also after restarts, and never change.

use roundhouse::store::{Outcome, Promise};

use crate::store::database::{Database, OpenStore, advance_until, expire, ids, on_each_database, promise};

#[test]
fn unacknowledged_outcomes_return_after_a_restart() {
    on_each_database("unacknowledged_outcomes_return_after_a_restart", |database| {
        let journal = tempfile::tempdir().unwrap();
        let open = OpenStore::new(&database, &journal);
        let others = Promise { plugin: "other".to_owned(), ..promise("d") };
        open.store.promise(vec![promise("a"), promise("b"), promise("c"), others]).unwrap();
        let outcomes: Vec<_> = (0..4).map(|_| open.next()).collect();
        assert!(outcomes.iter().all(|(promise, _)| !promise.restored));
        open.acknowledge(&outcomes[1].0);
        open.store.shut_down();
        drop(open);

        let open = OpenStore::new(&database, &journal);
        assert_eq!(open.store.resume("chat"), 2);
        assert!(open.next().0.restored);
        open.store.promise(vec![promise("e")]).unwrap();
        let outcomes = [open.next(), open.next()];
        assert_eq!(outcomes[1].1, Outcome::Stored("id-e".to_owned()));
        assert_eq!(ids(&open.page("room:1", None, 10).unwrap()), ["id-e", "id-c", "id-b", "id-a"]);
        open.store.shut_down();
        drop(open);

        let open = OpenStore::new(&database, &journal);
        assert_eq!((open.store.resume("chat"), open.store.resume("other")), (3, 1));
        open.acknowledge_next(4);
        open.store.shut_down();
        drop(open);
        let open = OpenStore::new(&database, &journal);
        assert_eq!((open.store.resume("chat"), open.store.resume("other")), (0, 0));
        open.store.shut_down();
    });
}

#[test]
fn requeued_failure_is_reported_despite_another_failure() {
    on_each_database("requeued_failure_is_reported_despite_another_failure", |mut database| {
        let journal = tempfile::tempdir().unwrap();
        let open = OpenStore::new(&database, &journal);
        database.stop();
        let first = expire(&open, "a");
        // As if the feature had been unloaded when the outcome was due, and loaded again.
        open.store.requeue(&first);
        assert_eq!(open.store.resume("chat"), 1);
        expire(&open, "b");
        database.resume();
        let (document, outcome) = advance_until(&open, || open.outcomes.try_recv().ok(), 1).remove(0);
        assert!(document.tag == "a" && matches!(outcome, Outcome::Failed(_)), "{document:?} {outcome:?}");
        open.store.shut_down();
    });
}

#[test]
fn expiry_in_an_earlier_process_is_final() {
    on_each_database("expiry_in_an_earlier_process_is_final", |mut database| {
        let journal = tempfile::tempdir().unwrap();
        let open = OpenStore::new(&database, &journal);
        database.stop();
        let given_up = expire(&open, "a");
        open.store.shut_down();
        drop(open);
        database.resume();
        let open = OpenStore::new(&database, &journal);
        // The second process could not report the outcome either.
        open.store.requeue(&given_up);
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
    let open = OpenStore::new(&database, &journal);
    open.store.promise(vec![promise("a")]).unwrap();
    // The process ends between the report and its acknowledgement.
    assert_eq!(open.next().1, Outcome::Stored("id-a".to_owned()));
    open.store.shut_down();
    drop(open);
    database.stop();
    let open = OpenStore::new(&database, &journal);
    assert_eq!(open.store.resume("chat"), 1);
    expire(&open, "b");
    database.resume();
    assert_eq!(advance_until(&open, || open.outcomes.try_recv().ok(), 1)[0].1, Outcome::Stored("id-a".to_owned()));
    assert_eq!(ids(&open.page("room:1", None, 10).unwrap()), ["id-a"]);
    open.store.shut_down();
}

#[test]
fn expired_document_settles_once_retracted_and_acknowledged() {
    on_each_database("expired_document_settles_once_retracted_and_acknowledged", |mut database| {
        let journal = tempfile::tempdir().unwrap();
        let open = OpenStore::new(&database, &journal);
        database.stop();
        open.store.promise(vec![promise("a"), promise("b")]).unwrap();
        let given_up = advance_until(&open, || open.outcomes.try_recv().ok(), 2);
        database.resume();
        // `c` follows the retraction in the same segment of the journal, which must be kept for it.
        open.store.promise(vec![promise("c")]).unwrap();
        advance_until(&open, || open.outcomes.try_recv().ok(), 1);
        open.acknowledge(&given_up[0].0);
        let large = Promise { document: format!("\"{}\"", "x".repeat(17 << 20)), ..promise("d") };
        for next in [large, promise("e")] {
            open.store.promise(vec![next]).unwrap();
            open.acknowledge_next(1);
        }
        open.store.shut_down();
        drop(open);

        let open = OpenStore::new(&database, &journal);
        assert_eq!(open.store.resume("chat"), 2, "nobody has heard of b and c");
        open.store.shut_down();
    });
}

#[test]
fn outcomes_during_shutdown_are_reported_again() {
    on_each_database("outcomes_during_shutdown_are_reported_again", |database| {
        let journal = tempfile::tempdir().unwrap();
        let open = OpenStore::new(&database, &journal);
        open.store.promise(vec![promise("a")]).unwrap();
        open.acknowledge_next(1);
        open.store.begin_shutdown();
        open.store.promise(vec![promise("b")]).unwrap();
        open.acknowledge_next(1);
        open.store.shut_down();
        drop(open);
        let open = OpenStore::new(&database, &journal);
        assert_eq!(open.store.resume("chat"), 1);
        assert_eq!(open.next().1, Outcome::Stored("id-b".to_owned()));
        open.store.shut_down();
    });
}

#[test]
fn requeued_outcomes_are_reported_on_resume() {
    on_each_database("requeued_outcomes_are_reported_on_resume", |mut database| {
        let journal = tempfile::tempdir().unwrap();
        let open = OpenStore::new(&database, &journal);
        open.store.promise(vec![promise("a")]).unwrap();
        open.store.requeue(&open.next().0);
        database.stop();
        open.store.promise(vec![promise("b")]).unwrap();
        let given_up = advance_until(&open, || open.outcomes.try_recv().ok(), 1).remove(0);
        open.store.requeue(&given_up.0);
        database.resume();
        assert_eq!(open.store.resume("chat"), 2);
        let outcomes = advance_until(&open, || open.outcomes.try_recv().ok(), 2);
        assert!(outcomes.iter().all(|(promise, _)| promise.restored));
        assert_eq!(outcomes[0].1, Outcome::Stored("id-a".to_owned()));
        assert!(matches!(outcomes[1].1, Outcome::Failed(_)), "an outcome does not change: {outcomes:?}");
        outcomes.iter().for_each(|(promise, _)| open.acknowledge(promise));
        assert_eq!(ids(&open.page("room:1", None, 10).unwrap()), ["id-a"]);
        open.store.shut_down();
        drop(open);
        let open = OpenStore::new(&database, &journal);
        assert_eq!(open.store.resume("chat"), 0);
        open.store.shut_down();
    });
}
