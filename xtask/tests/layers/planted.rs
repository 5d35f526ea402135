//! Small trees that break one rule each, with every form of import.

use xtask::sources::Sources;

use crate::rules::{circular_files, violations};

/// A host that keeps every rule, and has the files that planted lines import.
const HOST: [(&str, &str); 16] = [
    ("host/src/lib.rs", "mod api; mod config; mod conn; mod hub; mod model; mod plugin; mod protocol; mod store;"),
    ("host/src/api.rs", "use crate::hub::Hub; use crate::plugin::Runtime; struct Api(Hub, Runtime);"),
    ("host/src/config.rs", "pub struct Config;"),
    ("host/src/conn/mod.rs", "mod shard; mod state; pub use shard::Shard; pub const LIMIT: u8 = 1;"),
    ("host/src/conn/shard.rs", "use super::state::Outbox; pub struct Shard(Outbox);"),
    ("host/src/conn/state/mod.rs", "mod outbox; pub use outbox::Outbox;"),
    ("host/src/conn/state/outbox.rs", "pub struct Outbox;"),
    ("host/src/hub.rs", "use crate::model::Id; pub struct Hub(Id);"),
    ("host/src/model/mod.rs", "mod id; pub use id::Id;"),
    ("host/src/model/id.rs", "pub struct Id;"),
    ("host/src/plugin/mod.rs", "mod guest; mod run; pub use run::Runtime;"),
    ("host/src/plugin/guest/mod.rs", "pub mod bindings; pub struct Sandbox;"),
    ("host/src/plugin/run/mod.rs", "use super::guest::Sandbox; pub struct Runtime(Sandbox);"),
    ("host/src/plugin/guest/bindings.rs", "bindgen!();"),
    ("host/src/protocol.rs", "pub struct Packet;"),
    ("host/src/store.rs", "pub struct Store;"),
];

/// The host with `text` added to `file`, which is created if it is new.
fn planted(file: &str, text: &str) -> Sources {
    let mut sources: Sources = HOST.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    let source = sources.entry(file.into()).or_default();
    *source = format!("{source}\n{text}\n");
    sources
}

#[track_caller]
fn refuses(file: &str, text: &str, complaint: &str) {
    let found = violations(&planted(file, text)).expect("the planted source can be parsed");
    assert!(found.iter().any(|found| found.contains(complaint)), "{text}: {found:?}");
}

#[track_caller]
fn allows(file: &str, text: &str) {
    let found = violations(&planted(file, text)).expect("the planted source can be parsed");
    assert!(found.is_empty(), "{text}: {found:?}");
}

#[test]
fn unplanted_host_is_allowed() {
    allows("host/src/hub.rs", "");
    assert!(circular_files(&planted("host/src/hub.rs", "")).unwrap().is_empty());
}

#[test]
fn import_of_upper_layer_is_refused() {
    refuses("host/src/hub.rs", "use crate::conn::Shard;", "imports conn");
}

#[test]
fn import_of_sibling_is_refused() {
    refuses("host/src/api.rs", "use crate::conn::Shard;", "imports conn");
    refuses("host/src/protocol.rs", "use crate::store::Store;", "imports store");
}

#[test]
fn import_within_braces_is_refused() {
    refuses("host/src/hub.rs", "use crate::{conn, model};", "imports conn");
    refuses("host/src/hub.rs", "use crate::{model::{self, Id}, conn::{Shard as S, LIMIT}};", "imports conn");
}

#[test]
fn import_by_super_is_refused() {
    refuses("host/src/hub.rs", "use super::conn::Shard;", "imports conn");
    refuses("host/src/model/id.rs", "use super::super::conn;", "imports conn");
    refuses("host/src/model/id.rs", "mod tests { use super::super::super::conn::Shard; }", "imports conn");
}

#[test]
fn glob_of_crate_is_refused() {
    refuses("host/src/hub.rs", "use crate::*;", "imports the whole crate");
    refuses("host/src/model/id.rs", "use super::super::*;", "imports the whole crate");
}

#[test]
fn glob_of_upper_layer_is_refused() {
    refuses("host/src/hub.rs", "use crate::conn::*;", "imports conn");
}

#[test]
fn renamed_import_is_refused() {
    refuses("host/src/hub.rs", "use crate::conn as net;", "imports conn");
    refuses("host/src/hub.rs", "use crate::{self as host}; fn f() { host::conn::f() }", "imports");
}

#[test]
fn reexport_is_refused() {
    refuses("host/src/hub.rs", "pub use crate::conn::Shard;", "imports conn");
    refuses("host/src/hub.rs", "pub(crate) use crate::conn::Shard;", "imports conn");
}

#[test]
fn path_in_code_is_refused() {
    refuses("host/src/hub.rs", "fn f() -> u8 { crate::conn::LIMIT }", "imports conn");
    refuses("host/src/hub.rs", "fn f(shard: &Vec<crate::conn::Shard>) {}", "imports conn");
    refuses("host/src/hub.rs", "fn f() { if let crate::conn::X = x {} }", "imports conn");
    refuses("host/src/hub.rs", "fn f() { use crate::conn::LIMIT; }", "imports conn");
    refuses("host/src/hub.rs", "fn f() { assert_eq!(crate::conn::LIMIT, 1); }", "imports conn");
}

