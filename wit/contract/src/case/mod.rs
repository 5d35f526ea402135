//! Case files: one call of a feature, with all that it got and what came of it, as JSON. The same input gives the same output,
//! so a case can be replayed anywhere: by another build, or in a native test.

mod describe;
mod end;
mod event;
mod octets;
mod redact;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use describe::{describe, json_or_text, state_json};
pub use end::{CaseEffect, CaseEnd};
pub use event::{CaseEvent, CaseMember, CaseOrigin, CasePage, CasePayload, CaseStoreFailure};
pub use octets::Octets;
pub use redact::redact_fields;

/// The version of the format.
pub const CASE_FORMAT: u32 = 1;

/// A call of a feature.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// [`CASE_FORMAT`].
    pub format: u32,
    /// The build that was called.
    pub build: CaseBuild,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What came of it.
    pub end: CaseEnd,
    /// What was left out: `claims`, or names of fields. A replay may go another way without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redacted: Vec<String>,
    /// The facts beside the event.
    pub context: CaseContext,
    /// The event.
    pub event: CaseEvent,
    /// The state of the scope; none of a new scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<CaseState>,
}

/// A build of a feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names say all")]
pub struct CaseBuild {
    pub name: String,
    pub version: String,
    pub generation: u64,
    pub digest: String,
}

/// See `context` in the contract.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "the contract documents the fields")]
pub struct CaseContext {
    pub now: u64,
    pub seed: u64,
    pub sequence: u64,
    pub scope: String,
    pub params: Vec<String>,
    pub room_connections: u32,
    pub room_users: u32,
    pub connection_in_room: bool,
    pub user_connections: u32,
    pub settings: Box<RawValue>,
}

/// A state with the version of its schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseState {
    /// The version.
    pub version: u32,
    /// The bytes.
    pub bytes: Octets,
}

impl Case {
    /// Reads a case file.
    ///
    /// # Errors
    /// With what is wrong with it, and where.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut cases = Self::read_all(text)?;
        match (cases.pop(), cases.is_empty()) {
            (Some(case), true) => Ok(case),
            (None, _) => Err("it is no case file: it is empty".to_owned()),
            (_, false) => Err("it is a recording of several cases".to_owned()),
        }
    }

    /// Reads a file of cases, one after another.
    ///
    /// # Errors
    /// With what is wrong with it, and where.
    pub fn read_all(text: &str) -> Result<Vec<Self>, String> {
        let mut cases = Vec::new();
        for case in serde_json::Deserializer::from_str(text).into_iter::<Self>() {
            let case = case.map_err(|error| format!("it is no case file: {error}"))?;
            if case.format != CASE_FORMAT {
                return Err(format!("it has the format {}, and this program reads {CASE_FORMAT}", case.format));
            }
            cases.push(case);
        }
        Ok(cases)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    pub(super) fn case() -> Case {
        let member = CaseMember {
            connection: "a1".to_owned(),
            user_id: "ana".to_owned(),
            name: None,
            roles: Vec::new(),
            claims: raw(r#"{"email":"ana@example.org"}"#),
        };
        let build =
            CaseBuild { name: "n".to_owned(), version: "1.0.0".to_owned(), generation: 3, digest: "d".to_owned() };
        Case {
            format: CASE_FORMAT,
            build,
            at_ms: 1,
            end: CaseEnd::Failed("it panicked".to_owned()),
            redacted: Vec::new(),
            context: CaseContext {
                now: 1,
                seed: u64::MAX,
                sequence: 7,
                scope: "s:1".to_owned(),
                params: vec!["1".to_owned()],
                room_connections: 1,
                room_users: 1,
                connection_in_room: true,
                user_connections: 1,
                settings: raw("{}"),
            },
            event: CaseEvent::Message {
                event: "s:say".to_owned(),
                origin: CaseOrigin::Client(member),
                payload: CasePayload {
                    args: raw(r#"[{"id":"1", "body":{"text":"secret"},"n":1e2}]"#),
                    attachments: vec![Octets::from(&[0xff, 0][..])],
                },
                wants_reply: true,
            },
            state: Some(CaseState { version: 2, bytes: Octets::from(&br#"{"last":[{"body":"older"}]}"#[..]) }),
        }
    }

    #[test]
    fn case_reads_what_it_writes() {
        let text = serde_json::to_string(&case()).unwrap();
        let read = Case::read(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert!(text.contains(r#"{"id":"1", "body":{"text":"secret"},"n":1e2}"#), "byte by byte: {text}");
        let two = format!("{text}\n{text}\n");
        assert_eq!((Case::read_all(&two).unwrap().len(), Case::read(&two).is_err()), (2, true));
        let CaseEvent::Message { payload, .. } = read.event else { panic!("it was a message") };
        assert_eq!(payload.attachments[0].to_bytes(), Some(vec![0xff, 0]));
        assert_eq!(Octets::Hex("0".to_owned()).to_bytes(), None);
        for bad in ["", "{}", &text.replace("\"format\":1", "\"format\":9"), &text.replace("\"atMs\"", "\"when\"")] {
            assert!(Case::read(bad).is_err(), "{bad}");
        }
    }
}
