//! The edge of a component: conversions between the contract's types and the SDK's, each in one place.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::bindings as wit;
use crate::bindings::roundhouse::feature::{effects, events, manifest, types};
use crate::manifest::CONNECT;
use crate::{
    Acknowledgement, Answers, Audience, Audiences, Call, Document, Effect, Event, Failure, Feature, Fetched, Identity,
    LeaveReason, Manifest, Member, Message, Outcome, Page, Payload, Query, Saved, Scope, Sender, StateChange,
    StoreFailure, Timer, dispatch, warm::Warm,
};

/// The effect that refuses a connection.
const REFUSE: &str = "refuse";

/// A feature that [`export!`](crate::export) has made a component.
pub trait Exported: Feature {
    /// Passes the state that the instance keeps between events to `body`.
    fn with_warm<R>(body: impl FnOnce(&mut Option<Warm<Self::Settings>>) -> R) -> R;
}

/// A feature as the contract's world sees it.
#[derive(Debug)]
pub struct Component<F>(PhantomData<F>);

impl<F: Exported> wit::Guest for Component<F> {
    fn describe() -> manifest::Manifest {
        F::describe().into()
    }

    fn handle(
        context: events::Context,
        event: events::Event,
        state: Option<Vec<u8>>,
    ) -> Result<effects::Outcome, types::Failure> {
        let is_admission = is_admission(&event);
        let handled =
            F::with_warm(|warm| dispatch::handle_warm::<F>(warm, context.into(), event.into(), state.as_deref()));
        match handled.as_ref().err().filter(|_| is_admission).and_then(Failure::connect_refusal) {
            Some(refusal) => Ok(effects::Outcome {
                effects: vec![effects::Effect::Other((REFUSE.to_owned(), refusal))],
                state: effects::StateChange::Keep,
            }),
            None => handled.map(Into::into).map_err(Into::into),
        }
    }

    fn migrate(from_version: u32, state: Vec<u8>) -> Result<Vec<u8>, types::Failure> {
        dispatch::migrate::<F>(from_version, &state).map_err(Into::into)
    }
}

/// Whether the host asks whether a connection may open.
fn is_admission(event: &events::Event) -> bool {
    matches!(event, events::Event::Message(message) if message.wants_reply && message.event == CONNECT)
}

impl From<Failure> for types::Failure {
    fn from(failure: Failure) -> Self {
        Self { code: failure.code, message: failure.message }
    }
}

impl From<types::Payload> for Payload {
    fn from(payload: types::Payload) -> Self {
        Self { args: payload.args, attachments: payload.attachments }
    }
}

impl From<Payload> for types::Payload {
    fn from(payload: Payload) -> Self {
        Self { args: payload.args, attachments: payload.attachments }
    }
}

impl From<types::Member> for Member {
    fn from(member: types::Member) -> Self {
        let identity = member.identity;
        Self {
            connection: member.connection,
            identity: Identity {
                user_id: identity.user_id,
                name: identity.name,
                roles: identity.roles,
                claims: identity.claims,
            },
        }
    }
}

impl From<events::Origin> for Sender {
    fn from(origin: events::Origin) -> Self {
        match origin {
            events::Origin::Client(member) => Self::Client(member.into()),
            events::Origin::Service(name) => Self::Service(name),
            events::Origin::Other((kind, data)) => Self::Other(kind, data),
        }
    }
}

impl From<events::Context> for Call {
    fn from(context: events::Context) -> Self {
        Self {
            now: context.now,
            seed: context.seed,
            sequence: context.sequence,
            scope: context.scope,
            params: context.params,
            room_connections: context.room_connections,
            room_users: context.room_users,
            connection_in_room: context.connection_in_room,
            user_connections: context.user_connections,
            settings: context.settings,
        }
    }
}