#[test]
fn import_through_alias_is_refused() {
    let mut sources = planted("host/src/model/mod.rs", "use super::conn as outer;");
    sources.insert("host/src/hub.rs".into(), "use crate::model::outer::Shard;".into());
    let found = violations(&sources).unwrap();
    assert!(found.iter().any(|found| found.starts_with("host/src/hub.rs:1 imports conn")), "{found:?}");
}

#[test]
fn import_after_slashes_in_string_is_refused() {
    refuses("host/src/hub.rs", "const A: &str = \"http://a\"; use crate::conn;", "imports conn");
}

#[test]
fn import_by_path_attribute_is_followed() {
    let mut sources = planted("host/src/hub.rs", "#[path = \"../../sdk/shared.rs\"] mod shared;");
    sources.insert("sdk/shared.rs".into(), "use crate::conn::Shard;".into());
    let found = violations(&sources).unwrap();
    assert_eq!(found, ["sdk/shared.rs:1 imports conn, which is not below hub"]);
}

#[test]
fn imports_in_strings_and_comments_are_ignored() {
    allows("host/src/hub.rs", "const A: &str = \"use crate::conn;\"; // use crate::conn;\n/* crate::conn::f() */");
}

#[test]
fn unknown_module_is_refused() {
    let mut sources = planted("host/src/lib.rs", "mod other;");
    sources.insert("host/src/other.rs".into(), "use crate::model::Id;".into());
    assert!(violations(&sources).unwrap()[0].contains("add other to LAYERS"));
}

#[test]
fn wasmtime_outside_guest_is_refused() {
    refuses("host/src/plugin/run/mod.rs", "use wasmtime::Store;", "names wasmtime");
    refuses("host/src/plugin/run/mod.rs", "fn f(store: ::wasmtime::Store<()>) {}", "names wasmtime");
    refuses("host/src/hub.rs", "extern crate wasmtime_wasi;", "names wasmtime_wasi");
    refuses("host/src/hub.rs", "wasmtime::component::bindgen!({});", "names wasmtime");
    allows("host/src/plugin/guest/mod.rs", "mod engine { use wasmtime::Engine; }");
}

#[test]
fn bindings_outside_guest_are_refused() {
    refuses("host/src/plugin/run/mod.rs", "use super::guest::bindings::Event;", "imports the WIT's bindings");
}

#[test]
fn import_of_upper_room_is_refused() {
    refuses("host/src/plugin/guest/mod.rs", "use super::run::Runtime;", "a room above its own");
    refuses("host/src/plugin/guest/mod.rs", "use crate::plugin::Runtime;", "a room above its own");
}

#[test]
fn naming_shard_or_conn_in_state_is_refused() {
    refuses("host/src/conn/state/outbox.rs", "use super::super::Shard;", "names Shard");
    refuses("host/src/conn/state/outbox.rs", "fn f(shard: &mut crate::conn::shard::Shard) {}", "names Shard");
    refuses("host/src/conn/state/outbox.rs", "use crate::conn::LIMIT;", "imports host/src/conn/mod.rs");
    allows("host/src/conn/state/outbox.rs", "use crate::model::Id;");
}

#[test]
fn foreign_crates_in_plugins_and_contract_are_refused() {
    refuses("plugins/a/src/lib.rs", "use roundhouse::model::Id;", "names roundhouse");
    refuses("plugins/a/src/lib.rs", "fn f() { std::fs::read(\"a\"); }", "names std::fs");
    refuses("sdk/src/lib.rs", "use wasmtime::Engine;", "names wasmtime");
    refuses("wit/contract/src/lib.rs", "use std::{io, fmt};", "names std::io");
    allows("plugins/a/src/lib.rs", "use roundhouse_sdk::Feature;");
}

#[test]
fn mixed_import_groups_are_refused() {
    refuses("host/src/hub.rs", "mod a { use bytes::Bytes;\n\nuse std::fmt; }", "stands below a group");
    refuses("host/src/hub.rs", "mod a { use std::fmt;\nuse bytes::Bytes; }", "without a blank line");
    allows("host/src/hub.rs", "mod a { use std::{\n  fmt,\n  io,\n};\n\nuse bytes::Bytes;\n\nuse crate::model::Id; }");
}

#[test]
fn circle_of_two_files_is_found() {
    let found = circular_files(&planted("host/src/model/id.rs", "use super::LIMIT; use super::other;")).unwrap();
    assert!(found.is_empty(), "what a re-exporting file defines is no circle: {found:?}");
    let found =
        circular_files(&planted("host/src/conn/state/outbox.rs", "fn f(_: crate::conn::shard::Shard) {}")).unwrap();
    assert_eq!(Vec::from_iter(found), ["host/src/conn/shard.rs", "host/src/conn/state/outbox.rs"]);
}

#[test]
fn circle_through_third_file_is_found() {
    let mut sources = planted("host/src/model/mod.rs", "mod a; mod b; mod c;");
    for (name, other) in [("a", "b"), ("b", "c"), ("c", "a")] {
        let text = format!("use super::{other}::f as g; pub fn f() {{ g() }}");
        sources.insert(format!("host/src/model/{name}.rs"), text);
    }
    assert_eq!(circular_files(&sources).unwrap().len(), 3);
}

#[test]
fn circle_within_test_code_is_allowed() {
    let text = "#[cfg(test)] mod tests { use crate::conn::shard::Shard; }";
    assert!(circular_files(&planted("host/src/conn/state/outbox.rs", text)).unwrap().is_empty());
}
