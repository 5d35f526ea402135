//! Events as case files have them. The contract documents the cases and fields.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::octets::Octets;

/// A connection and its user.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "the contract documents the fields")]
pub struct CaseMember {
    pub connection: String,
    pub user_id: String,
    pub name: Option<String>,
    pub roles: Vec<String>,
    pub claims: Box<RawValue>,
}

/// The arguments of an event, and its attachments.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the contract documents the fields")]
pub struct CasePayload {
    pub args: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Octets>,
}

/// The sender of a message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the contract documents the cases")]
pub enum CaseOrigin {
    Client(CaseMember),
    Service(String),
    Other(String, Box<RawValue>),
}

/// An event. See `event` in the contract.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "the contract documents the cases")]
pub enum CaseEvent {
    Message {
        event: String,
        origin: CaseOrigin,
        payload: CasePayload,
        wants_reply: bool,
    },
    Joined(CaseMember),
    Left {
        member: CaseMember,
        reason: String,
    },
    Timer {
        name: String,
        payload: Box<RawValue>,
        due: u64,
    },
    Acknowledgement {
        tag: String,
        connection: String,
        answer: Result<CasePayload, String>,
    },
    Query {
        name: String,
        data: Box<RawValue>,
    },
    Gathered {
        name: String,
        data: Box<RawValue>,
        answers: Vec<Box<RawValue>>,
        omitted: u32,
    },
    Saved {
        tag: String,
        collection: String,
        document: Box<RawValue>,
        restored: bool,
        outcome: Result<String, CaseStoreFailure>,
    },
    Fetched {
        tag: String,
        outcome: Result<CasePage, CaseStoreFailure>,
    },
    Other {
        name: String,
        data: Box<RawValue>,
    },
}

/// Why documents were not stored or fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the contract documents the fields")]
pub struct CaseStoreFailure {
    pub code: String,
    pub message: String,
    pub retryable: bool,
}

/// A page of documents: id and body of each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "the contract documents the fields")]
pub struct CasePage {
    pub documents: Vec<(String, Box<RawValue>)>,
    pub has_more: bool,
}

impl CaseEvent {
    /// The event's name in logs.
    pub fn name(&self) -> &str {
        match self {
            Self::Message { event, .. } => event,
            Self::Joined(_) => "joined",
            Self::Left { .. } => "left",
            Self::Timer { .. } => "timer",
            Self::Acknowledgement { .. } => "acknowledgement",
            Self::Query { .. } => "query",
            Self::Gathered { .. } => "gathered",
            Self::Saved { .. } => "saved",
            Self::Fetched { .. } => "fetched",
            Self::Other { name, .. } => name,
        }
    }

    pub(super) fn member(&mut self) -> Option<&mut CaseMember> {
        match self {
            Self::Message { origin: CaseOrigin::Client(member), .. }
            | Self::Joined(member)
            | Self::Left { member, .. } => Some(member),
            _ => None,
        }
    }

    /// The JSON that clients, services and the feature itself have written.
    pub(super) fn texts(&mut self) -> Vec<&mut Box<RawValue>> {
        match self {
            Self::Message { payload, .. } | Self::Acknowledgement { answer: Ok(payload), .. } => {
                vec![&mut payload.args]
            }
            Self::Timer { payload: text, .. }
            | Self::Query { data: text, .. }
            | Self::Saved { document: text, .. }
            | Self::Other { data: text, .. } => vec![text],
            Self::Gathered { data, answers, .. } => std::iter::once(data).chain(answers).collect(),
            Self::Fetched { outcome: Ok(page), .. } => page.documents.iter_mut().map(|(_, body)| body).collect(),
            _ => Vec::new(),
        }
    }
}
