//! The one way into a feature: from an event and a state to an outcome. The component's export and the
//! simulator both call it.

use crate::context::{About, Context, Known};
use crate::effect::{Answer, Effect, Outcome, StateChange};
use crate::event::{Call, Event, Query};
use crate::warm::Warm;
use crate::{Failure, Feature, decode};

/// Handles one event of one scope. The same input gives the same output.
pub fn handle<F: Feature>(call: Call, mut event: Event, state: Option<&[u8]>) -> Result<Outcome, Failure> {
    let warm = Warm::<F>::get(&call.settings)?;
    let known = Known::new(call, warm, About::take(&mut event));
    let mut cx = Context::new(&known);
    match event {
        Event::Query(query) => {
            let state = stored::<F>(state)?;
            answered(F::query(&state, &cx, question::<F>(&query)?)?)
        }
        Event::Gathered(query, answers) => answered(F::gathered(&cx, question::<F>(&query)?, &answers)?),
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
        Event::Timer(timer) => {
            let decoded = serde_json::from_str(&timer.payload)
                .map_err(|error| Failure::internal(format!("timer {}: {error}", timer.name)))?;
            F::timer(state, cx, decoded)
        }
        Event::Acknowledgement(acknowledgement) => F::acknowledged(state, cx, &acknowledgement),
        Event::Saved(saved) => F::saved(state, cx, &saved),
        Event::Fetched(fetched) => F::fetched(state, cx, &fetched),
        // Questions change nothing and were answered above; of what a later host tells, this SDK knows nothing.
        Event::Query(_) | Event::Gathered(..) | Event::Other(..) => Ok(()),
    }
}

fn question<F: Feature>(query: &Query) -> Result<F::Query, Failure> {
    decode::named(&query.name, &format!("[{}]", query.data))
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

/// What to do with the state, so that an unchanged one costs no write and an empty one no memory.
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

/// As `==`, but eight bytes at a time: a component's library compares slices byte by byte.
fn are_equal(one: &[u8], other: &[u8]) -> bool {
    let (heads, tail) = one.as_chunks::<8>();
    let (other_heads, other_tail) = other.as_chunks::<8>();
    let is_same = |(one, other): (&[u8; 8], &[u8; 8])| u64::from_le_bytes(*one) == u64::from_le_bytes(*other);
    one.len() == other.len() && heads.iter().zip(other_heads).all(is_same) && tail == other_tail
}

fn encode<F: Feature>(state: &F::State) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(state).map_err(|error| Failure::encoding("the state", &error))
}
