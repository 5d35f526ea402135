//! `POST /v1/events` and `POST /v1/query/{plugin}/{query}`: services send events to features and query them.

use std::borrow::Cow;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::body::{Object, parse};
use super::emit::check_event;
use super::idempotency::{IdempotencyKey, Lookup, Reply, single_key};
use super::keys::Caller;
use super::route::ServiceCall;
use super::schema::{self, EventName};
use super::state::Api;
use crate::model::{ErrorCode, Failure, Payload};
use crate::net::response;
use crate::plugin::{ANSWER_TIMEOUT, Once};

/// An event, as a service writes it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(rename = "Event")]
pub(super) struct ServiceEvent<'a> {
    #[serde(borrow)]
    #[schemars(with = "EventName")]
    event: Cow<'a, str>,
    /// Any JSON.
    #[serde(borrow, default)]
    #[schemars(with = "Value")]
    data: Option<&'a RawValue>,
    #[serde(default)]
    #[schemars(with = "Option<schema::IdempotencyKey>")]
    idempotency_key: Option<String>,
}

impl Api {
    pub(super) async fn event(&self, call: ServiceCall<'_>) -> Result<Reply, Failure> {
        let ServiceCall { caller, header_key, body, .. } = call;
        let Object(ServiceEvent { event, data, idempotency_key }) = parse(&body)?;
        let key = single_key(header_key, idempotency_key)?;
        check_event(&event)?;
        let payload = Payload::of_data(data);
        if caller.narrowing.is_narrowed() {
            let (plugin, room) = self.runtime.destination(&event, &payload)?;
            caller.narrowing.check_event(caller.name, &event, &plugin, &room)?;
        }
        let Some(key) = key else {
            let answer = self.runtime.service_event(caller.name, &event, payload, None)?.in_time().await?;
            return Ok(reply_of(&answer));
        };
        let key = IdempotencyKey::new(key, ("event", &event, payload.args()));
        key.check()?;
        let answered = self.event_once(caller, &key, &event, payload);
        tokio::time::timeout(ANSWER_TIMEOUT, answered).await.unwrap_or_else(|_| {
            let message =
                "the call was begun and takes long: repeat it with the same idempotencyKey to hear how it ended";
            Err(Failure::new(ErrorCode::FeatureUnavailable, message))
        })
    }

    /// Sends an event, or waits for the answer to an earlier event with this key.
    async fn event_once(
        &self,
        caller: Caller<'_>,
        key: &IdempotencyKey,
        event: &str,
        payload: Payload,
    ) -> Result<Reply, Failure> {
        loop {
            match self.idempotency.begin(caller.name, key)? {
                Lookup::Answered(reply) => return Ok(reply),
                // The channel carries no value: it ends when the first call does.
                Lookup::Running(mut ended) => while ended.changed().await.is_ok() {},
                Lookup::New(in_flight) => {
                    let once =
                        Once { caller: caller.name.to_owned(), key: key.text.clone(), fingerprint: key.fingerprint };
                    let answer = self.runtime.service_event(caller.name, event, payload, Some(once));
                    // In a task of its own: a caller that disconnects gets the answer when it repeats the call, and an
                    // event that was handled but not stored in time is not handled again.
                    let call = tokio::spawn(async move {
                        let outcome = match answer {
                            Ok(answer) => answer.at_last().await,
                            Err(refused) => Err(refused),
                        };
                        let reply = outcome.map_or_else(|refused| failed(&refused), |reply| reply_of(&reply));
                        in_flight.finish(&reply);
                        reply
                    });
                    let message = "the call was not finished";
                    return call.await.map_err(|_| Failure::new(ErrorCode::Internal, message));
                }
            }
        }
    }

    pub(super) async fn query(&self, call: ServiceCall<'_>) -> Result<Reply, Failure> {
        let [plugin, query] = call.names()?;
        call.caller.narrowing.check_plugin(call.caller.name, &plugin)?;
        let body: &[u8] = if call.body.is_empty() { b"{}" } else { &call.body };
        let data = parse::<&RawValue>(body)?.get();
        self.runtime.query(&plugin, &query, data).await.map(|reply| reply_of(&reply))
    }
}

/// A feature's reply is the body of the answer.
fn reply_of(reply: &Payload) -> Reply {
    let data = reply.first().to_owned();
    Reply { status: StatusCode::OK, body: data.into() }
}

fn failed(refused: &Failure) -> Reply {
    let status = response::status_of(refused);
    // A failure is two strings, which always have a JSON form.
    Reply { status, body: serde_json::to_vec(refused).unwrap_or_default().into() }
}
