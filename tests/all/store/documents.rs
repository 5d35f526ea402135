//! Documents: stored in order, each once, and read page by page.

use roundhouse::model::ErrorCode;
use roundhouse::store::{Outcome, Page, Promise};

use crate::store::database::{Database, OpenStore, ids, on_each_database, promise, stored};

#[test]
fn documents_are_stored_in_order_and_paged() {
    on_each_database("documents_are_stored_in_order_and_paged", |database| {
        let journal = tempfile::tempdir().unwrap();
        let open = OpenStore::new(&database, &journal);
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
        let outcomes = open.acknowledge_next(2503);
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
    on_each_database("page_is_bounded_in_bytes_but_never_empty", |database| {
        let journal = tempfile::tempdir().unwrap();
        let open = OpenStore::new(&database, &journal);
        let large =
            |tag: &str, bytes: usize| Promise { document: format!("\"{}\"", "x".repeat(bytes)), ..promise(tag) };
        open.store.promise(vec![large("a", 100_000), large("b", 450_000), large("c", 900_000)]).unwrap();
        open.acknowledge_next(3);
        let newest = open.page("room:1", None, 10).unwrap();
        assert_eq!((ids(&newest), newest.has_more), (vec!["id-c"], true));
        let older = open.page("room:1", Some("id-c"), 10).unwrap();
        assert_eq!((ids(&older), older.has_more), (vec!["id-b"], true));
        open.store.shut_down();
    });
}

#[test]
fn document_key_is_stored_once_per_scope() {
    on_each_database("document_key_is_stored_once_per_scope", |database| {
        let journal = tempfile::tempdir().unwrap();
        let open = OpenStore::new(&database, &journal);
        let keyed =
            |tag: &str, scope: &str| Promise { key: Some("ana 1".to_owned()), scope: scope.to_owned(), ..promise(tag) };
        open.store.promise(vec![keyed("a", "room:1"), keyed("b", "room:1"), keyed("c", "room:2")]).unwrap();
        assert_eq!(open.acknowledge_next(3), [stored("a", "id-a"), stored("b", "id-a"), stored("c", "id-c")]);
        open.store.promise(vec![keyed("d", "room:1")]).unwrap();
        let (document, outcome) = open.next();
        assert_eq!((document.tag.as_str(), outcome), ("d", Outcome::Stored("id-a".to_owned())));
        assert_eq!(document.document, promise("a").document, "what is stored is told");
        open.acknowledge(&document);
        assert_eq!(ids(&open.page("room:1", None, 10).unwrap()), ["id-a"]);
        open.store.shut_down();
    });
}

#[test]
fn documents_over_the_queue_limit_are_refused() {
    let database = Database::Sqlite(tempfile::tempdir().unwrap(), None);
    let journal = tempfile::tempdir().unwrap();
    let open = OpenStore::new(&database, &journal);
    let failure = open.store.promise(vec![promise("a"); 100_001]).unwrap_err();
    assert_eq!(failure.code, ErrorCode::FeatureUnavailable);
    let large = Promise { document: "x".repeat(256 * 1024 * 1024 + 1), ..promise("a") };
    assert_eq!(open.store.promise(vec![large]).unwrap_err().code, ErrorCode::FeatureUnavailable);
    open.store.promise(vec![promise("a")]).unwrap();
    open.acknowledge_next(1);
    open.store.shut_down();
}
