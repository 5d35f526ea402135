//! Replay: a build gets the calls of case files, and what it makes of them is shown. Nothing is committed.

use roundhouse_contract::case::{Case, CaseEffect, CaseEnd, CaseEvent, CaseOrigin, CaseState};
use roundhouse_contract::raw::StateChange;
use roundhouse_contract::{self as contract, Audience, CONNECT_EVENT, Counted, Effect, Rules};
use serde_json::Value;

use super::report::loader_for_inspection;
use crate::model::{ConnId, Failure};
use crate::plugin::guest::case::{lend_context, lend_event};
use crate::plugin::guest::engine::Ticker;
use crate::plugin::guest::lift;
use crate::plugin::guest::sandbox::{Instance, Outcome};
use crate::plugin::load::generation::{Generation, GenerationId, Source};
use crate::plugin::load::loader::LoadError;
use crate::plugin::load::migrate::{State, take_over};
use crate::plugin::load::options::PluginConfig;
use crate::plugin::run::effect::Connections;

/// What a build made of cases.
#[derive(Debug)]
pub struct Replay {
    /// The build.
    pub id: GenerationId,
    /// What it made of each.
    pub ends: Vec<CaseEnd>,
}

/// Has a component handle the calls of cases, in a sandbox and without a host. It gets all grants that it asks for.
///
/// # Errors
/// With the step that refuses the component.
pub fn replay(component: &[u8], cases: &[Case], config: &PluginConfig) -> Result<Replay, LoadError> {
    let (loader, ticker) = loader_for_inspection(config)?;
    let replayed = loader.prepare(component, None, Source::Bundled, |_| 1).map(|generation| {
        let mut replayer = Replayer::default();
        let ends = cases.iter().map(|case| replayer.replay(&ticker, &generation, case)).collect();
        Replay { id: generation.id.clone(), ends }
    });
    ticker.stop();
    replayed
}

/// Has generations handle the calls of cases.
#[derive(Debug, Default)]
pub(super) struct Replayer {
    /// The instance of the last call, unless it failed.
    warm: Option<(u64, Instance)>,
}

impl Replayer {
    pub(super) fn replay(&mut self, ticker: &Ticker, generation: &Generation, case: &Case) -> CaseEnd {
        self.handle(ticker, generation, case).unwrap_or_else(|fault| {
            self.warm = None;
            CaseEnd::Failed(fault)
        })
    }

    /// # Errors
    /// With the fault of the component.
    fn handle(&mut self, ticker: &Ticker, generation: &Generation, case: &Case) -> Result<CaseEnd, String> {
        let number = generation.id.generation;
        if self.warm.as_ref().is_none_or(|(warm, _)| *warm != number) {
            let instance = generation.instantiate(ticker).map_err(|fault| fault.to_string())?;
            self.warm = Some((number, instance));
        }
        let Some((_, instance)) = &mut self.warm else { return Err("it cannot be instantiated".to_owned()) };
        let state = match &case.state {
            Some(state) => Some(state_for(ticker, generation, instance, state)?),
            None => None,
        };
        let result = lend_context(&case.context, |context| {
            lend_event(&case.event, |event| instance.handle_lent(ticker, context, event, state.as_deref()))
        });
        match result.map_err(|fault| fault.to_string())? {
            Ok(outcome) => check(generation, case, outcome),
            Err(Failure { code, message, .. }) => Ok(CaseEnd::Refused(format!("{}: {message}", code.as_str()))),
        }
    }
}

/// The state of a case in the schema of a generation.
fn state_for(
    ticker: &Ticker,
    generation: &Generation,
    instance: &mut Instance,
    state: &CaseState,
) -> Result<Vec<u8>, String> {
    let bytes = state.bytes.to_bytes().ok_or("the state of the case is not hexadecimal")?;
    if state.version == generation.manifest.state_version {
        return Ok(bytes);
    }
    let stored = State { version: state.version, bytes };
    take_over(ticker, &[], generation, instance, &stored).map_err(|cannot| cannot.to_string())
}

