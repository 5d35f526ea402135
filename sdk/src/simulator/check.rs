//! What the host checks before it commits anything. In a test each of these is the author's mistake.

use std::collections::{BTreeMap, BTreeSet};

use super::placeholders;
use super::world::At;
use crate::manifest::CONNECT;
use crate::template::Template;
use crate::{Audience, Audiences, Effect, Event, Manifest, Outcome, Payload, Scope, StateChange};

/// The host's limit on a scope's state.
const MAX_STATE_BYTES: usize = 64 * 1024;

/// The host's limit on the effects of one event.
const MAX_EFFECTS: usize = 1000;

/// The host's limit on the bytes of one event's effects.
const MAX_EFFECT_BYTES: usize = 1024 * 1024;

/// The host's limit on a scope's timers.
const MAX_TIMERS: usize = 1000;

/// The host's limit on the bytes of a name, a tag or a key.
const MAX_NAME_BYTES: usize = 1024;

/// The host's limit on the documents of one fetch.
const MAX_FETCH: u32 = 1000;

/// The host's limit on the namespaces of a manifest.
const MAX_NAMESPACES: usize = 32;

/// The host's limit on the characters of a namespace.
const MAX_NAMESPACE_CHARS: usize = 128;

/// Whether a manifest makes sense. What is wrong is said so that it can follow "the manifest of X".
pub(super) fn manifest(manifest: &Manifest) -> Result<(), String> {
    let n_chars = manifest.name.chars().count();
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !(1..=64).contains(&n_chars) || !manifest.name.chars().all(letters) {
        return Err("has a name that is not 1 to 64 lower-case letters, digits and hyphens".to_owned());
    }
    let mut prefixes = BTreeSet::new();
    for template in manifest.templates()? {
        if !prefixes.insert(template.prefix.clone()) {
            return Err(format!("has two scopes that begin with {:?}", template.prefix));
        }
    }
    let mut events = BTreeSet::new();
    for route in manifest.scopes.iter().flat_map(|scope| &scope.routes) {
        if !events.insert(&route.event) {
            return Err(format!("routes {} twice", route.event));
        }
    }
    manifest.scopes.iter().try_for_each(connect)?;
    namespaces(&manifest.namespaces)?;
    if let Some(version) = manifest.migrates_down_to.iter().find(|version| **version >= manifest.state_version) {
        let own = manifest.state_version;
        return Err(format!("migrates down to schema version {version}, which is not older than its own, {own}"));
    }
    let mut queries = BTreeSet::new();
    for query in manifest.scopes.iter().flat_map(|scope| &scope.queries).chain(&manifest.gathered) {
        if !queries.insert(query) {
            return Err(format!("names the query {query} twice"));
        }
    }
    Ok(())
}

/// Whether a scope routes `connect` as it may be.
fn connect(scope: &Scope) -> Result<(), String> {
    let Some(route) = scope.routes.iter().find(|route| route.event == CONNECT) else { return Ok(()) };
    if !route.from_host || route.from_clients || route.from_services {
        return Err("routes connect, which the host alone sends: declare it by on_connect".to_owned());
    }
    if scope.template.contains('{') {
        return Err(format!("is told of connections in the scope {:?}, which has a placeholder", scope.template));
    }
    Ok(())
}

fn namespaces(names: &[String]) -> Result<(), String> {
    let is_name = |name: &String| {
        let ends = |c: char| matches!(c, ',' | '?') || c.is_whitespace() || c.is_control();
        name.starts_with('/') && (2..=MAX_NAMESPACE_CHARS).contains(&name.chars().count()) && !name.contains(ends)
    };
    if let Some(name) = names.iter().find(|name| !is_name(name)) {
        return Err(format!("names the namespace {name:?}, which must be a slash and 1 to 127 characters of a name"));
    }
    let n = names.iter().collect::<BTreeSet<_>>().len();
    if n > MAX_NAMESPACES {
        return Err(format!("names {n} namespaces, more than {MAX_NAMESPACES}"));
    }
    Ok(())
}

