//! A database that the nodes of a cluster share: epochs, promises that Redis holds, and hosts that are alone.

use std::ops::ControlFlow;
use std::path::Path;
use std::thread;

use roundhouse::ledger::Charge;
use roundhouse::store::{Outcome, Promise, ScopeRecord, StoreUrl, StoredScopes as _};
use roundhouse_tests::{TestPostgres, skip};

use crate::store::database::{
    BEGINNING, Database, OpenStore, advance_until, ids, on_each_database, promise, record, stored,
};

/// Runs a test with two nodes on one database.
fn on_two_nodes(name: &str, run: fn(&mut Database, [OpenStore; 2])) {
    let mut database = match TestPostgres::start() {
        Ok(server) => Database::Postgres(server),
        Err(why) => return skip(name, &why),
    };
    let journals = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let nodes = journals.each_ref().map(|journal| OpenStore::open(database.url(), journal, true).unwrap());
    run(&mut database, nodes);
}

fn of_epoch(epoch: u64, sequence: u64, state: &[u8]) -> ScopeRecord {
    ScopeRecord { epoch, sequence, ..record("campaign:1", Some(state)) }
}

#[test]
fn late_writes_of_former_owner_change_nothing() {
    on_two_nodes("late_writes_of_former_owner_change_nothing", |_, [former, owner]| {
        former.put(&of_epoch(1, 10, b"1"));
        owner.put(&of_epoch(2, 4, b"2"));
        former.put(&of_epoch(1, 11, b"late"));
        former.drop_scope("campaign:1", 1);
        assert_eq!(former.scope("campaign:1"), Some(of_epoch(2, 4, b"2")));
        // An epoch that was given away twice.
        former.put(&of_epoch(2, 3, b"older"));
        assert_eq!(former.scope("campaign:1"), Some(of_epoch(2, 4, b"2")));
        owner.put(&of_epoch(2, 4, b"again"));
        assert_eq!(owner.scope("campaign:1"), Some(of_epoch(2, 4, b"again")));
        owner.drop_scope("campaign:1", 2);
        assert_eq!(owner.scope("campaign:1"), None);
    });
}

#[test]
fn scope_begun_anew_replaces_its_longer_past() {
    on_two_nodes("scope_begun_anew_replaces_its_longer_past", |database, [owner, other]| {
        owner.put(&of_epoch(1, 10, b"1"));
        database.stop();
        // Both wait for the database, as one change.
        owner.store.drop_scope("campaign", "campaign:1", 1, None, None);
        for sequence in 1..=2 {
            owner.store.put_scope(of_epoch(1, sequence, b"anew"), Charge::default(), None, None);
        }
        database.resume();
        owner.store.shut_down();
        assert_eq!(other.scope("campaign:1"), Some(of_epoch(1, 2, b"anew")));
    });
}

#[test]
fn expired_scope_that_is_used_again_stays() {
    on_two_nodes("expired_scope_that_is_used_again_stays", |database, [loading, owner]| {
        for key in ["campaign:1", "campaign:2"] {
            owner.put(&ScopeRecord { key: key.to_owned(), expires_ms: BEGINNING - 1, ..of_epoch(3, 1, b"1") });
        }
        let Database::Postgres(server) = database else { unreachable!() };
        let mut client = postgres::Client::connect(&server.url(), postgres::NoTls).unwrap();
        // As the owner's write, which the deletion by the other node waits for.
        let mut writing = client.transaction().unwrap();
        let used = "UPDATE roundhouse_scopes SET expires_ms = expires_ms + 1000 WHERE key = 'campaign:1'";
        writing.batch_execute(used).unwrap();
        loading
            .store
            .scopes("campaign", &mut |page| {
                assert_eq!(page, []);
                ControlFlow::Continue(())
            })
            .unwrap();
        writing.commit().unwrap();
        loading.store.shut_down();
        assert!(owner.scope("campaign:1").is_some() && owner.scope("campaign:2").is_none());
    });
}

#[test]
fn promise_of_two_nodes_is_stored_once() {
    on_two_nodes("promise_of_two_nodes_is_stored_once", |_, nodes| {
        let promises = [Promise { key: Some("k".to_owned()), ..promise("a") }, promise("b")];
        let other = Promise { key: Some("k".to_owned()), ..promise("c") };
        for node in &nodes {
            node.store.has_room_for_promises(3, 100).unwrap();
            node.store.save([&promises[..], std::slice::from_ref(&other)].concat());
        }
        for node in &nodes {
            let told = node.acknowledge_next(3);
            assert_eq!(told, [stored("a", "id-a"), stored("b", "id-b"), stored("c", "id-a")]);
        }
        assert_eq!(ids(&nodes[1].page("room:1", None, 10).unwrap()), ["id-b", "id-a"]);
    });
}

