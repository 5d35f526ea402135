//! `POST /v1/emit`: a service emits straight to connections, without a feature.

use std::borrow::Cow;
use std::sync::Arc;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::audience::AudienceSpec;
use super::body::{Object, parse};
use super::idempotency::{IdempotencyKey, Lookup, Reply, conflict, single_key};
use super::keys::Caller;
use super::route::ServiceCall;
use super::schema::{self, EventName, MAX_EVENT_CHARS};
use super::state::{Api, wait_while};
use crate::hub::{Audience, Publication};
use crate::model::{Cause, ErrorCode, Failure, Payload};
use crate::protocol::{Outgoing, RESERVED_EVENTS};

/// Emits in one call, at most.
pub(super) const MAX_EMITS: usize = 1000;

/// One emit, as a service writes it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Emit<'a> {
    to: Object<AudienceSpec>,
    #[serde(borrow)]
    #[schemars(with = "EventName")]
    event: Cow<'a, str>,
    /// Any JSON.
    #[serde(borrow, default)]
    #[schemars(with = "Value")]
    data: Option<&'a RawValue>,
    #[serde(default)]
    except: Option<Object<AudienceSpec>>,
    #[serde(default)]
    #[schemars(with = "Option<schema::IdempotencyKey>")]
    idempotency_key: Option<String>,
}

/// How many connections an emit is for.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Delivered {
    delivered: usize,
}

/// An emit that has been checked.
struct ValidEmit {
    to: Vec<Audience>,
    except: Vec<Audience>,
    outgoing: Arc<Outgoing>,
    key: Option<IdempotencyKey>,
}