fn check(generation: &Generation, case: &Case, outcome: Outcome) -> Result<CaseEnd, String> {
    let rules = Rules {
        manifest: &generation.manifest,
        room: &case.context.scope,
        max_state_bytes: generation.bounds.state_bytes,
        is_query: matches!(case.event, CaseEvent::Query { .. } | CaseEvent::Gathered { .. }),
        is_admission: is_admission(&case.event),
        // Who was connected then, nobody knows.
        world: Connections { is_known: |_: ConnId| true, has_come: |_: ConnId| true },
    };
    let (effects, change) = lift::outcome(outcome);
    let checked = rules.check(effects, change, |effect| describe(&effect));
    let (effects, change, _) = checked.map_err(|refusal| format!("it returned {refusal}"))?;
    let state = match change {
        StateChange::Keep => None,
        StateChange::Put(bytes) => {
            Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into()))
        }
        StateChange::Clear => Some(Value::Null),
    };
    Ok(CaseEnd::Handled { effects, state })
}

fn is_admission(event: &CaseEvent) -> bool {
    matches!(event, CaseEvent::Message { event, origin: CaseOrigin::Client(_), wants_reply: true, .. }
        if event == CONNECT_EVENT)
}

/// An effect in words.
fn describe(effect: &Effect<ConnId>) -> CaseEffect {
    let json = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    let arguments = |payload: &contract::Payload| json(&payload.arguments.text);
    let (what, to, value) = match effect {
        Effect::Emit { to, except, event, payload, .. } => {
            let but = if except.is_empty() { String::new() } else { format!(" but not to {}", audiences(except)) };
            (format!("emits {event}"), format!("to {}{but}", audiences(to)), arguments(payload))
        }
        Effect::EmitWithAck { connections, event, payload, tag, timeout_ms } => {
            let to = connections.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let to = format!("to {to}, to be acknowledged as {tag} within {timeout_ms} ms");
            (format!("emits {event}"), to, arguments(payload))
        }
        Effect::Reply(payload) => ("replies".to_owned(), String::new(), arguments(payload)),
        Effect::ReplyReached(field, of) => {
            let of = if *of == Counted::Users { "users" } else { "connections" };
            (format!("replies the number of {of}"), format!("as {field}"), Value::Null)
        }
        Effect::Join(connection, room) => ("lets join".to_owned(), of_room(*connection, room), Value::Null),
        Effect::Leave(connection, room) => ("has leave".to_owned(), of_room(*connection, room), Value::Null),
        Effect::Watch(connection) => ("watches".to_owned(), connection.to_string(), Value::Null),
        Effect::SetTimer(timer) => {
            (format!("sets the timer {}", timer.name), format!("of {} ms", timer.after_ms), json(&timer.payload))
        }
        Effect::CancelTimer(name) => (format!("cancels the timer {name}"), String::new(), Value::Null),
        Effect::Save(save) => {
            (format!("saves in {}", save.collection), format!("as {}", save.tag), json(&save.document))
        }
        Effect::Fetch(fetch) => {
            let to = format!("{} documents as {}", fetch.limit, fetch.tag);
            (format!("fetches from {}", fetch.collection), to, Value::Null)
        }
        Effect::Disconnect(connection, reason) => {
            ("disconnects".to_owned(), connection.to_string(), Value::from(reason.as_str()))
        }
        Effect::Refuse(refusal) => {
            ("refuses the connection".to_owned(), String::new(), Value::from(refusal.message.as_str()))
        }
    };
    CaseEffect { what, to, value }
}

fn of_room(connection: ConnId, room: &Option<String>) -> String {
    format!("{connection} in {}", room.as_deref().unwrap_or("the scope's room"))
}

fn audiences(audiences: &[Audience<ConnId>]) -> String {
    let one = |audience: &Audience<ConnId>| match audience {
        Audience::Room(room) => format!("the room {room}"),
        Audience::Users(users) => format!("the users {}", users.join(", ")),
        Audience::Roles(roles) => format!("the roles {}", roles.join(", ")),
        Audience::Connection(connection) => format!("the connection {connection}"),
        Audience::All => "all".to_owned(),
    };
    audiences.iter().map(one).collect::<Vec<_>>().join(" and ")
}
