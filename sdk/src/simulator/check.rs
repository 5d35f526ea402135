//! What the host checks before it commits anything. In a test each of these is the author's mistake.

use std::collections::BTreeSet;

use serde::de::IgnoredAny;

use crate::template::Template;
use crate::{Audience, Audiences, Effect, Event, Manifest, Outcome, StateChange};

/// The host's limit on a scope's state.
const MAX_STATE_BYTES: usize = 64 * 1024;

/// Whether a manifest makes sense. What is wrong is said so that it can follow "the manifest of X".
pub(super) fn manifest(manifest: &Manifest) -> Result<(), String> {
    let n_chars = manifest.name.chars().count();
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !(1..=64).contains(&n_chars) || !manifest.name.chars().all(letters) {
        return Err("has a name that is not 1 to 64 lower-case letters, digits and hyphens".to_owned());
    }
    manifest.templates()?;
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
    let mut queries = BTreeSet::new();
    for query in manifest.scopes.iter().flat_map(|scope| &scope.queries).chain(&manifest.gathered) {
        if !queries.insert(query) {
            return Err(format!("names the query {query} twice"));
        }
    }
    Ok(())
}

/// Whether the host would commit this outcome.
pub(super) fn outcome(
    manifest: &Manifest,
    templates: &[Template],
    event: &Event,
    outcome: &Outcome,
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
    let host = Host { manifest, templates };
    outcome.effects.iter().try_for_each(|one| host.effect(one))
}

struct Host<'a> {
    manifest: &'a Manifest,
    templates: &'a [Template],
}

impl Host<'_> {
    fn effect(&self, effect: &Effect) -> Result<(), String> {
        match effect {
            Effect::Emit(emit) => {
                if !self.manifest.emits.contains(&emit.event) {
                    return Err(format!("it emits {:?}, which its manifest does not name", emit.event));
                }
                if emit.acknowledge.is_some() && !only_connections(&emit.to) {
                    return Err(format!("{}: only connections can be asked for an answer", emit.event));
                }
                arguments(&emit.event, &emit.payload.args)?;
                emit.to.0.iter().try_for_each(|audience| self.audience(audience))
            }
            Effect::Reply(payload) => arguments("a reply", &payload.args),
            Effect::Join(_, Some(room)) | Effect::Leave(_, Some(room)) => self.room(room),
            Effect::Save(..) => self.granted("the action", &self.manifest.needs.actions, "save"),
            Effect::Disconnect(..) => self.granted("the action", &self.manifest.needs.actions, "disconnect"),
            Effect::Join(_, None)
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

fn arguments(what: &str, args: &str) -> Result<(), String> {
    match serde_json::from_str::<Vec<IgnoredAny>>(args) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("the arguments of {what} are not a JSON array: {error}")),
    }
}