impl From<events::Event> for Event {
    fn from(event: events::Event) -> Self {
        match event {
            events::Event::Message(message) => Self::Message(Message {
                event: message.event,
                sender: message.origin.into(),
                payload: message.payload.into(),
                wants_reply: message.wants_reply,
            }),
            events::Event::Joined(member) => Self::Joined(member.into()),
            events::Event::Left(departure) => {
                let reason = match departure.reason.as_str() {
                    "left" => LeaveReason::Left,
                    _ => LeaveReason::Disconnected,
                };
                Self::Left(departure.member.into(), reason)
            }
            events::Event::Timer(timer) => {
                Self::Timer(Timer { name: timer.name, payload: timer.payload, due: timer.due })
            }
            events::Event::Acknowledgement(acknowledgement) => Self::Acknowledgement(Acknowledgement {
                tag: acknowledgement.tag,
                connection: acknowledgement.connection,
                answer: match acknowledgement.answer {
                    events::Answer::Given(payload) => Ok(payload.into()),
                    events::Answer::Missing(reason) => Err(Failure::unanswered(reason)),
                },
            }),
            events::Event::Query(query) => Self::Query(Query { name: query.name, data: query.data }),
            events::Event::Gathered(gathered) => Self::Gathered(
                Query { name: gathered.name, data: gathered.data },
                Answers { texts: gathered.answers, omitted: gathered.omitted },
            ),
            events::Event::Saved(saved) => Self::Saved(Saved {
                tag: saved.tag,
                collection: saved.collection,
                text: saved.document,
                restored: saved.restored,
                outcome: match saved.outcome {
                    events::SaveOutcome::Stored(id) => Ok(id),
                    events::SaveOutcome::Failed(why) => Err(why.into()),
                },
            }),
            events::Event::Fetched(fetched) => Self::Fetched(Fetched {
                tag: fetched.tag,
                outcome: match fetched.outcome {
                    events::FetchOutcome::Page(page) => Ok(page.into()),
                    events::FetchOutcome::Failed(why) => Err(why.into()),
                },
            }),
            events::Event::Other((name, data)) => later(name, data),
        }
    }
}

/// An event that was added after the contract's release, and therefore is not a case of its variant.
fn later(name: String, data: String) -> Event {
    let kind: fn(Member) -> Event = match name.as_str() {
        "away" => Event::Away,
        "back" => Event::Back,
        _ => return Event::Other(name, data),
    };
    match serde_json::from_str::<Concerned>(&data) {
        Ok(concerned) => kind(concerned.into()),
        Err(_) => Event::Other(name, data),
    }
}

