//! Properties of the contract's checks that hold for whatever a component returns. The fuzz targets run these on a fuzzer's
//! bytes, and `wit/contract/tests/fuzzed.rs` on pseudo-random ones.

use std::collections::BTreeSet;

use roundhouse_contract::raw::{self, Effect, StateChange};
use roundhouse_contract::{Grants, Manifest, Rules, World, matches_pattern};

/// Values made of bytes: each choice takes some of them. After the last one all choices are the first.
#[derive(Debug)]
struct Bytes<'a>(&'a [u8]);

/// Names that rules tell apart.
const NAMES: [&str; 24] = [
    "a",
    "said",
    "told",
    "ticket:{id}",
    "ticket:{id}:{x}",
    "hall",
    "hall:x",
    "hall:*",
    "*",
    "",
    "user:ana",
    "user:{id}",
    "a b",
    "é",
    "x\u{200b}",
    "connect",
    "error",
    "1.0.0",
    "one",
    "durable",
    "volatile",
    "client",
    "service",
    "host",
];

/// Texts of payloads, timers and documents.
const TEXTS: [&str; 8] =
    ["[]", "[1]", "[[1,2]]", "{}", "[\"\\udc00\"]", "[{\"_placeholder\":true,\"num\":0}]", "null", "["];

impl Bytes<'_> {
    fn next(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() % end
    }

    fn text(&mut self) -> String {
        match self.below(8) {
            0 => {
                let n = self.below(40).min(self.0.len());
                let (text, rest) = self.0.split_at(n);
                self.0 = rest;
                String::from_utf8_lossy(text).into_owned()
            }
            1 => NAMES[self.below(NAMES.len())].repeat(self.next() * 8),
            _ => NAMES[self.below(NAMES.len())].to_owned(),
        }
    }

    fn json(&mut self) -> String {
        let n = self.below(TEXTS.len() + 1);
        TEXTS.get(n).map_or_else(|| self.text(), |text| (*text).to_owned())
    }

    fn list<T>(&mut self, most: usize, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let n = self.below(most + 1);
        (0..n).map(|_| item(self)).collect()
    }

    fn number(&mut self) -> u64 {
        let (low, shift) = (self.next() as u64, self.below(64));
        low << shift
    }

    fn option<T>(&mut self, some: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.below(2) == 1 { Some(some(self)) } else { None }
    }

    fn manifest(&mut self) -> raw::Manifest {
        raw::Manifest {
            name: self.text(),
            version: if self.below(4) == 0 { self.text() } else { "1.0.0".to_owned() },
            description: self.text(),
            state_version: self.next() as u32,
            scopes: self.list(4, |bytes| raw::Scope {
                template: bytes.text(),
                durability: bytes.text(),
                idle_ms: bytes.number(),
            }),
            routes: self.list(6, |bytes| raw::Route {
                event: bytes.text(),
                origins: bytes.list(3, Self::text),
                scope: bytes.text(),
            }),
            queries: self.list(3, |bytes| raw::Query { name: bytes.text(), scope: bytes.option(Self::text) }),
            emits: self.list(4, Self::text),
            needs: Grants {
                rooms: self.list(3, Self::text),
                audiences: self.list(3, Self::text),
                actions: self.list(3, Self::text),
            },
            extensions: self.list(3, |bytes| (bytes.text(), bytes.json())),
        }
    }

    fn payload(&mut self) -> raw::Payload {
        raw::Payload { args: self.json(), attachments: self.list(12, |bytes| vec![0; bytes.next()]) }
    }

    /// One of a few connections, or something else.
    fn connection(&mut self) -> String {
        match self.below(5) {
            0 => self.text(),
            n => n.to_string(),
        }
    }

    fn audience(&mut self) -> raw::Audience {
        match self.below(8) {
            0 => raw::Audience::User(self.text()),
            1 => raw::Audience::Users(self.list(3, Self::text)),
            2 => raw::Audience::Roles(self.list(3, Self::text)),
            3 => raw::Audience::All,
            4 => raw::Audience::Other(self.text()),
            5 => raw::Audience::Connection(self.connection()),
            _ => raw::Audience::Room(self.room()),
        }
    }

    fn room(&mut self) -> String {
        match self.below(3) {
            0 => ROOM.to_owned(),
            1 => format!("ticket:{}", self.text()),
            _ => self.text(),
        }
    }

    fn membership(&mut self) -> raw::Membership {
        raw::Membership { connection: self.connection(), room: self.option(Self::room) }
    }

    fn effect(&mut self) -> Effect<std::vec::IntoIter<raw::Audience>> {
        match self.below(13) {
            0 => Effect::Reply(self.payload()),
            1 => Effect::ReplyReached { field: self.text(), of: self.text() },
            2 => Effect::Join(self.membership()),
            3 => Effect::Leave(self.membership()),
            4 => Effect::Watch(self.connection()),
            5 => Effect::SetTimer(raw::SetTimer { name: self.text(), after_ms: self.number(), payload: self.json() }),
            6 => Effect::CancelTimer(self.text()),
            7 => Effect::Save(raw::Save {
                tag: self.text(),
                collection: self.text(),
                key: self.option(Self::text),
                document: self.json(),
            }),
            8 => Effect::Fetch(raw::Fetch {
                tag: self.text(),
                collection: self.text(),
                before: self.option(Self::text),
                limit: self.number() as u32,
            }),
            9 => Effect::Disconnect { connection: self.connection(), reason: self.text() },
            10 => Effect::Other(self.text(), self.json()),
            _ => Effect::Emit(raw::Emit {
                to: self.list(3, Self::audience).into_iter(),
                except: self.list(2, Self::audience).into_iter(),
                event: self.text(),
                payload: self.payload(),
                volatile: self.below(2) == 1,
                acknowledge: self.option(|bytes| (bytes.text(), bytes.number())),
            }),
        }
    }
}

