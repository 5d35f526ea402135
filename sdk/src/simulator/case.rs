//! Case files of a host as native tests.

use std::fmt;

use roundhouse_contract::World;
use roundhouse_contract::case::{
    Case, CaseContext, CaseEnd, CaseEvent, CaseMember, CaseOrigin, CasePayload, CaseStoreFailure, Octets, describe,
    state_json,
};

use super::contract::{check_manifest, check_outcome};
use crate::bindings::roundhouse::feature::{events, types};
use crate::{Event, Failure, Feature, Outcome, dispatch};

/// Has a feature handle the event of a case file: what a host gave a build on which that failed.
///
/// # Errors
/// If the feature refuses the event, which is no fault.
///
/// # Panics
/// If the feature fails: it panics, or its outcome breaks a rule, or it cannot read the state. Also if the text is no case file
/// of this feature.
pub fn replay_case<F: Feature>(text: &str) -> Result<Outcome, Failure> {
    let case = Case::read(text).unwrap_or_else(|why| panic!("{why}"));
    replay_checked::<F>(case).map(|(outcome, _)| outcome)
}

/// Has a feature handle the event of a case file, and tells what it made of it in the words of the file: the same as `end` in the
/// file if the build that had it does the same.
///
/// # Panics
/// As [`replay_case`].
pub fn case_end<F: Feature>(text: &str) -> CaseEnd {
    let case = Case::read(text).unwrap_or_else(|why| panic!("{why}"));
    match replay_checked::<F>(case) {
        Ok((_, end)) => end,
        Err(Failure { code, message, .. }) => CaseEnd::Refused(format!("{code}: {message}")),
    }
}

fn replay_checked<F: Feature>(case: Case) -> Result<(Outcome, CaseEnd), Failure> {
    let manifest = check_manifest(F::describe()).unwrap_or_else(|why| panic!("the manifest: {why}"));
    assert_eq!(case.build.name, manifest.name, "the case is of another feature");
    let state = case.state.map(|state| {
        let bytes = state.bytes.to_bytes().expect("the state of the case is text or hexadecimal");
        match state.version == manifest.state_version {
            true => bytes,
            false => dispatch::migrate::<F>(state.version, &bytes).unwrap_or_else(|why| {
                panic!("the state of version {} is not migrated: {}", state.version, why.message)
            }),
        }
    });
    let scope = case.context.scope.clone();
    let event = Event::from(event_of(case.event));
    let kind = (event.is_query(), event.is_admission());
    let outcome = dispatch::handle::<F>(events::Context::from(case.context).into(), event, state.as_deref())?;
    let (effects, change) = check_outcome(&manifest, &scope, kind, Anybody, outcome.clone())
        .unwrap_or_else(|why| panic!("it returned {why}"));
    let end = CaseEnd::Handled { effects: effects.iter().map(describe).collect(), state: state_json(&change) };
    Ok((outcome, end))
}

/// Makes a case file a test: it passes unless the feature fails on the event.
///
/// ```text
/// roundhouse_sdk::case!(empty_name_is_no_fault: Door, "cases/door-3.case");
/// ```
#[macro_export]
macro_rules! case {
    ($name:ident: $feature:ty, $file:literal) => {
        #[test]
        fn $name() {
            // A refusal is an answer.
            let _ = $crate::simulator::replay_case::<$feature>(include_str!($file));
        }
    };
}

/// The connections of a case, which does not tell who was connected: every connection is taken for one.
struct Anybody;

/// A connection, by the number in its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct CaseConnection(u64);

impl fmt::Display for CaseConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl World for Anybody {
    type Connection = CaseConnection;

    fn connection(&self, id: &str) -> Option<CaseConnection> {
        u64::from_str_radix(id, 16).ok().map(CaseConnection)
    }

    fn is_known(&self, _: CaseConnection) -> bool {
        true
    }

    fn has_come(&self, _: CaseConnection) -> bool {
        true
    }
}

impl From<CaseContext> for events::Context {
    fn from(context: CaseContext) -> Self {
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
            settings: context.settings.get().to_owned(),
        }
    }
}

fn event_of(event: CaseEvent) -> events::Event {
    match event {
        CaseEvent::Message { event, origin, payload, wants_reply } => {
            let origin = match origin {
                CaseOrigin::Client(member) => events::Origin::Client(member_of(member)),
                CaseOrigin::Service(name) => events::Origin::Service(name),
                CaseOrigin::Other(kind, data) => events::Origin::Other((kind, data.get().to_owned())),
            };
            events::Event::Message(events::Message { event, origin, payload: payload_of(&payload), wants_reply })
        }
        CaseEvent::Joined(member) => events::Event::Joined(member_of(member)),
        CaseEvent::Left { member, reason } => {
            events::Event::Left(events::Departure { member: member_of(member), reason })
        }
        CaseEvent::Timer { name, payload, due } => {
            events::Event::Timer(events::Timer { name, payload: payload.get().to_owned(), due })
        }
        CaseEvent::Acknowledgement { tag, connection, answer } => {
            let answer = match answer {
                Ok(payload) => events::Answer::Given(payload_of(&payload)),
                Err(reason) => events::Answer::Missing(reason),
            };
            events::Event::Acknowledgement(events::Acknowledgement { tag, connection, answer })
        }
        CaseEvent::Query { name, data } => events::Event::Query(events::Query { name, data: data.get().to_owned() }),
        CaseEvent::Gathered { name, data, answers, omitted } => {
            let answers = answers.iter().map(|answer| answer.get().to_owned()).collect();
            events::Event::Gathered(events::Gathered { name, data: data.get().to_owned(), answers, omitted })
        }
        CaseEvent::Saved { tag, collection, document, restored, outcome } => {
            let outcome = match outcome {
                Ok(id) => events::SaveOutcome::Stored(id),
                Err(failure) => events::SaveOutcome::Failed(failure_of(failure)),
            };
            let document = document.get().to_owned();
            events::Event::Saved(events::Saved { tag, collection, document, restored, outcome })
        }
        CaseEvent::Fetched { tag, outcome } => {
            let outcome = match outcome {
                Ok(page) => {
                    let document = |(id, body): (String, Box<serde_json::value::RawValue>)| events::Document {
                        id,
                        body: body.get().to_owned(),
                    };
                    let documents = page.documents.into_iter().map(document).collect();
                    events::FetchOutcome::Page(events::Page { documents, has_more: page.has_more })
                }
                Err(failure) => events::FetchOutcome::Failed(failure_of(failure)),
            };
            events::Event::Fetched(events::Fetched { tag, outcome })
        }
        CaseEvent::Other { name, data } => events::Event::Other((name, data.get().to_owned())),
    }
}

fn member_of(member: CaseMember) -> types::Member {
    let CaseMember { connection, user_id, name, roles, claims } = member;
    let identity = types::Identity { user_id, name, roles, claims: claims.get().to_owned() };
    types::Member { connection, identity }
}

fn payload_of(payload: &CasePayload) -> types::Payload {
    let attachments = payload.attachments.iter().filter_map(Octets::to_bytes).collect();
    types::Payload { args: payload.args.get().to_owned(), attachments }
}

fn failure_of(failure: CaseStoreFailure) -> events::StoreFailure {
    let CaseStoreFailure { code, message, retryable } = failure;
    events::StoreFailure { code, message, retryable }
}
