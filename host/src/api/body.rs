//! Bodies of requests: read within bounds, and parsed with errors that have positions.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use hyper::{HeaderMap, Request, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::model::{ErrorCode, Failure, without_lone_surrogates};
use crate::net::response::{Answer, error};
use crate::net::{Upload, UploadError};

/// The longest body of a call except a component, in bytes: the default limit of a client's message.
pub const MAX_BODY_BYTES: usize = 1_000_000;

/// How much of a body that is too long is read and discarded, in bytes: a client that still sends when the connection closes
/// may never see the answer.
const MAX_DISCARDED_BYTES: usize = 64 * 1024 * 1024;

/// Reads the body of a request.
///
/// # Errors
/// `too_large` over `max_bytes`, `bad_request` where it is incomplete or too slow, `feature_unavailable` where it is evicted from
/// the budget.
pub(super) async fn read(request: Request<Incoming>, max_bytes: usize) -> Result<Bytes, Failure> {
    match collect(Upload::of(request), max_bytes).await {
        Ok(Some(body)) => Ok(body),
        Ok(None) => Err(Failure::new(ErrorCode::TooLarge, format!("the body may be {max_bytes} bytes long"))),
        Err(error @ UploadError::Evicted) => Err(Failure::new(ErrorCode::FeatureUnavailable, error.to_string())),
        Err(error) => Err(Failure::new(ErrorCode::BadRequest, error.to_string())),
    }
}

/// Reads a body of JSON.
///
/// # Errors
/// As [`read`].
pub(super) async fn read_json(request: Request<Incoming>, max_bytes: usize) -> Result<Bytes, Failure> {
    let body = read(request, max_bytes).await?;
    // Invalid UTF-8 is refused by the parser, with its position.
    match std::str::from_utf8(&body).map(without_lone_surrogates) {
        Ok(Cow::Owned(mended)) => Ok(mended.into()),
        _ => Ok(body),
    }
}

/// The body, or `None` where it is too long.
async fn collect(mut body: Upload<Incoming>, max_bytes: usize) -> Result<Option<Bytes>, UploadError> {
    let mut whole = Bytes::new();
    let mut joined = BytesMut::new();
    let mut n_bytes = 0;
    while let Some(data) = body.next(whole.len().max(joined.capacity())).await? {
        n_bytes += data.len();
        if n_bytes > MAX_DISCARDED_BYTES {
            return Ok(None);
        }
        if n_bytes > max_bytes {
            (whole, joined) = Default::default();
        } else if n_bytes == data.len() {
            // Most bodies arrive in one piece, which needs no copy.
            whole = data;
        } else {
            if joined.is_empty() {
                joined.extend_from_slice(&std::mem::take(&mut whole));
            }
            joined.extend_from_slice(&data);
        }
    }
    if n_bytes > max_bytes {
        return Ok(None);
    }
    Ok(Some(if joined.is_empty() { whole } else { joined.freeze() }))
}

/// The refusal of a body whose headers declare another type or coding than plain JSON.
pub(super) fn refuse_type(headers: &HeaderMap) -> Option<Answer> {
    let message = if !is_json(headers) {
        "the body must be JSON, with the content type application/json"
    } else if is_encoded(headers) {
        "the body must be plain JSON, without a Content-Encoding"
    } else {
        return None;
    };
    Some(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_request", message))
}

/// Whether a body of this content type is read as JSON: also a body without a type, and the type that curl sets by
/// default.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(given) = headers.get(CONTENT_TYPE) else { return true };
    let Ok(given) = given.to_str() else { return false };
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(&*essence, "application/json" | "application/x-www-form-urlencoded") || essence.ends_with("+json")
}

/// Whether a body is compressed or otherwise encoded (RFC 9110, section 8.4).
fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Parses a body of JSON.
///
/// # Errors
/// `bad_request` with the field, the mistake and the position; for an unknown field with the nearest known one.
pub(super) fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(json).map_err(|error| {
        // Only a failed body is parsed again, to find the field.
        let deserializer = &mut serde_json::Deserializer::from_slice(json);
        let path = match serde_path_to_error::deserialize::<_, T>(deserializer) {
            Err(error) => error.path().to_string(),
            Ok(_) => String::new(),
        };
        Failure::new(ErrorCode::BadRequest, explain(&error, &path))
    })
}