/// A manifest that is accepted makes sense: what its parts refer to is there, and no scope takes another's keys. Returns whether it
/// is accepted.
pub fn manifest(data: &[u8]) -> bool {
    let raw = Bytes(data).manifest();
    let Ok(manifest) = Manifest::check(raw.clone()) else { return false };
    assert_eq!((&manifest.name, &manifest.version), (&raw.name, &raw.version));
    assert_eq!(manifest.scopes.len(), raw.scopes.len());
    let events: BTreeSet<_> = raw.routes.iter().map(|route| &route.event).collect();
    assert!(manifest.routes.iter().all(|(event, route)| events.contains(event) && route.scope < raw.scopes.len()));
    assert!(manifest.routes.values().all(|route| route.from_client || route.from_service));
    assert!(manifest.queries.values().flatten().all(|scope| *scope < raw.scopes.len()));
    assert!(manifest.emits.iter().all(|event| raw.emits.contains(event)));
    assert_eq!(manifest.needs.rooms.len(), raw.needs.rooms.iter().collect::<BTreeSet<_>>().len(), "{raw:?}");
    for (n, scope) in manifest.scopes.iter().enumerate() {
        let Ok(address) = scope.template.address(r#"{"id":"5","x":"6"}"#) else { continue };
        let (found, again) = manifest.scope_of_key(&address.key).expect("a scope has its own keys");
        assert_eq!((found.template.as_str(), &again), (manifest.scopes[n].template.as_str(), &address), "{raw:?}");
    }
    true
}

/// The room of the scope.
const ROOM: &str = "ticket:5";

/// The connections 1 to 4, of which 1 and 2 are known to the feature, and 1 has sent it something.
struct Four;

impl World for Four {
    type Connection = u8;

    fn connection(&self, id: &str) -> Option<u8> {
        id.parse().ok().filter(|id| (1..=4).contains(id))
    }

    fn is_known(&self, connection: u8) -> bool {
        connection <= 2
    }

    fn has_come(&self, connection: u8) -> bool {
        connection == 1
    }
}

fn feature(is_rich: bool) -> Manifest {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let needs = if is_rich {
        Grants {
            rooms: texts(&["hall", "hall:*"]),
            audiences: texts(&["user", "roles", "all"]),
            actions: texts(&["save", "disconnect"]),
        }
    } else {
        Grants::default()
    };
    let manifest = raw::Manifest {
        name: "fuzzed".to_owned(),
        version: "1.0.0".to_owned(),
        scopes: vec![raw::Scope {
            template: "ticket:{id}".to_owned(),
            durability: "volatile".to_owned(),
            idle_ms: 60_000,
        }],
        emits: texts(&["said", "told"]),
        needs,
        ..raw::Manifest::default()
    };
    Manifest::check(manifest).expect("the manifest keeps all rules")
}

/// What an outcome's effects may be at most, by the contract's text and not by the code that checks it.
fn is_lawful(effect: &Effect<std::vec::IntoIter<raw::Audience>>, is_rich: bool) -> bool {
    // The world reads ids as numbers.
    let known = |id: &str| matches!(id.parse(), Ok(1_u8 | 2));
    let room = |room: &str| {
        room.starts_with("ticket:") || (is_rich && ["hall", "hall:*"].iter().any(|known| matches_pattern(known, room)))
    };
    let audience = |audience: raw::Audience| match audience {
        raw::Audience::Room(name) => room(&name) || (is_rich && name.starts_with("user:")),
        raw::Audience::Connection(id) => known(&id),
        raw::Audience::Other(_) => false,
        _ => is_rich,
    };
    match effect {
        Effect::Emit(emit) => {
            ["said", "told"].contains(&emit.event.as_str())
                && emit.to.clone().all(audience)
                && emit.acknowledge.as_ref().is_none_or(|(tag, ms)| tag.len() <= 1024 && *ms <= 600_000)
        }
        Effect::Reply(payload) => payload.attachments.len() <= 10,
        Effect::ReplyReached { of, .. } => of == "connections" || of == "users",
        Effect::Join(membership) => known(&membership.connection) && membership.room.as_deref().is_none_or(room),
        Effect::Leave(membership) => membership.room.as_deref().is_none_or(room),
        Effect::Watch(id) => known(id),
        Effect::SetTimer(timer) => timer.after_ms <= 31 * 24 * 3_600_000 && timer.name.len() <= 1024,
        Effect::CancelTimer(_) => true,
        Effect::Save(_) => is_rich,
        Effect::Fetch(fetch) => is_rich && (1..=1000).contains(&fetch.limit),
        Effect::Disconnect { connection, .. } => is_rich && known(connection),
        Effect::Other(kind, _) => kind == "refuse",
    }
}

/// An outcome is taken as a whole or not at all: where it is taken, each of its effects is lawful, none is lost, and a query
/// only replies. Returns whether it is taken.
pub fn outcome(data: &[u8]) -> bool {
    let mut bytes = Bytes(data);
    let (is_rich, is_query) = (bytes.below(2) == 1, bytes.below(4) == 0);
    let effects = bytes.list(6, Bytes::effect);
    let state = match bytes.below(3) {
        0 => StateChange::Keep,
        1 => StateChange::Clear,
        _ => StateChange::Put(vec![0; bytes.next()]),
    };
    let manifest = feature(is_rich);
    let rules =
        Rules { manifest: &manifest, room: ROOM, max_state_bytes: 100, is_query, is_admission: false, world: Four };
    let checked = rules.check(effects.clone().into_iter(), state.clone(), |effect| effect);
    let Ok((taken, new, _)) = checked else { return false };
    assert_eq!((taken.len(), &new), (effects.len(), &state), "{effects:?}");
    assert!(effects.iter().all(|effect| is_lawful(effect, is_rich)), "{effects:?}");
    let is_reply = |effect: &&_| matches!(effect, Effect::Reply(_) | Effect::ReplyReached { .. });
    assert!(effects.iter().filter(is_reply).count() <= 1, "{effects:?}");
    assert!(effects.iter().filter(|effect| matches!(effect, Effect::Fetch(_))).count() <= 1, "{effects:?}");
    assert!(!is_query || (new == StateChange::Keep && effects.iter().all(|effect| matches!(effect, Effect::Reply(_)))));
    assert!(!matches!(new, StateChange::Put(state) if state.len() > 100));
    true
}
