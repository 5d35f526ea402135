//! The edge of a component: the contract's types on one side, the SDK's on the other. Each crosses here, once.

use std::marker::PhantomData;

use crate::bindings as wit;
use crate::bindings::roundhouse::feature::{effects, events, manifest, types};
use crate::{
    Acknowledgement, Answers, Audience, Audiences, Call, Document, Effect, Event, Failure, Feature, Fetched, Identity,
    LeaveReason, Manifest, Member, Message, Outcome, Page, Payload, Query, Saved, Scope, Sender, StateChange,
    StoreFailure, Timer, dispatch,
};

/// A feature as the contract's world sees it. [`export!`](crate::export) makes it a component.
#[derive(Debug)]
pub struct Component<F>(PhantomData<F>);

impl<F: Feature> wit::Guest for Component<F> {
    fn describe() -> manifest::Manifest {
        F::describe().into()
    }

    fn handle(
        context: events::Context,
        event: events::Event,
        state: Option<Vec<u8>>,
    ) -> Result<effects::Outcome, types::Failure> {
        dispatch::handle::<F>(context.into(), event.into(), state.as_deref()).map(Into::into).map_err(Into::into)
    }

    fn migrate(from_version: u32, state: Vec<u8>) -> Result<Vec<u8>, types::Failure> {
        dispatch::migrate::<F>(from_version, &state).map_err(Into::into)
    }
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
            events::Event::Other((name, data)) => Self::Other(name, data),
        }
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
        let routes = manifest.scopes.iter().flat_map(routes).collect();
        let asked = manifest.scopes.iter().flat_map(|scope| {
            scope.queries.iter().map(|name| manifest::Query { name: name.clone(), scope: Some(scope.template.clone()) })
        });
        let gathered = manifest.gathered.iter().map(|name| manifest::Query { name: name.clone(), scope: None });
        let queries = asked.chain(gathered).collect();
        let extensions = extensions(&manifest.namespaces, &manifest.migrates_down_to);
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

/// A host that does not know an extension refuses a component that asks for it.
fn extensions(namespaces: &[String], migrates_down_to: &[u32]) -> Vec<(String, String)> {
    let named = (!namespaces.is_empty()).then(|| ("socketio-namespaces", serde_json::json!(namespaces)));
    let down = (!migrates_down_to.is_empty()).then(|| ("migrate-down", serde_json::json!(migrates_down_to)));
    named.into_iter().chain(down).map(|(name, value)| (name.to_owned(), value.to_string())).collect()
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