/// The data of an event that was added later: a member.
#[derive(Deserialize)]
struct Concerned {
    connection: String,
    identity: ConcernedIdentity,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConcernedIdentity {
    user_id: String,
    name: Option<String>,
    roles: Vec<String>,
    claims: Box<RawValue>,
}

impl From<Concerned> for Member {
    fn from(concerned: Concerned) -> Self {
        let ConcernedIdentity { user_id, name, roles, claims } = concerned.identity;
        let identity = Identity { user_id, name, roles, claims: claims.get().to_owned() };
        Self { connection: concerned.connection, identity }
    }
}

impl From<events::StoreFailure> for StoreFailure {
    fn from(why: events::StoreFailure) -> Self {
        Self { failure: Failure::new(why.code, why.message), retryable: why.retryable }
    }
}

impl From<events::Page> for Page {
    fn from(page: events::Page) -> Self {
        let documents = page.documents.into_iter().map(|document| Document { id: document.id, text: document.body });
        Self { documents: documents.collect(), has_more: page.has_more }
    }
}

impl From<Audience> for effects::Audience {
    fn from(audience: Audience) -> Self {
        match audience {
            Audience::Room(name) => Self::Room(name),
            Audience::User(id) => Self::User(id),
            Audience::Users(ids) => Self::Users(ids),
            Audience::Roles(roles) => Self::Roles(roles),
            Audience::Connection(id) => Self::Connection(id),
            Audience::All => Self::All,
        }
    }
}

fn audiences(audiences: Audiences) -> Vec<effects::Audience> {
    audiences.0.into_iter().map(Into::into).collect()
}

impl From<Effect> for effects::Effect {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::Emit(emit) => Self::Emit(effects::Emit {
                to: audiences(emit.to),
                except: audiences(emit.except),
                event: emit.event,
                payload: emit.payload.into(),
                volatile: emit.volatile,
                acknowledge: emit.acknowledge.map(|(tag, timeout_ms)| effects::Acknowledge { tag, timeout_ms }),
            }),
            Effect::Reply(payload) => Self::Reply(payload.into()),
            Effect::ReplyReached(field, of) => {
                Self::ReplyReached(effects::Reached { field, of: of.as_str().to_owned() })
            }
            Effect::Join(connection, room) => Self::Join(effects::Membership { connection, room }),
            Effect::Leave(connection, room) => Self::Leave(effects::Membership { connection, room }),
            Effect::Watch(connection) => Self::Watch(connection),
            Effect::SetTimer(name, after_ms, payload) => Self::SetTimer(effects::SetTimer { name, after_ms, payload }),
            Effect::CancelTimer(name) => Self::CancelTimer(name),
            Effect::Save(save) => Self::Save(effects::Save {
                tag: save.tag,
                collection: save.collection,
                key: save.key,
                document: save.document,
            }),
            Effect::Fetch(fetch) => Self::Fetch(effects::Fetch {
                tag: fetch.tag,
                collection: fetch.collection,
                before: fetch.before,
                limit: fetch.limit,
            }),
            Effect::Disconnect(connection, reason) => Self::Disconnect(effects::Disconnect { connection, reason }),
        }
    }
}

impl From<Outcome> for effects::Outcome {
    fn from(outcome: Outcome) -> Self {
        Self {
            effects: outcome.effects.into_iter().map(Into::into).collect(),
            state: match outcome.state {
                StateChange::Keep => effects::StateChange::Keep,
                StateChange::Put(bytes) => effects::StateChange::Put(bytes),
                StateChange::Clear => effects::StateChange::Clear,
            },
        }
    }
}

impl From<Manifest> for manifest::Manifest {
    fn from(manifest: Manifest) -> Self {
        let extensions = extensions(&manifest);
        let routes = manifest.scopes.iter().flat_map(routes).collect();
        let asked = manifest.scopes.iter().flat_map(|scope| {
            scope.queries.iter().map(|name| manifest::Query { name: name.clone(), scope: Some(scope.template.clone()) })
        });
        let gathered = manifest.gathered.iter().map(|name| manifest::Query { name: name.clone(), scope: None });
        let queries = asked.chain(gathered).collect();
        Self {
            name: manifest.name,
            version: manifest.version,
            description: manifest.description,
            state_version: manifest.state_version,
            scopes: manifest.scopes.into_iter().map(Into::into).collect(),
            routes,
            queries,
            emits: manifest.emits,
            needs: manifest::Needs {
                rooms: manifest.needs.rooms,
                audiences: manifest.needs.audiences,
                actions: manifest.needs.actions,
            },
            extensions,
        }
    }
}

