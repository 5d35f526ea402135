//! `POST /v1/events` and `POST /v1/query/{plugin}/{query}`: what services have features do and tell.

use std::borrow::Cow;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Api;
use super::body::{Object, parse};
use super::emit::check_event;
use super::idempotency::{Begun, Fingerprint, Idempotency, Reply, one_key};
use super::keys::Caller;
use super::schema::{EventName, IdempotencyKey};
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
    #[schemars(with = "Option<IdempotencyKey>")]
    idempotency_key: Option<String>,
}

impl Api {
    pub(super) async fn event(
        &self,
        caller: Caller<'_>,
        header_key: Option<String>,
        body: &[u8],
    ) -> Result<Reply, Failure> {
        let Object(ServiceEvent { event, data, idempotency_key }) = parse(body)?;
        let idempotency_key = one_key(header_key, idempotency_key)?;
        check_event(&event)?;
        let payload = Payload::of_data(data);
        let Some(key) = idempotency_key else {
            let answer = self.runtime.service_event(caller.name, &event, payload, None)?.in_time().await?;
            return Ok(reply_of(&answer));
        };
        Idempotency::check_key(&key)?;
        let fingerprint = Idempotency::fingerprint(("event", &event, payload.args()));
        let answered = self.once(caller, &key, fingerprint, &event, payload);
        tokio::time::timeout(ANSWER_TIMEOUT, answered).await.unwrap_or_else(|_| {
            let message =
                "the call was begun and takes long: repeat it with the same idempotencyKey to hear how it ended";
            Err(Failure::new(ErrorCode::FeatureUnavailable, message))
        })
    }

    /// Makes a call, or waits for the one that was made with this key.
    async fn once(
        &self,
        caller: Caller<'_>,
        key: &str,
        fingerprint: Fingerprint,
        event: &str,
        payload: Payload,
    ) -> Result<Reply, Failure> {
        loop {
            match self.idempotency.begin(caller.name, key, fingerprint)? {
                Begun::Answered(reply) => return Ok(reply),
                // It ends when the first does, with nothing to say but that.
                Begun::Running(mut ended) => while ended.changed().await.is_ok() {},
                Begun::First(ticket) => {
                    let once = Once { caller: caller.name.to_owned(), key: key.to_owned(), fingerprint };
                    let answer = self.runtime.service_event(caller.name, event, payload, Some(once));
                    // On its own, so that a caller that hangs up finds the answer when it asks again, and so that what
                    // was done but could not be stored in time is not done again.
                    let call = tokio::spawn(async move {
                        let outcome = match answer {
                            Ok(answer) => answer.at_last().await,
                            Err(refused) => Err(refused),
                        };
                        let reply = outcome.map_or_else(|refused| failed(&refused), |reply| reply_of(&reply));
                        ticket.finish(&reply);
                        reply
                    });
                    let message = "the call was not finished";
                    return call.await.map_err(|_| Failure::new(ErrorCode::Internal, message));
                }
            }
        }
    }

    pub(super) async fn query(&self, plugin: &str, query: &str, body: &[u8]) -> Result<Reply, Failure> {
        let body = if body.is_empty() { b"{}" } else { body };
        let data = parse::<&RawValue>(body)?.get();
        self.runtime.query(plugin, query, data).await.map(|reply| reply_of(&reply))
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