impl Api {
    pub(super) async fn emit(&self, call: ServiceCall<'_>) -> Result<Reply, Failure> {
        let ServiceCall { caller, header_key, body, .. } = call;
        self.wait_for_space().await?;
        if body.trim_ascii_start().first() != Some(&b'[') {
            let mut emit = parse::<Object<Emit<'_>>>(&body)?.0;
            emit.idempotency_key = single_key(header_key, emit.idempotency_key)?;
            let emit = self.check(caller, emit)?;
            self.check_key(caller, emit.key.as_ref())?;
            return self.do_once(caller, emit.key.clone(), async || self.send(emit).await).await;
        }
        let emits: Vec<Object<Emit<'_>>> = parse(&body)?;
        if emits.len() > MAX_EMITS {
            let message = format!("{} emits, and there may be {MAX_EMITS} in one call", emits.len());
            return Err(Failure::new(ErrorCode::BadRequest, message));
        }
        // The header's key is for the whole call; each emit may have a key of its own.
        let key = header_key.map(|text| IdempotencyKey::new(text, ("emits", &emits)));
        let emits = self.check_all(caller, emits)?;
        self.check_key(caller, key.as_ref())?;
        if let Some(IdempotencyKey { text: key, .. }) = &key
            && let Some(index) = emits.iter().position(|emit| emit.key.as_ref().is_some_and(|own| own.text == *key))
        {
            let message =
                format!("[{index}]: idempotencyKey {key:?} is that of the whole call, by its header: choose another");
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        self.do_once(caller, key, async || {
            let mut answers = String::from("[");
            for (index, emit) in emits.into_iter().enumerate() {
                let reply = self.do_once(caller, emit.key.clone(), async || self.send(emit).await).await?;
                answers.push_str(if index == 0 { "" } else { "," });
                answers.push_str(&String::from_utf8_lossy(&reply.body));
            }
            answers.push(']');
            Ok(Reply { status: StatusCode::OK, body: answers.into() })
        })
        .await
    }

    /// Checks all emits of a call before the first is sent.
    fn check_all(&self, caller: Caller<'_>, emits: Vec<Object<Emit<'_>>>) -> Result<Vec<ValidEmit>, Failure> {
        let mut checked: Vec<ValidEmit> = Vec::with_capacity(emits.len());
        for (index, Object(emit)) in emits.into_iter().enumerate() {
            let at = |failure: Failure| Failure { message: format!("[{index}]: {}", failure.message), ..failure };
            let emit = self.check(caller, emit).map_err(at)?;
            self.check_key(caller, emit.key.as_ref()).map_err(at)?;
            if let Some(key) = &emit.key
                && checked
                    .iter()
                    .filter_map(|other| other.key.as_ref())
                    .any(|other| other.text == key.text && other != key)
            {
                return Err(at(conflict(&key.text)));
            }
            checked.push(emit);
        }
        Ok(checked)
    }

    /// Waits until no shard is over its bound.
    async fn wait_for_space(&self) -> Result<(), Failure> {
        let is_full = || self.hub.shards().iter().any(crate::hub::ShardQueue::is_full);
        if wait_while(is_full).await {
            return Ok(());
        }
        Err(Failure::new(ErrorCode::FeatureUnavailable, "the host has more to send than it can: try again later"))
    }

    fn check(&self, caller: Caller<'_>, emit: Emit<'_>) -> Result<ValidEmit, Failure> {
        let Emit { to: Object(to), event, data, except, idempotency_key } = emit;
        check_event(&event)?;
        let except = except.map(|Object(except)| except);
        let key = idempotency_key.map(|text| IdempotencyKey::new(text, ("emit", &event, data, &to, &except)));
        let to = to.into_audiences("to")?;
        caller.narrowing.check_emit(caller.name, &event, &to)?;
        let except = except.map_or(Ok(Vec::new()), |except| except.into_audiences("except"))?;
        // By what is left of the number of deliveries, a key would learn who is in other rooms.
        caller.narrowing.check_emit(caller.name, &event, &except)?;
        let mut outgoing = Outgoing::new(&*event, Payload::of_data(data));
        outgoing.set_cause(Arc::new(Cause {
            build: None,
            event: "emit".into(),
            sender: Some(caller.name.into()),
            scope: "".into(),
            sequence: 0,
            at_ms: self.clock.now_ms(),
        }));
        let outgoing = Arc::new(outgoing);
        Ok(ValidEmit { to, except, outgoing, key })
    }

    fn check_key(&self, caller: Caller<'_>, key: Option<&IdempotencyKey>) -> Result<(), Failure> {
        let Some(key) = key else { return Ok(()) };
        key.check()?;
        self.idempotency.check(caller.name, key)
    }

    /// Does `work`, whose input is checked, unless a call with this key did it before.
    async fn do_once(
        &self,
        caller: Caller<'_>,
        key: Option<IdempotencyKey>,
        work: impl AsyncFnOnce() -> Result<Reply, Failure>,
    ) -> Result<Reply, Failure> {
        let Some(key) = key else { return work().await };
        loop {
            match self.idempotency.begin(caller.name, &key)? {
                Lookup::New(in_flight) => {
                    let reply = work().await?;
                    in_flight.finish(&reply);
                    return Ok(reply);
                }
                Lookup::Answered(reply) => return Ok(reply),
                // The channel carries no value: it ends when the first call does.
                Lookup::Running(mut ended) => while ended.changed().await.is_ok() {},
            }
        }
    }

    async fn send(&self, emit: ValidEmit) -> Result<Reply, Failure> {
        let ValidEmit { to, except, outgoing, .. } = emit;
        let publication = Publication { to, except, outgoing, volatile: false, receipt: None };
        Ok(Reply::of(&Delivered { delivered: self.runtime.emit(publication).await? }))
    }
}

/// # Errors
/// `bad_request` where an event's name is too long, or not one that a service may send.
pub(super) fn check_event(event: &str) -> Result<(), Failure> {
    let n_chars = event.chars().count();
    if !(1..=MAX_EVENT_CHARS).contains(&n_chars) || event.chars().any(char::is_control) {
        let message = format!("event must be 1 to {MAX_EVENT_CHARS} characters without control characters");
        return Err(Failure::new(ErrorCode::BadRequest, message));
    }
    if RESERVED_EVENTS.contains(&event) {
        let message = format!("the event {event} is the protocol's own: choose another name");
        return Err(Failure::new(ErrorCode::BadRequest, message));
    }
    Ok(())
}