/// Extensions: demands beyond the fields of the contract. A host refuses a component with an extension that it does not
/// know.
fn extensions(manifest: &Manifest) -> Vec<(String, String)> {
    let presence: Vec<_> = manifest.scopes.iter().filter(|scope| scope.presence).map(|scope| &scope.template).collect();
    let admits = manifest.scopes.iter().any(|scope| scope.admits);
    let routes = manifest.scopes.iter().flat_map(|scope| &scope.routes).filter(|route| !route.roles.is_empty());
    let permissions: BTreeMap<_, _> =
        routes.map(|route| (&route.event, serde_json::json!({ "roles": route.roles }))).collect();
    let limits = manifest.event_limits();
    [
        ("event-limits", limits.is_empty(), serde_json::json!(limits)),
        ("socketio-namespaces", manifest.namespaces.is_empty(), serde_json::json!(manifest.namespaces)),
        ("presence", presence.is_empty(), serde_json::json!(presence)),
        ("connect-admission", !admits, serde_json::json!(admits)),
        ("permissions", permissions.is_empty(), serde_json::json!(permissions)),
        ("migrate-down", manifest.migrates_down_to.is_empty(), serde_json::json!(manifest.migrates_down_to)),
        ("partial-migration", !manifest.migrates_partially, serde_json::json!(manifest.migrates_partially)),
    ]
    .into_iter()
    .filter(|(_, is_empty, _)| !is_empty)
    .map(|(extension, _, value)| (extension.to_owned(), value.to_string()))
    .collect()
}

impl From<Scope> for manifest::Scope {
    fn from(scope: Scope) -> Self {
        Self {
            durability: if scope.durable { "durable" } else { "volatile" }.to_owned(),
            idle_ms: u64::try_from(scope.idle.as_millis()).unwrap_or(u64::MAX),
            template: scope.template,
        }
    }
}

fn routes(scope: &Scope) -> impl Iterator<Item = manifest::Route> {
    scope.routes.iter().map(|route| {
        let origins = [("client", route.from_clients), ("service", route.from_services), ("host", route.from_host)];
        manifest::Route {
            event: route.event.clone(),
            origins: origins.iter().filter(|(_, may)| *may).map(|(origin, _)| (*origin).to_owned()).collect(),
            scope: scope.template.clone(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EventLimits;

    #[test]
    fn away_and_back_carry_the_member() {
        let data =
            r#"{"connection":"c1","identity":{"userId":"ana","name":null,"roles":["agent"],"claims":{"team":1}}}"#;
        let identity = Identity {
            user_id: "ana".to_owned(),
            name: None,
            roles: vec!["agent".to_owned()],
            claims: r#"{"team":1}"#.to_owned(),
        };
        let member = Member { connection: "c1".to_owned(), identity };
        let told = |name: &str, data: &str| Event::from(events::Event::Other((name.to_owned(), data.to_owned())));
        assert_eq!(told("away", data), Event::Away(member.clone()));
        assert_eq!(told("back", data), Event::Back(member));
        for (name, data) in [("back", "null"), ("configured", "null")] {
            assert_eq!(told(name, data), Event::Other(name.to_owned(), data.to_owned()));
        }
    }

    #[test]
    fn on_away_adds_the_presence_extension() {
        let door = || Manifest::new("door", "1.0.0", "").limits(EventLimits::of_host());
        let manifest = |scope| manifest::Manifest::from(door().scope(scope));
        assert!(manifest(Scope::volatile("door:{id}")).extensions.is_empty());
        let asked = manifest(Scope::volatile("door:{id}").on_away()).extensions;
        assert_eq!(asked, [("presence".to_owned(), r#"["door:{id}"]"#.to_owned())]);
    }

    #[test]
    fn event_limits_become_an_extension() {
        let scope = Scope::volatile("door:{id}").from_clients(["knock", "ring"]).from_services(["open"]);
        let door = Manifest::new("door", "1.0.0", "").scope(scope.limits(["ring"], EventLimits::of_host().depth(2)));
        let asked = |door: Manifest| manifest::Manifest::from(door).extensions;
        let (name, value) = asked(door.clone()).remove(0);
        assert_eq!(name, "event-limits");
        let others = r#"{"*":{"bytes":65536,"depth":16,"keys":1024,"values":1024},"#;
        assert_eq!(value, format!(r#"{others}"open":{{}},"ring":{{"depth":2}}}}"#));
        let (_, value) = asked(door.limits(EventLimits::of_host())).remove(0);
        assert_eq!(value, r#"{"ring":{"depth":2}}"#);
    }
}
