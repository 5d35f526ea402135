//! The records of a partition in Redis: states, members, timers and owed acknowledgements of its scopes, each a field of its
//! own, so that a commit writes only what has changed.

use std::sync::Arc;

use super::batch::Changed;
use super::documents::document_record;
use super::wire::{Blob, WireAsk, WireMembership, WireState, WireTimer, decode, encode};
use crate::cluster::{Partition, Record};
use crate::model::ConnId;
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::run::scope::Scope;
use crate::plugin::run::state::ThreadState;

/// The kinds of records.
const STATE: u8 = b's';
const MEMBER: u8 = b'm';
const TIMER: u8 = b't';
const ASK: u8 = b'a';
const DOCUMENT: u8 = b'd';

/// The field of the revision of the plugins that a partition's commits are of.
const PLUGINS: &[u8] = b"p";

/// What a field is about.
pub(super) enum Subject<'a> {
    State,
    Member(ConnId),
    Timer(&'a str),
    Ask(u64),
    Document(&'a str),
}

/// The field of a record. Names have no zero bytes.
fn field(plugin: &str, scope: &str, subject: &Subject<'_>) -> Vec<u8> {
    let (kind, rest): (u8, Vec<u8>) = match subject {
        Subject::State => (STATE, Vec::new()),
        Subject::Member(connection) => (MEMBER, connection.to_bits().to_be_bytes().to_vec()),
        Subject::Timer(name) => (TIMER, name.as_bytes().to_vec()),
        Subject::Ask(ask) => (ASK, ask.to_be_bytes().to_vec()),
        Subject::Document(id) => (DOCUMENT, id.as_bytes().to_vec()),
    };
    [&[kind], plugin.as_bytes(), &[0], scope.as_bytes(), &[0], &rest].concat()
}

/// The plugin, the scope and the subject of a field. `None` if it is none of this version.
pub(super) fn parse(field: &[u8]) -> Option<(&str, &str, Subject<'_>)> {
    let (kind, rest) = field.split_first()?;
    let mut parts = rest.splitn(3, |byte| *byte == 0);
    let (plugin, scope, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let number = || Some(u64::from_be_bytes(rest.try_into().ok()?));
    let subject = match *kind {
        STATE => Subject::State,
        MEMBER => Subject::Member(ConnId::from_bits(number()?)),
        TIMER => Subject::Timer(std::str::from_utf8(rest).ok()?),
        ASK => Subject::Ask(number()?),
        DOCUMENT => Subject::Document(std::str::from_utf8(rest).ok()?),
        _ => return None,
    };
    Some((std::str::from_utf8(plugin).ok()?, std::str::from_utf8(scope).ok()?, subject))
}

/// The record of the revision of the plugins that a partition's commits are of.
pub(super) fn plugins_record(revision: u64) -> Record {
    (PLUGINS.to_vec(), Some(encode(&revision)))
}

/// Whether a field is of the revision of the plugins.
pub(super) fn is_plugins(field: &[u8]) -> bool {
    field == PLUGINS
}

/// The revision of the plugins that a partition's commits are of; 0 if it has none.
pub(super) fn plugins_of(records: &[(Vec<u8>, Vec<u8>)]) -> u64 {
    let record = records.iter().find(|(field, _)| is_plugins(field));
    record.and_then(|(_, value)| decode(value).ok()).unwrap_or_default()
}

fn state_record(scope: &Scope) -> Vec<u8> {
    let of = |state: &crate::plugin::load::migrate::State| (state.version, Blob(state.bytes.to_vec()));
    let (state, before) = (scope.state.as_ref().map(of), scope.previous_schema_state.as_ref().map(of));
    encode(&WireState { state, before, sequence: scope.sequence })
}

fn member_record(scope: &Scope, connection: ConnId) -> Option<Vec<u8>> {
    let member = scope.members.get(&connection)?;
    let identity = scope.roster.as_ref()?.identity(connection)?;
    Some(encode(&WireMembership {
        joined: member.joined,
        watched: member.watched,
        came: member.came,
        is_away: member.is_away,
        n_changes: member.n_changes,
        identity: (&**identity).into(),
        node: member.node.map(|node| node.0),
        next: member.next.map(|node| node.0),
    }))
}

fn timer_record(scope: &Scope, name: &str) -> Option<Vec<u8>> {
    let timer = scope.timers.get(name)?;
    Some(encode(&WireTimer { due_ms: timer.due_ms, after_ms: timer.after_ms, payload: timer.payload.clone() }))
}

impl ThreadState {
    /// The records of what has changed, as they are now.
    pub(super) fn records(&self, changed: &Changed) -> Vec<Record> {
        let Some(partitions) = &self.partitions else { return Vec::new() };
        let scope = |(plugin, key): &(u32, Arc<str>)| self.scopes.find(*plugin, key).map(|place| &self.scopes[place]);
        let name = |plugin: u32| partitions.names.get(&plugin).map_or("", |name| &**name);
        let mut records = Vec::new();
        for id in &changed.states {
            records.push((field(name(id.0), &id.1, &Subject::State), scope(id).map(state_record)));
        }
        for (id, connection) in &changed.members {
            let value = scope(id).and_then(|scope| member_record(scope, *connection));
            records.push((field(name(id.0), &id.1, &Subject::Member(*connection)), value));
        }
        for (id, timer) in &changed.timers {
            let value = scope(id).and_then(|scope| timer_record(scope, timer));
            records.push((field(name(id.0), &id.1, &Subject::Timer(timer)), value));
        }
        for (id, document) in &changed.documents {
            let value = scope(id).and_then(|scope| document_record(scope, document));
            records.push((field(name(id.0), &id.1, &Subject::Document(document)), value));
        }
        records.extend(changed.removed.iter().map(|field| (field.clone(), None)));
        for (id, ask) in &changed.asks {
            let value = self.acks.get(*ask).map(|owed| {
                encode(&WireAsk { connection: owed.connection.to_bits(), tag: owed.tag.clone(), due_ms: owed.due_ms })
            });
            records.push((field(name(id.0), &id.1, &Subject::Ask(*ask)), value));
        }
        records
    }

    /// All records of a partition that this node owns.
    pub(super) fn all_records(&self, partition: Partition) -> Vec<Record> {
        self.records_where(|_, key| Partition::of(key) == partition)
    }

    /// All records of the scopes of these plugins and keys.
    pub(super) fn records_where(&self, is_wanted: impl Fn(&Plugin, &str) -> bool) -> Vec<Record> {
        let mut records = Vec::new();
        for scope in self.scopes.iter().filter(|scope| is_wanted(&scope.plugin, &scope.address.key)) {
            let (plugin, key) = (&*scope.plugin.name, &*scope.address.key);
            records.push((field(plugin, key, &Subject::State), Some(state_record(scope))));
            for connection in scope.members.keys() {
                records.push((field(plugin, key, &Subject::Member(*connection)), member_record(scope, *connection)));
            }
            for id in scope.promised.keys() {
                records.push((field(plugin, key, &Subject::Document(id)), document_record(scope, id)));
            }
            for name in scope.timers.keys() {
                records.push((field(plugin, key, &Subject::Timer(name)), timer_record(scope, name)));
            }
        }
        for (ask, owed) in self.acks.iter().filter(|(_, owed)| is_wanted(&owed.plugin, &owed.address.key)) {
            let value =
                encode(&WireAsk { connection: owed.connection.to_bits(), tag: owed.tag.clone(), due_ms: owed.due_ms });
            records.push((field(&owed.plugin.name, &owed.address.key, &Subject::Ask(ask)), Some(value)));
        }
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_names_its_plugin_scope_and_subject() {
        let of_member = field("tickets", "ticket:1", &Subject::Member(ConnId::from_bits(256)));
        let Some(("tickets", "ticket:1", Subject::Member(connection))) = parse(&of_member) else { panic!() };
        assert_eq!(connection.to_bits(), 256);
        let of_timer = field("tickets", "ticket:1", &Subject::Timer("idle"));
        assert!(matches!(parse(&of_timer), Some(("tickets", "ticket:1", Subject::Timer("idle")))));
        assert!(matches!(parse(&field("chat", "c:1", &Subject::State)), Some(("chat", "c:1", Subject::State))));
        assert!(parse(b"zchat\0c:1\0").is_none() && parse(b"").is_none());
    }
}
