//! Idempotency keys as calls carry them: in a header, in the body, or in both.

use hyper::HeaderMap;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::model::{ErrorCode, Failure};

/// The longest key, in characters.
pub(in crate::api) const MAX_KEY_CHARS: usize = 128;

/// SHA-256 of a call: stable over restarts of the host, because it is stored.
pub(in crate::api) type Fingerprint = [u8; 32];

/// The key of a call, and the fingerprint of the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) struct IdempotencyKey {
    pub(in crate::api) text: String,
    pub(in crate::api) fingerprint: Fingerprint,
}

impl IdempotencyKey {
    pub(in crate::api) fn new(text: String, call: impl Serialize) -> Self {
        let mut hash = Sha256::new();
        // A write to a hash cannot fail, and calls are texts, which always have a JSON form.
        let _ = serde_json::to_writer(&mut hash, &call);
        Self { text, fingerprint: hash.finalize().into() }
    }

    /// # Errors
    /// `bad_request` where the key is empty, too long, or has control characters.
    pub(in crate::api) fn check(&self) -> Result<(), Failure> {
        let n_chars = self.text.chars().count();
        if (1..=MAX_KEY_CHARS).contains(&n_chars) && !self.text.chars().any(char::is_control) {
            return Ok(());
        }
        let message = format!("idempotencyKey must be 1 to {MAX_KEY_CHARS} printable characters");
        Err(Failure::new(ErrorCode::BadRequest, message))
    }
}

/// The key in the header of a request: a string in quotes (draft-ietf-httpapi-idempotency-key-header-07, section 2.1),
/// or without quotes, as most clients send it.
///
/// # Errors
/// `bad_request` where the header occurs twice, or its key is empty, too long, or has characters other than visible
/// ASCII without quotes and backslashes.
pub(in crate::api) fn header_key(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let bad = |what: &str| Failure::new(ErrorCode::BadRequest, format!("the header Idempotency-Key {what}"));
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next().map(|value| value.as_bytes()) else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad("stands there more than once: send one"));
    }
    let key = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
    if !(1..=MAX_KEY_CHARS).contains(&key.len())
        || key.iter().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'"' | b'\\'))
    {
        let what = format!(
            "must be 1 to {MAX_KEY_CHARS} visible ASCII characters without quotes and backslashes, and may stand in quotes: others \
             can be sent as idempotencyKey in the body"
        );
        return Err(bad(&what));
    }
    Ok(Some(key.iter().map(|byte| char::from(*byte)).collect()))
}

/// The one key of a call, from its header or its body.
///
/// # Errors
/// `conflict` where they differ.
pub(in crate::api) fn single_key(header: Option<String>, body: Option<String>) -> Result<Option<String>, Failure> {
    match (header, body) {
        (Some(header), Some(body)) if header != body => {
            let message = format!(
                "the header Idempotency-Key is {header:?} and idempotencyKey in the body is {body:?}: send one of them, or the \
                 same twice"
            );
            Err(Failure::new(ErrorCode::Conflict, message))
        }
        (header, body) => Ok(header.or(body)),
    }
}

pub(in crate::api) fn conflict(key: &str) -> Failure {
    let message = format!("the idempotencyKey {key:?} was used for another call: choose a new one");
    Failure::new(ErrorCode::Conflict, message)
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn header_key_is_accepted_with_or_without_quotes() {
        let read = |values: &[&str]| {
            let values = values.iter().map(|value| ("idempotency-key".parse().unwrap(), value.parse().unwrap()));
            header_key(&HeaderMap::from_iter(values.collect::<Vec<(HeaderName, HeaderValue)>>()))
        };
        assert_eq!(read(&[]).unwrap(), None);
        let longest = "x".repeat(MAX_KEY_CHARS);
        for (value, key) in
            [("a-1", "a-1"), ("\"a-1\"", "a-1"), (&longest, &longest), (&format!("\"{longest}\""), &longest)]
        {
            assert_eq!(read(&[value]).unwrap().as_deref(), Some(key), "{value}");
        }
        let too_long = format!("{longest}x");
        for bad in [&[""][..], &["\"\""], &["\"a"], &["a\""], &["\""], &["a\\b"], &["a b"], &[&too_long], &["a", "a"]] {
            let failure = read(bad).unwrap_err();
            assert!(failure.code == ErrorCode::BadRequest && failure.message.contains("Idempotency-Key"), "{bad:?}");
        }
    }

    #[test]
    fn differing_header_and_body_keys_conflict() {
        let text = |key: &str| Some(key.to_owned());
        assert_eq!(single_key(None, None).unwrap(), None);
        for (header, body) in [(text("a"), None), (None, text("a")), (text("a"), text("a"))] {
            assert_eq!(single_key(header, body).unwrap(), text("a"));
        }
        assert_eq!(single_key(text("a"), text("b")).unwrap_err().code, ErrorCode::Conflict);
    }

    #[test]
    fn keys_are_1_to_128_printable_characters() {
        let check = |key: &str| IdempotencyKey::new(key.to_owned(), ()).check();
        for good in ["a", "a b", "é", &"é".repeat(128)] {
            check(good).unwrap();
        }
        for bad in ["", "a\n", "\u{7f}", &"x".repeat(129)] {
            assert_eq!(check(bad).unwrap_err().code, ErrorCode::BadRequest, "{bad:?}");
        }
    }
}