/// Whether the host would commit this outcome.
pub(super) fn outcome(
    manifest: &Manifest,
    templates: &[Template],
    event: &Event,
    outcome: &Outcome,
    timers: Option<&BTreeMap<String, At>>,
) -> Result<(), String> {
    if matches!(event, Event::Query(_) | Event::Gathered(..)) {
        let only_replies = outcome.effects.iter().all(|effect| matches!(effect, Effect::Reply(_)));
        if !only_replies || outcome.state != StateChange::Keep {
            return Err("a query may only reply".to_owned());
        }
    }
    if let StateChange::Put(bytes) = &outcome.state
        && bytes.len() > MAX_STATE_BYTES
    {
        return Err(format!("its state has {} bytes, more than {MAX_STATE_BYTES}", bytes.len()));
    }
    let bytes: usize = outcome.effects.iter().map(bytes).sum();
    if outcome.effects.len() > MAX_EFFECTS || bytes > MAX_EFFECT_BYTES {
        let n = outcome.effects.len();
        return Err(format!("{n} effects of {bytes} bytes are more than {MAX_EFFECTS} or {MAX_EFFECT_BYTES} bytes"));
    }
    let count = |what: fn(&Effect) -> bool| outcome.effects.iter().filter(|effect| what(effect)).count();
    if count(|effect| matches!(effect, Effect::Reply(_) | Effect::ReplyReached(..))) > 1 {
        return Err("it replies twice".to_owned());
    }
    if count(|effect| matches!(effect, Effect::Fetch(_))) > 1 {
        return Err("it fetches twice".to_owned());
    }
    check_timers(&outcome.effects, timers)?;
    let host = Host { manifest, templates };
    outcome.effects.iter().try_for_each(|one| host.effect(one))
}

fn check_timers(effects: &[Effect], before: Option<&BTreeMap<String, At>>) -> Result<(), String> {
    let mut timers: BTreeSet<&str> = before.into_iter().flat_map(BTreeMap::keys).map(String::as_str).collect();
    for effect in effects {
        match effect {
            Effect::SetTimer(name, ..) => drop(timers.insert(name)),
            Effect::CancelTimer(name) => drop(timers.remove(name.as_str())),
            _ => {}
        }
    }
    if timers.len() > MAX_TIMERS {
        return Err(format!("the scope would have {} timers, more than {MAX_TIMERS}", timers.len()));
    }
    Ok(())
}

/// What an effect counts towards the limit.
fn bytes(effect: &Effect) -> usize {
    match effect {
        Effect::Emit(emit) => {
            emit.event.len() + payload_bytes(&emit.payload) + emit.to.0.iter().map(named).sum::<usize>()
        }
        Effect::Reply(payload) => payload_bytes(payload),
        Effect::SetTimer(name, _, payload) => name.len() + payload.len(),
        Effect::Save(save) => {
            save.tag.len() + save.collection.len() + save.key.as_ref().map_or(0, String::len) + save.document.len()
        }
        _ => 0,
    }
}

/// The names, tags and keys that an effect gives.
fn names(effect: &Effect) -> Vec<&str> {
    match effect {
        Effect::Emit(emit) => emit.acknowledge.iter().map(|(tag, _)| tag.as_str()).collect(),
        Effect::SetTimer(name, ..) => vec![name],
        Effect::Save(save) => [&save.tag].into_iter().chain(&save.key).map(String::as_str).collect(),
        Effect::Fetch(fetch) => vec![&fetch.tag],
        _ => Vec::new(),
    }
}

fn payload_bytes(payload: &Payload) -> usize {
    payload.args.len() + payload.attachments.iter().map(Vec::len).sum::<usize>()
}

fn named(audience: &Audience) -> usize {
    match audience {
        Audience::Room(name) | Audience::User(name) => name.len(),
        Audience::Users(names) | Audience::Roles(names) => names.iter().map(String::len).sum(),
        Audience::Connection(_) | Audience::All => 0,
    }
}

struct Host<'a> {
    manifest: &'a Manifest,
    templates: &'a [Template],
}

