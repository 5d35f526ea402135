//! The answers of a session endpoint: a user, no session, or something else.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::auth::claims::{ClaimNames, YEAR_3000, find_any, owned, read_identity};
use crate::model::Identity;

/// The shortest text of an answer that is taken for a part of the cookie.
const SECRET_BYTES: usize = 8;

/// Which fields of an answer have what the host reads. Each is a list of names or paths with dots, as for claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFields {
    /// The user's id, name and roles.
    pub user: ClaimNames,
    /// The session's end: text by RFC 3339, or seconds or milliseconds since 1970.
    pub expires: Vec<String>,
    /// The session's id, by which operators block it.
    pub session_id: Vec<String>,
}

impl Default for SessionFields {
    fn default() -> Self {
        Self {
            user: ClaimNames::of_sessions(),
            expires: owned(&["session.expiresAt", "session.expires", "expiresAt", "expires"]),
            session_id: owned(&["session.id", "sessionId", "sid"]),
        }
    }
}

/// A session that its endpoint knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownSession {
    pub(super) identity: Arc<Identity>,
    /// In milliseconds since 1970.
    pub(super) expires_ms: Option<u64>,
    pub(super) id: Option<Box<str>>,
}

/// What an endpoint says of a cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Known(KnownSession),
    /// There is no such session, or it has ended.
    Ended,
}

impl Told {
    /// The same, sharing the identity with `other` where it is equal, so that a longer session is no other identity.
    pub(super) fn with_identity_of(self, other: &Self) -> Self {
        match (self, other) {
            (Self::Known(session), Self::Known(other)) if session.identity == other.identity => {
                Self::Known(KnownSession { identity: other.identity.clone(), ..session })
            }
            (told, _) => told,
        }
    }
}

/// Reads an answer about the session of `cookie`.
///
/// # Errors
/// Where the answer says nothing about the session, with the reason.
pub(super) fn read(answer: &Response<Bytes>, cookie: &str, fields: &SessionFields) -> Result<Told, String> {
    match answer.status() {
        StatusCode::OK => read_body(answer.body(), cookie, fields),
        // Pages for browsers redirect to the log-in form.
        StatusCode::NO_CONTENT
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::GONE => Ok(Told::Ended),
        status => Err(format!("it answers {status}")),
    }
}

fn read_body(body: &[u8], cookie: &str, fields: &SessionFields) -> Result<Told, String> {
    let mut fields_of = match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => fields,
        Ok(Value::Null) => return Ok(Told::Ended),
        Ok(_) => return Err("its answer is JSON, but no object".to_owned()),
        Err(_) => return Err("its answer is no JSON".to_owned()),
    };
    let names_no_user = fields_of.values().all(|value| matches!(value, Value::Null | Value::Bool(false)))
        || fields_of.get("user").is_some_and(Value::is_null);
    if names_no_user && find_any(&fields_of, &fields.user.id).is_none() {
        return Ok(Told::Ended);
    }
    let identity = read_identity(&fields_of, &fields.user).map_err(|wrong| format!("in its answer {wrong}"))?;
    let expires_ms = match find_any(&fields_of, &fields.expires) {
        None => None,
        Some(end) => {
            let names = fields.expires.join(", ");
            let wrong = || format!("in its answer the session's end ({names}) is neither RFC 3339 text nor a number");
            Some(time_ms(end).ok_or_else(wrong)?)
        }
    };
    let id = match find_any(&fields_of, &fields.session_id) {
        Some(Value::String(id)) => Some(id.as_str().into()),
        Some(Value::Number(id)) => Some(id.to_string().into()),
        _ => None,
    };
    let decoded = percent_decode_str(cookie).decode_utf8_lossy();
    remove_secrets(&mut fields_of, &[cookie, &decoded]);
    let identity = Identity { claims: Value::Object(fields_of).to_string(), ..identity };
    Ok(Told::Known(KnownSession { identity: Arc::new(identity), expires_ms, id }))
}

fn time_ms(end: &Value) -> Option<u64> {
    match end {
        Value::String(text) => rfc3339_ms(text),
        end => {
            let number = end.as_f64().filter(|number| *number >= 0.0)?;
            Some(if number < YEAR_3000 { number * 1000.0 } else { number } as u64)
        }
    }
}

/// Milliseconds since 1970 of a time by RFC 3339, of any offset.
fn rfc3339_ms(text: &str) -> Option<u64> {
    let (local, offset_minutes) = match text.strip_suffix(['Z', 'z']) {
        Some(local) => (local, 0),
        None => {
            let (local, offset) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
            let (hours, minutes) = offset.get(1..)?.split_once(':')?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            (local, if offset.starts_with('-') { -minutes } else { minutes })
        }
    };
    let time = humantime::parse_rfc3339_weak(local).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(time.as_millis() as i64 - offset_minutes * 60_000).ok()
}

