//! The dispatch of an event to a method of the feature: from an event and a state to an outcome. Both the component's
//! export and the simulator call it.

use crate::effect::{Answer, Effect, Outcome, StateChange};
use crate::event::{Call, Event};
use crate::known::{About, Known};
use crate::warm::Warm;
use crate::{Context, Failure, Feature, decode};

/// The event that asks for a state in an older schema version. Its data is the version.
const MIGRATE_DOWN: &str = "migrate-down";

/// Handles one event of one scope. The same input gives the same output.
pub fn handle<F: Feature>(call: Call, event: Event, state: Option<&[u8]>) -> Result<Outcome, Failure> {
    handle_warm::<F>(&mut None, call, event, state)
}

/// Handles one event of one scope, by an instance that keeps `warm` between events.
pub(crate) fn handle_warm<F: Feature>(
    warm: &mut Option<Warm<F::Settings>>,
    call: Call,
    mut event: Event,
    state: Option<&[u8]>,
) -> Result<Outcome, Failure> {
    let warm = Warm::of_settings(warm, &call.settings, F::describe)?;
    let known = Known::new(call, warm, About::take(&mut event));
    let mut cx = Context::new(&known);
    match event {
        Event::Query(query) => {
            let state = stored::<F>(state)?;
            answered(F::query(&state, &cx, &query)?)
        }
        Event::Other(name, to) if name == MIGRATE_DOWN => {
            let to = to.parse().map_err(|_| Failure::internal(format!("{to:?} is no schema version")))?;
            let state = migrate_down::<F>(to, state.unwrap_or_default())?;
            Ok(Outcome { effects: Vec::new(), state: StateChange::Put(state) })
        }
        Event::Gathered(query, answers) => answered(F::gathered(&cx, &query, &answers)?),
        event => {
            let mut now = stored::<F>(state)?;
            change(&mut now, &mut cx, event)?;
            let state = became::<F>(&now, state)?;
            Ok(Outcome { effects: cx.into_effects()?, state })
        }
    }
}

/// Turns a state of another schema version into this one's.
pub fn migrate<F: Feature>(from: u32, state: &[u8]) -> Result<Vec<u8>, Failure> {
    encode::<F>(&F::migrate(from, state)?)
}

/// Turns a state of this schema version back into one of the older version `to`.
pub fn migrate_down<F: Feature>(to: u32, state: &[u8]) -> Result<Vec<u8>, Failure> {
    let older = F::migrate_down(to, stored::<F>(Some(state))?)?;
    serde_json::to_vec(&older).map_err(|error| Failure::encoding("the state", &error))
}

fn change<F: Feature>(state: &mut F::State, cx: &mut Context<F>, event: Event) -> Result<(), Failure> {
    match event {
        Event::Message(message) => {
            let decoded = decode::named(&message.event, &cx.payload().args)?;
            F::message(state, cx, &message.sender, decoded)
        }
        Event::Joined(member) => F::joined(state, cx, &member),
        Event::Left(member, reason) => F::left(state, cx, &member, reason),
        Event::Away(member) => F::away(state, cx, &member),
        Event::Back(member) => F::back(state, cx, &member),
        Event::Timer(timer) => F::timer(state, cx, &timer),
        Event::Acknowledgement(acknowledgement) => F::acknowledged(state, cx, &acknowledgement),
        Event::Saved(saved) => F::saved(state, cx, &saved),
        Event::Fetched(fetched) => F::fetched(state, cx, &fetched),
        // Queries are answered above and change nothing; events of later hosts are unknown to this SDK.
        Event::Query(_) | Event::Gathered(..) | Event::Other(..) => Ok(()),
    }
}

fn answered(answer: Answer) -> Result<Outcome, Failure> {
    Ok(Outcome { effects: vec![Effect::Reply(answer.0?)], state: StateChange::Keep })
}

fn stored<F: Feature>(state: Option<&[u8]>) -> Result<F::State, Failure> {
    match state {
        Some(bytes) => serde_json::from_slice(bytes)
            .map_err(|error| Failure::internal(format!("the stored state cannot be read: {error}"))),
        None => Ok(F::State::default()),
    }
}

/// The change of the state: an unchanged state costs no write, and one that equals the default no memory.
fn became<F: Feature>(now: &F::State, before: Option<&[u8]>) -> Result<StateChange, Failure> {
    let bytes = encode::<F>(now)?;
    if before.is_some_and(|before| are_equal(before, &bytes)) {
        return Ok(StateChange::Keep);
    }
    if bytes == encode::<F>(&F::State::default())? {
        return Ok(match before {
            Some(_) => StateChange::Clear,
            None => StateChange::Keep,
        });
    }
    Ok(StateChange::Put(bytes))
}

/// Compares as `==` does, but eight bytes at a time: a component's library compares slices byte by byte.
fn are_equal(one: &[u8], other: &[u8]) -> bool {
    let (heads, tail) = one.as_chunks::<8>();
    let (other_heads, other_tail) = other.as_chunks::<8>();
    let is_same = |(one, other): (&[u8; 8], &[u8; 8])| u64::from_le_bytes(*one) == u64::from_le_bytes(*other);
    one.len() == other.len() && heads.iter().zip(other_heads).all(is_same) && tail == other_tail
}

fn encode<F: Feature>(state: &F::State) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(state).map_err(|error| Failure::encoding("the state", &error))
}