impl Host<'_> {
    fn effect(&self, effect: &Effect) -> Result<(), String> {
        for name in names(effect) {
            if name.len() > MAX_NAME_BYTES {
                return Err(format!("it uses a name of {} bytes, more than {MAX_NAME_BYTES}", name.len()));
            }
        }
        match effect {
            Effect::Emit(emit) => {
                if !self.manifest.emits.contains(&emit.event) {
                    return Err(format!("it emits {:?}, which its manifest does not name", emit.event));
                }
                if emit.acknowledge.is_some() && !only_connections(&emit.to) {
                    return Err(format!("{}: only connections can be asked for an answer", emit.event));
                }
                arguments(&emit.event, &emit.payload)?;
                emit.to.0.iter().try_for_each(|audience| self.audience(audience))
            }
            Effect::Reply(payload) => arguments("a reply", payload),
            Effect::Join(_, Some(room)) | Effect::Leave(_, Some(room)) => self.room(room),
            Effect::Save(_) => self.granted("the action", &self.manifest.needs.actions, "save"),
            Effect::Fetch(fetch) if !(1..=MAX_FETCH).contains(&fetch.limit) => {
                Err(format!("it fetches {} documents, and it may be 1 to {MAX_FETCH}", fetch.limit))
            }
            Effect::Fetch(_) => self.granted("the action", &self.manifest.needs.actions, "save"),
            Effect::Disconnect(..) => self.granted("the action", &self.manifest.needs.actions, "disconnect"),
            Effect::ReplyReached(..)
            | Effect::Join(_, None)
            | Effect::Leave(_, None)
            | Effect::Watch(_)
            | Effect::SetTimer(..)
            | Effect::CancelTimer(_) => Ok(()),
        }
    }

    fn audience(&self, audience: &Audience) -> Result<(), String> {
        let wider = &self.manifest.needs.audiences;
        match audience {
            Audience::Room(room) => self.room(room),
            Audience::User(_) | Audience::Users(_) => self.granted("the audience", wider, "user"),
            Audience::Roles(_) => self.granted("the audience", wider, "roles"),
            Audience::All => self.granted("the audience", wider, "all"),
            Audience::Connection(_) => Ok(()),
        }
    }

    fn room(&self, room: &str) -> Result<(), String> {
        let own = self.templates.iter().any(|template| room.starts_with(&template.prefix));
        let named = self.manifest.needs.rooms.iter().any(|named| match named.strip_suffix('*') {
            Some(prefix) => room.starts_with(prefix),
            None => room == named,
        });
        if own || named { Ok(()) } else { Err(format!("it uses the room {room:?}, which its manifest does not need")) }
    }

    fn granted(&self, kind: &str, needs: &[String], name: &str) -> Result<(), String> {
        if needs.iter().any(|need| need == name) {
            Ok(())
        } else {
            Err(format!("it uses {kind} {name:?}, which its manifest does not need"))
        }
    }
}

fn only_connections(audiences: &Audiences) -> bool {
    audiences.0.iter().all(|audience| matches!(audience, Audience::Connection(_)))
}

fn arguments(what: &str, payload: &Payload) -> Result<(), String> {
    placeholders::check(payload).map_err(|why| format!("the arguments of {what} {why}"))
}

#[cfg(test)]
mod tests {
    use super::manifest;
    use crate::{Manifest, Scope};

    fn lobby(scope: Scope) -> Manifest {
        Manifest::new("lobby", "1.0.0", "").scope(scope)
    }

    #[test]
    fn connections_are_told_of_in_a_scope_without_placeholder() {
        assert_eq!(manifest(&lobby(Scope::volatile("lobby").on_connect().from_clients(["say"]))), Ok(()));
        for (scope, message) in [
            (Scope::volatile("room:{roomId}").on_connect(), "has a placeholder"),
            (Scope::volatile("lobby").on_connect().on_connect(), "routes connect twice"),
            (Scope::volatile("lobby").from_clients(["connect"]), "declare it by on_connect"),
            (Scope::volatile("lobby").from_services(["connect"]), "declare it by on_connect"),
        ] {
            let said = manifest(&lobby(scope)).expect_err(message);
            assert!(said.ends_with(message), "{said}");
        }
    }

    #[test]
    fn namespaces_have_names_that_the_host_takes() {
        let named = |names: &[&str]| manifest(&lobby(Scope::volatile("lobby")).namespaces(names.iter().copied()));
        assert_eq!(named(&["/custom", "/chat/new", "/custom"]), Ok(()));
        let long = format!("/{}", "n".repeat(128));
        for bad in ["", "/", "custom", "/a,b", "/a?b", "/a b", "/a\n", &long] {
            assert!(named(&[bad]).unwrap_err().contains(&format!("{bad:?}")), "{bad:?}");
        }
        let many: Vec<String> = (0..33).map(|n| format!("/{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(named(&many).unwrap_err().ends_with("33 namespaces, more than 32"));
        assert_eq!(named(&many[1..]), Ok(()));
    }
}