/// Removes texts that are a part of the cookie or contain it, in any of its forms: the ids of sessions often are, and features
/// must not see them.
fn remove_secrets(fields: &mut Map<String, Value>, forms: &[&str]) {
    fields.retain(|_, value| !is_secret(value, forms));
    fields.values_mut().for_each(|value| remove_within(value, forms));
}

fn remove_within(value: &mut Value, forms: &[&str]) {
    match value {
        Value::Object(fields) => remove_secrets(fields, forms),
        Value::Array(values) => {
            values.retain(|value| !is_secret(value, forms));
            values.iter_mut().for_each(|value| remove_within(value, forms));
        }
        _ => {}
    }
}

fn is_secret(value: &Value, forms: &[&str]) -> bool {
    let Some(text) = value.as_str().filter(|text| text.len() >= SECRET_BYTES) else { return false };
    forms.iter().any(|form| form.contains(text) || form.len() >= SECRET_BYTES && text.contains(form))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(status: u16, body: &str) -> Result<Told, String> {
        let answer = Response::builder().status(status).body(Bytes::from(body.to_owned())).unwrap();
        read(&answer, "s%3Asecret-session-id.signature", &SessionFields::default())
    }

    fn known(body: &Value) -> KnownSession {
        match told(200, &body.to_string()) {
            Ok(Told::Known(session)) => session,
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn usual_answers_are_read() {
        let lucia = json!({ "user": { "id": "ana", "name": "Ana", "role": "agent", "companyId": "acme" },
            "session": { "id": "lucia-1", "userId": "ana", "expiresAt": "2026-05-01T12:00:00.000Z", "fresh": false } });
        let session = known(&lucia);
        assert_eq!((&*session.identity.user, session.identity.name.as_deref()), ("ana", Some("Ana")));
        assert_eq!(session.identity.roles, ["agent"]);
        assert_eq!((session.expires_ms, session.id.as_deref()), (Some(1_777_636_800_000), Some("lucia-1")));
        assert!(session.identity.claims.contains(r#""companyId":"acme""#), "{session:?}");
        let flat = known(&json!({ "id": 7, "roles": ["a", "b"], "expiresAt": 1_777_636_800 }));
        assert_eq!((&*flat.identity.user, flat.expires_ms), ("7", Some(1_777_636_800_000)));
        assert_eq!(known(&json!({ "id": 7, "expires": 1_777_636_800_123_u64 })).expires_ms, Some(1_777_636_800_123));
        let offset = json!({ "userId": "ana", "expires": "2026-05-01T14:00:00+02:00" });
        assert_eq!(known(&offset).expires_ms, Some(1_777_636_800_000));
    }

    #[test]
    fn answers_without_a_session_mean_ended() {
        for (status, body) in [
            (401, "no"),
            (403, ""),
            (204, ""),
            (302, ""),
            (410, ""),
            (200, "null"),
            (200, "{}"),
            (200, r#"{"user":null,"session":null}"#),
            (200, r#"{"user":null,"csrf":"x"}"#),
            (200, r#"{"authenticated":false}"#),
        ] {
            assert_eq!(told(status, body), Ok(Told::Ended), "{status} {body}");
        }
    }

    #[test]
    fn answers_that_say_nothing_are_refused_by_reason() {
        for (status, body, reason) in [
            (404, "", "404"),
            (500, "", "500"),
            (301, "", "301"),
            (429, "", "429"),
            (200, "<html>", "no JSON"),
            (200, "[1]", "no object"),
            (200, r#"{"error":"down"}"#, "user.id, userId, id, sub"),
            (200, r#"{"id":"a b"}"#, "printable"),
            (200, r#"{"id":"a","roles":5}"#, "roles"),
            (200, r#"{"id":"a","expires":"soon"}"#, "end"),
            (200, "{\"id\":\"a\",\"expires\":\"1.5.2026\u{a0}9:30\"}", "end"),
        ] {
            let refused = told(status, body).expect_err(body);
            assert!(refused.contains(reason), "{status} {body}: {refused}");
        }
    }

    #[test]
    fn parts_of_the_cookie_are_not_kept() {
        let answer = json!({ "id": "ana", "sid": "secret-session-id", "session": { "token": "secret-session-id.signature" },
            "more": ["secret-session-id", { "a": "signature" }, "other text", "connect.sid=s%3Asecret-session-id.signature; x=1"],
            "short": "s" });
        let claims = known(&answer).identity.claims.clone();
        assert!(!claims.contains("secret-session") && !claims.contains("signature"), "{claims}");
        assert!(claims.contains("other text") && claims.contains("short"), "{claims}");
    }
}