fn explain(error: &serde_json::Error, path: &str) -> String {
    let said = error.to_string();
    if !error.is_data() {
        return format!("the body is not JSON: {said}");
    }
    let at = if matches!(path, "" | "." | "?") { "the body".to_owned() } else { path.to_owned() };
    match nearest(&said) {
        Some(nearest) => format!("{at}: {said}: did you mean {nearest}?"),
        None => format!("{at}: {said}"),
    }
}

/// The known field nearest to the unknown one in serde's message, which has all in backticks, the unknown one first.
fn nearest(said: &str) -> Option<&str> {
    let mut names = said.strip_prefix("unknown field `")?.split('`').step_by(2);
    let unknown = names.next()?;
    names
        .filter(|name| !name.is_empty() && !name.starts_with(" at line"))
        .max_by(|a, b| strsim::jaro(a, unknown).total_cmp(&strsim::jaro(b, unknown)))
}

/// A struct that must be written as an object: serde would also accept an array of its fields.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Object<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// An optional field that may not be null.
pub(super) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// An optional whole number that may not be null. JSON Schema counts 1.0 as an integer.
pub(super) fn given_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    const LARGEST_WHOLE: f64 = 9_007_199_254_740_992.0;
    let number = serde_json::Number::deserialize(deserializer)?;
    let of_float = || {
        let whole = number.as_f64().filter(|float| float.fract() == 0.0 && (0.0..=LARGEST_WHOLE).contains(float));
        whole.map(|float| float as u64)
    };
    let whole = number.as_u64().or_else(of_float);
    whole.map(Some).ok_or_else(|| serde::de::Error::custom(format!("{number} is not a whole number from 0")))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Whole {
        #[serde(rename = "inner")]
        _inner: Object<Part>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Part {
        #[serde(default, deserialize_with = "given", rename = "users")]
        _users: Option<Vec<String>>,
        #[serde(default, rename = "roles")]
        _roles: Option<Vec<String>>,
    }

    #[test]
    fn parse_errors_name_field_and_place() {
        for (json, said) in [
            ("{\"inner\": {}", &["not JSON", "line 1 column 12"][..]),
            ("", &["not JSON"]),
            ("[]", &["the body: ", "expected an object"]),
            ("{\"iner\": {}}", &["iner", "did you mean inner?"]),
            ("{\"inner\": {\"user\": []}}", &["inner", "`user`", "did you mean users?"]),
            ("{\"inner\": []}", &["inner: ", "expected an object", "line 1"]),
            ("{\"inner\": {\"users\": [\"a\", 5]}}", &["inner.users[1]: ", "expected a string"]),
            ("{\"inner\": {\"users\": null}}", &["inner.users: ", "expected a sequence"]),
            ("{}", &["missing field `inner`"]),
            ("{\"inner\": {}} x", &["not JSON", "trailing"]),
        ] {
            let failure = parse::<Object<Whole>>(json.as_bytes()).expect_err(json);
            assert_eq!(failure.code, ErrorCode::BadRequest);
            for said in said {
                assert!(failure.message.contains(said), "{json}: {}", failure.message);
            }
        }
        parse::<Object<Whole>>(b" {\"inner\": {\"users\": [\"a\"], \"roles\": null}} ").unwrap();
    }

    #[test]
    fn bodies_count_as_json_unless_typed_otherwise() {
        let said = |content_type: &'static str| {
            is_json(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]))
        };
        assert!(is_json(&HeaderMap::new()));
        for yes in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"] {
            assert!(said(yes), "{yes}");
        }
        assert!(said("application/x-www-form-urlencoded"));
        for no in ["text/plain", "application/xml", "multipart/form-data; boundary=x", ""] {
            assert!(!said(no), "{no}");
        }
    }
}
