//! The calls of components as case files, and back.

use roundhouse_contract::case::{
    CaseContext, CaseEvent, CaseMember, CaseOrigin, CasePage, CasePayload, CaseStoreFailure, Octets,
};
use serde_json::value::RawValue;

use super::bindings::roundhouse::feature::{events as wit, types};
use super::convert::lend;
use super::sandbox::Context;
use crate::plugin::event::Event;

/// The event as a case file has it.
pub(crate) fn event_of(event: &Event) -> CaseEvent {
    lend(event, record)
}

/// The context as a case file has it.
pub(crate) fn context_of(context: &Context<'_>) -> CaseContext {
    CaseContext {
        now: context.now,
        seed: context.seed,
        sequence: context.sequence,
        scope: context.scope.to_owned(),
        params: context.params.iter().map(|param| (*param).to_owned()).collect(),
        room_connections: context.room_connections,
        room_users: context.room_users,
        connection_in_room: context.connection_in_room,
        user_connections: context.user_connections,
        settings: raw(context.settings),
    }
}

/// JSON as it stands. The host has checked that it is some.
fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap_or_default()
}

fn record(event: wit::Event<'_>) -> CaseEvent {
    match event {
        wit::Event::Message(wit::Message { event, origin, payload, wants_reply }) => {
            let origin = match origin {
                wit::Origin::Client(member) => CaseOrigin::Client(member_of(&member)),
                wit::Origin::Service(name) => CaseOrigin::Service(name.to_owned()),
                wit::Origin::Other((kind, data)) => CaseOrigin::Other(kind.to_owned(), raw(data)),
            };
            CaseEvent::Message { event: event.to_owned(), origin, payload: payload_of(&payload), wants_reply }
        }
        wit::Event::Joined(member) => CaseEvent::Joined(member_of(&member)),
        wit::Event::Left(wit::Departure { member, reason }) => {
            CaseEvent::Left { member: member_of(&member), reason: reason.to_owned() }
        }
        wit::Event::Timer(wit::Timer { name, payload, due }) => {
            CaseEvent::Timer { name: name.to_owned(), payload: raw(payload), due }
        }
        wit::Event::Acknowledgement(wit::Acknowledgement { tag, connection, answer }) => {
            let answer = match answer {
                wit::Answer::Given(payload) => Ok(payload_of(&payload)),
                wit::Answer::Missing(reason) => Err(reason.to_owned()),
            };
            CaseEvent::Acknowledgement { tag: tag.to_owned(), connection: connection.to_owned(), answer }
        }
        wit::Event::Query(wit::Query { name, data }) => CaseEvent::Query { name: name.to_owned(), data: raw(data) },
        wit::Event::Gathered(wit::Gathered { name, data, answers, omitted }) => {
            let answers = answers.iter().map(|answer| raw(answer)).collect();
            CaseEvent::Gathered { name: name.to_owned(), data: raw(data), answers, omitted }
        }
        wit::Event::Saved(wit::Saved { tag, collection, document, restored, outcome }) => {
            let outcome = match outcome {
                wit::SaveOutcome::Stored(id) => Ok(id.to_owned()),
                wit::SaveOutcome::Failed(failure) => Err(failure_of(&failure)),
            };
            let (tag, collection) = (tag.to_owned(), collection.to_owned());
            CaseEvent::Saved { tag, collection, document: raw(document), restored, outcome }
        }
        wit::Event::Fetched(wit::Fetched { tag, outcome }) => {
            let outcome = match outcome {
                wit::FetchOutcome::Page(wit::Page { documents, has_more }) => {
                    let documents = documents.iter().map(|document| (document.id.to_owned(), raw(document.body)));
                    Ok(CasePage { documents: documents.collect(), has_more })
                }
                wit::FetchOutcome::Failed(failure) => Err(failure_of(&failure)),
            };
            CaseEvent::Fetched { tag: tag.to_owned(), outcome }
        }
        wit::Event::Other((name, data)) => CaseEvent::Other { name: name.to_owned(), data: raw(data) },
    }
}

fn member_of(member: &types::Member<'_>) -> CaseMember {
    let types::Identity { user_id, name, roles, claims } = &member.identity;
    CaseMember {
        connection: member.connection.to_owned(),
        user_id: (*user_id).to_owned(),
        name: name.map(str::to_owned),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        claims: raw(claims),
    }
}

fn payload_of(payload: &types::PayloadParam<'_>) -> CasePayload {
    let attachments = payload.attachments.iter().map(|bytes| Octets::from(*bytes)).collect();
    CasePayload { args: raw(payload.args), attachments }
}

fn failure_of(failure: &wit::StoreFailure<'_>) -> CaseStoreFailure {
    let wit::StoreFailure { code, message, retryable } = failure;
    CaseStoreFailure { code: (*code).to_owned(), message: (*message).to_owned(), retryable: *retryable }
}

