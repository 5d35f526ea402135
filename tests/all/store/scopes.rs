//! States of durable scopes, and the answered calls that are stored with them.

use std::ops::ControlFlow;

use roundhouse::ledger::Charge;
use roundhouse::store::{AnsweredCall, MAX_ANSWERED_CALLS, ScopeRecord, StoredScopes as _};

use crate::store::database::{BEGINNING, OpenStore, on_each_database, record};

#[test]
fn scope_reads_return_the_last_record() {
    on_each_database("scope_reads_return_the_last_record", |database| {
        let journal = tempfile::tempdir().unwrap();
        let open = OpenStore::new(&database, &journal);
        assert_eq!(open.scope("campaign:1"), None);
        for state in [Some(&[0, 255, 10][..]), None] {
            let record = record("campaign:1", state);
            open.put(&record);
            assert_eq!(open.scope("campaign:1").as_ref(), Some(&record));
        }
        // A read before the write returns the record that waits to be written.
        let next = ScopeRecord { sequence: 42, timers: Vec::new(), ..record("campaign:1", Some(b"x")) };
        open.store.put_scope(next.clone(), Charge::default(), None, None);
        assert_eq!(open.scope("campaign:1"), Some(next));
        open.store.drop_scope("campaign", "campaign:1", 0, None, None);
        assert_eq!(open.scope("campaign:1"), None);
        open.store.shut_down();
        drop(open);
        assert_eq!(
            OpenStore::new(&database, &journal).scope("campaign:1"),
            None,
            "what was queued was written at the end"
        );
    });
}

#[test]
fn scopes_of_a_plugin_exclude_expired_ones() {
    on_each_database("scopes_of_a_plugin_exclude_expired_ones", |database| {
        let journal = tempfile::tempdir().unwrap();
        let open = OpenStore::new(&database, &journal);
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
        let mut take = |page: Vec<ScopeRecord>| {
            keys.extend(page.into_iter().map(|scope| scope.key));
            ControlFlow::Continue(())
        };
        open.store.scopes("campaign", &mut take).unwrap();
        let wanted: Vec<_> = (0..2345).filter(|n| *n != 7).map(|n| format!("campaign:{n:04}")).collect();
        assert_eq!(keys, wanted);
        assert_eq!(open.scope("campaign:0007"), None);
        open.store.shut_down();
    });
}

pub(super) fn answered(key: &str, answered_ms: u64) -> AnsweredCall {
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
    on_each_database("answered_calls_are_stored_with_their_changes", |database| {
        let journal = tempfile::tempdir().unwrap();
        let open = OpenStore::new(&database, &journal);
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
        // A key may be used again after a day.
        put("a", BEGINNING + 2);
        open.store.drop_scope("campaign", "campaign:1", 0, None, Some(answered("c", BEGINNING + 3)));
        open.store.shut_down();
        drop(open);
        let open = OpenStore::new(&database, &journal);
        assert_eq!(open.scope("campaign:1"), None);
        let [a, b, c] = [("a", 2), ("b", 1), ("c", 3)].map(|(key, ms)| answered(key, BEGINNING + ms));
        assert_eq!(open.store.answered_calls(BEGINNING + 1).unwrap(), [b, a.clone(), c.clone()]);
        assert_eq!(open.store.answered_calls(BEGINNING + 2).unwrap(), [a, c]);
        open.store.shut_down();
    });
}

#[test]
fn oldest_excess_answered_calls_are_forgotten() {
    on_each_database("oldest_excess_answered_calls_are_forgotten", |database| {
        let open = OpenStore::new(&database, &tempfile::tempdir().unwrap());
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