#[test]
fn saved_promises_are_not_in_the_journal() {
    on_each_database("saved_promises_are_not_in_the_journal", |mut database| {
        let journal = tempfile::tempdir().unwrap();
        let open = OpenStore::new(&database, &journal);
        open.store.save(vec![promise("a")]);
        let (first, outcome) = open.next();
        assert_eq!(outcome, Outcome::Stored("id-a".to_owned()));
        open.store.requeue(&first);
        assert_eq!(open.store.resume("chat"), 1);
        assert_eq!(open.acknowledge_next(1), [stored("a", "id-a")]);
        database.stop();
        open.store.save(vec![promise("b")]);
        let expired = advance_until(&open, || open.outcomes.try_recv().ok(), 1).remove(0);
        assert!(matches!(expired.1, Outcome::Failed(_)), "{expired:?}");
        // Its outcome does not change, though the database is back.
        open.store.requeue(&expired.0);
        database.resume();
        assert_eq!(open.store.resume("chat"), 1);
        let again = advance_until(&open, || open.outcomes.try_recv().ok(), 1).remove(0);
        assert!(matches!(again.1, Outcome::Failed(_)) && again.0.number == expired.0.number, "{again:?}");
        assert_eq!(ids(&open.page("room:1", None, 10).unwrap()), ["id-a"]);
        open.store.shut_down();
        drop(open);
        assert_eq!(OpenStore::new(&database, &journal).store.resume("chat"), 0);
    });
}

#[test]
fn journal_of_before_the_cluster_is_stored() {
    let mut database = match TestPostgres::start() {
        Ok(server) => Database::Postgres(server),
        Err(why) => return skip("journal_of_before_the_cluster_is_stored", &why),
    };
    let journal = tempfile::tempdir().unwrap();
    let alone = OpenStore::new(&database, &journal);
    alone.store.promise(vec![promise("a")]).unwrap();
    alone.next();
    database.stop();
    alone.store.promise(vec![promise("b")]).unwrap();
    alone.store.shut_down();
    drop(alone);
    database.resume();
    let node = OpenStore::open(database.url(), &journal, true).unwrap();
    node.store.save(vec![promise("c")]);
    assert_eq!(node.acknowledge_next(1), [stored("c", "id-c")]);
    assert_eq!(node.store.resume("chat"), 2);
    assert_eq!(node.acknowledge_next(2), [stored("a", "id-a"), stored("b", "id-b")]);
    node.store.shut_down();
    drop(node);
    assert_eq!(OpenStore::open(database.url(), &journal, true).unwrap().store.resume("chat"), 0);
}

#[test]
fn nodes_make_the_tables_together() {
    let server = match TestPostgres::start() {
        Ok(server) => server,
        Err(why) => return skip("nodes_make_the_tables_together", &why),
    };
    let url = StoreUrl::parse(&server.url(), Path::new("")).unwrap();
    let open = |_| {
        let url = url.clone();
        thread::spawn(move || {
            let journal = tempfile::tempdir().unwrap();
            let node = OpenStore::open(url, &journal, true).unwrap();
            node.put(&record("campaign:1", Some(b"1")));
        })
    };
    let opening: Vec<_> = (0..6).map(open).collect();
    opening.into_iter().for_each(|node| node.join().unwrap());
    // One node marked it, and the others left it so.
    let mark = "SELECT concat(owner, ' ', epoch, ' ', expires) FROM roundhouse_owner";
    assert_eq!(server.value(mark), "cluster 1 infinity");
}

#[test]
fn cluster_and_lone_host_exclude_each_other() {
    let mut database = match TestPostgres::start() {
        Ok(server) => Database::Postgres(server),
        Err(why) => return skip("cluster_and_lone_host_exclude_each_other", &why),
    };
    let journals = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let refusal = |database: &Database, is_shared| {
        let opened = OpenStore::open(database.url(), &journals[1], is_shared);
        format!("{:#}", opened.map(drop).expect_err("it is refused"))
    };
    let alone = OpenStore::new(&database, &journals[0]);
    alone.put(&record("campaign:1", Some(b"1")));
    assert!(refusal(&database, true).contains("another host uses this database"));
    alone.store.shut_down();
    drop(alone);

    let node = OpenStore::open(database.url(), &journals[0], true).unwrap();
    assert_eq!(node.scope("campaign:1").unwrap().state.as_deref(), Some(&b"1"[..]));
    let error = refusal(&database, false);
    assert!(error.contains("a cluster uses this database") && error.contains("cluster.redis"), "{error}");
    // It stays marked over a restart of PostgreSQL, and in a database that has replaced it.
    database.stop();
    database.resume();
    let Database::Postgres(server) = &database else { unreachable!() };
    server.run("DROP TABLE roundhouse_scopes, roundhouse_owner, roundhouse_schema");
    node.store.put_scope(of_epoch(9, 1, b"2"), Charge::default(), None, None);
    advance_until(&node, || node.scope("campaign:1").filter(|_| node.store.wait_until_written("campaign")), 1);
    assert!(refusal(&database, false).contains("a cluster uses this database"));
    node.store.shut_down();
    drop(node);

    // What the message says to run when the cluster has ended.
    server.run("UPDATE roundhouse_owner SET expires = '-infinity'");
    let alone = OpenStore::new(&database, &journals[0]);
    alone.put(&record("campaign:1", Some(b"3")));
    assert_eq!(alone.scope("campaign:1"), Some(record("campaign:1", Some(b"3"))));
}