/// Calls `call` with the context of a case.
pub(crate) fn lend_context<T>(context: &CaseContext, call: impl FnOnce(Context<'_>) -> T) -> T {
    let params: Vec<&str> = context.params.iter().map(String::as_str).collect();
    call(Context {
        now: context.now,
        seed: context.seed,
        sequence: context.sequence,
        scope: &context.scope,
        params: &params,
        room_connections: context.room_connections,
        room_users: context.room_users,
        connection_in_room: context.connection_in_room,
        user_connections: context.user_connections,
        settings: context.settings.get(),
    })
}

/// Calls `call` with the event of a case.
pub(crate) fn lend_event<T>(event: &CaseEvent, call: impl FnOnce(wit::Event<'_>) -> T) -> T {
    match event {
        CaseEvent::Message { event, origin, payload, wants_reply } => lend_payload(payload, |payload| {
            let wants_reply = *wants_reply;
            lend_origin(origin, |origin| {
                call(wit::Event::Message(wit::Message { event, origin, payload, wants_reply }))
            })
        }),
        CaseEvent::Joined(member) => lend_member(member, |member| call(wit::Event::Joined(member))),
        CaseEvent::Left { member, reason } => {
            lend_member(member, |member| call(wit::Event::Left(wit::Departure { member, reason })))
        }
        CaseEvent::Timer { name, payload, due } => {
            call(wit::Event::Timer(wit::Timer { name, payload: payload.get(), due: *due }))
        }
        CaseEvent::Acknowledgement { tag, connection, answer } => lend_answer(answer, |answer| {
            call(wit::Event::Acknowledgement(wit::Acknowledgement { tag, connection, answer }))
        }),
        CaseEvent::Query { name, data } => call(wit::Event::Query(wit::Query { name, data: data.get() })),
        CaseEvent::Gathered { name, data, answers, omitted } => {
            let answers: Vec<&str> = answers.iter().map(|answer| answer.get()).collect();
            let (data, omitted) = (data.get(), *omitted);
            call(wit::Event::Gathered(wit::Gathered { name, data, answers: &answers, omitted }))
        }
        CaseEvent::Saved { tag, collection, document, restored, outcome } => {
            let outcome = match outcome {
                Ok(id) => wit::SaveOutcome::Stored(id),
                Err(failure) => wit::SaveOutcome::Failed(lend_failure(failure)),
            };
            let (document, restored) = (document.get(), *restored);
            call(wit::Event::Saved(wit::Saved { tag, collection, document, restored, outcome }))
        }
        CaseEvent::Fetched { tag, outcome } => {
            let documents = outcome.iter().flat_map(|page| &page.documents);
            let documents: Vec<_> = documents.map(|(id, body)| wit::Document { id, body: body.get() }).collect();
            let outcome = match outcome {
                Ok(page) => wit::FetchOutcome::Page(wit::Page { documents: &documents, has_more: page.has_more }),
                Err(failure) => wit::FetchOutcome::Failed(lend_failure(failure)),
            };
            call(wit::Event::Fetched(wit::Fetched { tag, outcome }))
        }
        CaseEvent::Other { name, data } => call(wit::Event::Other((name, data.get()))),
    }
}

fn lend_origin<T>(origin: &CaseOrigin, call: impl FnOnce(wit::Origin<'_>) -> T) -> T {
    match origin {
        CaseOrigin::Client(member) => lend_member(member, |member| call(wit::Origin::Client(member))),
        CaseOrigin::Service(name) => call(wit::Origin::Service(name)),
        CaseOrigin::Other(kind, data) => call(wit::Origin::Other((kind, data.get()))),
    }
}

fn lend_answer<T>(answer: &Result<CasePayload, String>, call: impl FnOnce(wit::Answer<'_>) -> T) -> T {
    match answer {
        Ok(payload) => lend_payload(payload, |payload| call(wit::Answer::Given(payload))),
        Err(reason) => call(wit::Answer::Missing(reason)),
    }
}

fn lend_member<T>(member: &CaseMember, call: impl FnOnce(types::Member<'_>) -> T) -> T {
    let roles: Vec<&str> = member.roles.iter().map(String::as_str).collect();
    let (name, claims) = (member.name.as_deref(), member.claims.get());
    let identity = types::Identity { user_id: &member.user_id, name, roles: &roles, claims };
    call(types::Member { connection: &member.connection, identity })
}

fn lend_payload<T>(payload: &CasePayload, call: impl FnOnce(types::PayloadParam<'_>) -> T) -> T {
    // In a file edited by hand, an attachment whose digits are not hexadecimal is left out.
    let attachments: Vec<Vec<u8>> = payload.attachments.iter().filter_map(Octets::to_bytes).collect();
    let attachments: Vec<&[u8]> = attachments.iter().map(Vec::as_slice).collect();
    call(types::PayloadParam { args: payload.args.get(), attachments: &attachments })
}

fn lend_failure(failure: &CaseStoreFailure) -> wit::StoreFailure<'_> {
    wit::StoreFailure { code: &failure.code, message: &failure.message, retryable: failure.retryable }
}
