//! Events of the host's model, lent to a component for one call.

use roundhouse_contract::ConnectRefusal;
use serde_json::json;
use serde_json::value::RawValue;

use super::bindings::roundhouse::feature::effects::StateChange;
use super::bindings::roundhouse::feature::{events as wit, types};
use super::bindings::{self, Context};
use crate::model::{ErrorCode, Failure, Payload};
use crate::plugin::event::{Event, Member, Origin};
use crate::store::{Outcome, StoreFailure};

/// Calls `call` with the WIT form of an event.
pub(crate) fn lend<T>(event: &Event, call: impl FnOnce(wit::Event<'_>) -> T) -> T {
    match event {
        Event::Message { event, origin, payload, wants_reply, .. } => {
            let attachments = attachments(payload);
            let payload = types::PayloadParam { args: payload.args(), attachments: &attachments };
            let wants_reply = *wants_reply;
            match origin {
                Origin::Client(member) | Origin::Host(member) => lend_member(member, |member| {
                    let origin = wit::Origin::Client(member);
                    call(wit::Event::Message(wit::Message { event, origin, payload, wants_reply }))
                }),
                Origin::Service(name) => {
                    let origin = wit::Origin::Service(name);
                    call(wit::Event::Message(wit::Message { event, origin, payload, wants_reply }))
                }
            }
        }
        Event::Joined(member) => lend_member(member, |member| call(wit::Event::Joined(member))),
        Event::Left { member, reason, .. } => {
            lend_member(member, |member| call(wit::Event::Left(wit::Departure { member, reason: reason.as_str() })))
        }
        // Presence was added after the contract's release 1.0, so it has no case of its own there.
        Event::Presence { member, .. } => {
            let data = member_json(member);
            call(wit::Event::Other((event.name(), &data)))
        }
        Event::Timer { name, payload, due_ms } => call(wit::Event::Timer(wit::Timer { name, payload, due: *due_ms })),
        Event::Acknowledged { tag, connection, answer, .. } => {
            let connection = connection.to_string();
            let attachments = answer.as_ref().map(attachments).unwrap_or_default();
            let answer = match answer {
                Ok(payload) => {
                    wit::Answer::Given(types::PayloadParam { args: payload.args(), attachments: &attachments })
                }
                Err(reason) => wit::Answer::Missing(reason.as_str()),
            };
            call(wit::Event::Acknowledgement(wit::Acknowledgement { tag, connection: &connection, answer }))
        }
        Event::Query { name, data, .. } => call(wit::Event::Query(wit::Query { name, data })),
        Event::Gathered { name, data, answers, omitted } => {
            let answers: Vec<&str> = answers.iter().map(|answer| &**answer).collect();
            call(wit::Event::Gathered(wit::Gathered { name, data, answers: &answers, omitted: *omitted }))
        }
        Event::Saved { promise, outcome } => {
            let outcome = match outcome {
                Outcome::Stored(id) => wit::SaveOutcome::Stored(id),
                Outcome::Failed(failure) => wit::SaveOutcome::Failed(lend_failure(failure)),
            };
            call(wit::Event::Saved(wit::Saved {
                tag: &promise.tag,
                collection: &promise.collection,
                document: &promise.document,
                restored: promise.restored,
                outcome,
            }))
        }
        Event::Fetched { tag, outcome, .. } => {
            let documents = outcome.iter().flat_map(|page| &page.documents);
            let documents: Vec<_> =
                documents.map(|document| wit::Document { id: &document.id, body: &document.body }).collect();
            let outcome = match outcome {
                Ok(page) => wit::FetchOutcome::Page(wit::Page { documents: &documents, has_more: page.has_more }),
                Err(failure) => wit::FetchOutcome::Failed(lend_failure(failure)),
            };
            call(wit::Event::Fetched(wit::Fetched { tag, outcome }))
        }
        // An answer is an acknowledgement when it has come to the scope that waits for it.
        Event::Answered { .. } | Event::Placed { .. } => call(wit::Event::Other((event.name(), "null"))),
        Event::Configured => call(wit::Event::Other(("configured", "null"))),
        Event::MigrateDown { to } => call(wit::Event::Other(("migrate-down", &to.to_string()))),
    }
}

/// The state of an outcome that puts a state and has no effects; none of any other outcome.
pub(crate) fn state_alone(outcome: bindings::Outcome) -> Option<Vec<u8>> {
    match outcome.state {
        StateChange::Put(state) if outcome.effects.is_empty() => Some(state),
        _ => None,
    }
}

/// The context of an event that belongs to no scope.
pub(crate) fn context_without_scope(now: u64, settings: &str) -> Context<'_> {
    Context {
        now,
        seed: 0,
        sequence: 0,
        scope: "",
        params: &[],
        room_connections: 0,
        room_users: 0,
        connection_in_room: false,
        user_connections: 0,
        settings,
    }
}

fn lend_failure(failure: &StoreFailure) -> wit::StoreFailure<'_> {
    wit::StoreFailure { code: failure.code.as_str(), message: &failure.message, retryable: failure.retryable }
}

fn attachments(payload: &Payload) -> Vec<&[u8]> {
    payload.attachments.iter().map(|attachment| &attachment[..]).collect()
}

fn lend_member<T>(member: &Member, call: impl FnOnce(types::Member<'_>) -> T) -> T {
    let connection = member.connection.to_string();
    let identity = &member.identity;
    let roles: Vec<&str> = identity.roles.iter().map(String::as_str).collect();
    call(types::Member {
        connection: &connection,
        identity: types::Identity {
            user_id: &identity.user,
            name: identity.name.as_deref(),
            roles: &roles,
            claims: &identity.claims,
        },
    })
}

/// A member as the data of an event that the contract has no case for.
fn member_json(member: &Member) -> String {
    let identity = &member.identity;
    let claims: Option<&RawValue> = serde_json::from_str(&identity.claims).ok();
    let identity = json!({
        "userId": &*identity.user, "name": identity.name, "roles": identity.roles, "claims": claims,
    });
    json!({ "connection": member.connection.to_string(), "identity": identity }).to_string()
}

/// A component's refusal of a connection as its client gets it.
pub(crate) fn connect_refusal(refusal: ConnectRefusal) -> Failure {
    let ConnectRefusal { code, message, data } = refusal;
    Failure { data: Some(data.into()), ..failure(types::Failure { code, message }) }
}

/// A component's refusal as the sender of the event gets it.
pub(crate) fn failure(failure: types::Failure) -> Failure {
    /// The longest message that is passed on, in characters.
    const MAX_CHARS: usize = 1024;
    match ErrorCode::from_name(&failure.code) {
        Some(code) => Failure::new(code, failure.message.chars().take(MAX_CHARS).collect::<String>()),
        None => Failure::new(ErrorCode::Internal, "the feature failed with a code that there is not"),
    }
}
