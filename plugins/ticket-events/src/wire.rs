//! Messages and settings, as they are on the wire. Emitted events are the received ones.

use roundhouse_sdk::{Id, Passthrough, Reference, object};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

/// The operator's settings.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// The roles of admins, who get the events of all tickets.
    pub(crate) admin_roles: Vec<String>,
    /// Whether an event is not sent to the user who caused it.
    pub(crate) exclude_actor: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { admin_roles: ["admin", "super_admin"].map(str::to_owned).into(), exclude_actor: false }
    }
}

roundhouse_sdk::messages! {
    /// Messages of services. The host has read the ticket's id from each payload.
    #[derive(Debug)]
    pub enum Message {
        /// A ticket was created.
        passthrough "ticket:created" => Created(Told<Created>),
        /// Fields of a ticket have changed.
        passthrough "ticket:updated" => Updated(Told<Updated>),
        /// The status has changed.
        passthrough "ticket:statusChanged" => StatusChanged(Told<StatusChanged>),
        /// The priority has changed.
        passthrough "ticket:priorityChanged" => PriorityChanged(Told<PriorityChanged>),
        /// A comment was added.
        passthrough "ticket:commentAdded" => CommentAdded(Told<CommentAdded>),
        /// A file was attached.
        passthrough "ticket:attachmentAdded" => AttachmentAdded(Told<AttachmentAdded>),
        /// A file was removed.
        passthrough "ticket:attachmentDeleted" => AttachmentDeleted(Told<AttachmentDeleted>),
    }
}

/// A service's payload: the fields that any event may have, and those of this event.
#[derive(Debug)]
pub struct Told<T> {
    sent: Passthrough<Named>,
    fields: T,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Told<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let sent = Passthrough::<Named>::deserialize(deserializer)?;
        let fields = serde_json::from_str(sent.text()).map_err(D::Error::custom)?;
        Ok(Self { sent, fields })
    }
}

/// The fields that any event may have.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Named {
    pub(crate) creator_id: Option<Id>,
    pub(crate) participants: Option<Vec<Participant>>,
}

/// A user in a list, who must have an id.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Reference")]
pub(crate) struct Participant(pub(crate) Id);

impl TryFrom<Reference> for Participant {
    type Error = &'static str;

    fn try_from(reference: Reference) -> Result<Self, Self::Error> {
        reference.into_id().map(Self).ok_or("each has to be an id, or an object with one as its id, _id or userId")
    }
}

/// The first reference with an id.
fn person<const N: usize>(named: [&Reference; N]) -> Option<&Id> {
    named.into_iter().find_map(Reference::id)
}

/// The fields of `ticket:created`, which is the full ticket: the creator and the assignee.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Created {
    created_by: Reference,
    creator: Reference,
    assignee_id: Reference,
    assigned_to: Reference,
    assignee: Reference,
}

impl Created {
    fn creator(&self) -> Option<&Id> {
        person([&self.created_by, &self.creator])
    }

    fn assignee(&self) -> Option<&Id> {
        person([&self.assignee_id, &self.assigned_to, &self.assignee])
    }
}

/// The fields of `ticket:updated`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Updated {
    #[serde(deserialize_with = "object")]
    changes: Changes,
    #[serde(default)]
    updated_by: Reference,
}

/// The fields of the changes: the assignee.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Changes {
    assignee_id: Reference,
    assigned_to: Reference,
    assignee: Reference,
}

impl Changes {
    fn assignee(&self) -> Option<&Id> {
        person([&self.assignee_id, &self.assigned_to, &self.assignee])
    }
}

/// The fields of `ticket:statusChanged`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusChanged {
    #[serde(rename = "oldStatus")]
    _old_status: Option<String>,
    #[serde(rename = "newStatus")]
    _new_status: String,
    #[serde(default)]
    updated_by: Reference,
}

/// The fields of `ticket:priorityChanged`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PriorityChanged {
    #[serde(rename = "oldPriority")]
    _old_priority: Option<String>,
    new_priority: String,
    #[serde(default)]
    updated_by: Reference,
}

/// The fields of `ticket:commentAdded`.
#[derive(Debug, Deserialize)]
pub struct CommentAdded {
    #[serde(deserialize_with = "object")]
    comment: Comment,
}

/// The fields of a comment: its author.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Comment {
    user: Reference,
    user_id: Reference,
    author: Reference,
    author_id: Reference,
    created_by: Reference,
}

impl Comment {
    fn commenter(&self) -> Option<&Id> {
        person([&self.user, &self.user_id, &self.author, &self.author_id, &self.created_by])
    }
}

/// The fields of `ticket:attachmentAdded`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentAdded {
    #[serde(deserialize_with = "object")]
    attachment: Attachment,
    #[serde(default)]
    uploaded_by: Reference,
}

/// The fields of an attachment: the uploader, if the event does not name one.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Attachment {
    uploaded_by: Reference,
}

/// The fields of `ticket:attachmentDeleted`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentDeleted {
    #[serde(rename = "attachmentId")]
    _attachment_id: Id,
    #[serde(default)]
    deleted_by: Reference,
}

/// The priority whose tickets are announced to all connections.
const URGENT: &str = "urgent";

/// The recipients of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipients {
    Admins,
    CreatorAndAdmins,
    Participants,
    Everyone,
}

/// An event to pass on, and the facts about the ticket in it.
#[derive(Debug)]
pub(crate) struct News<'a> {
    pub(crate) sent: &'a Passthrough<Named>,
    pub(crate) recipients: Recipients,
    /// The user who caused it.
    pub(crate) actor: Option<&'a Id>,
    /// The creator, if the event names one.
    pub(crate) creator: Option<&'a Id>,
    /// A new participant.
    pub(crate) takes_part: Option<&'a Id>,
}

impl<'a, T> Told<T> {
    /// An event without a new participant.
    fn news(&'a self, recipients: Recipients, actor: Option<&'a Id>) -> News<'a> {
        let creator = self.sent.fields.creator_id.as_ref();
        News { sent: &self.sent, recipients, actor, creator, takes_part: None }
    }
}

impl Message {
    pub(crate) fn news(&self) -> News<'_> {
        match self {
            Self::Created(told) => {
                let creator = told.sent.fields.creator_id.as_ref().or(told.fields.creator());
                let takes_part = told.fields.assignee();
                News { creator, takes_part, ..told.news(Recipients::Admins, creator) }
            }
            Self::Updated(told) => {
                let takes_part = told.fields.changes.assignee();
                News { takes_part, ..told.news(Recipients::CreatorAndAdmins, told.fields.updated_by.id()) }
            }
            Self::StatusChanged(told) => told.news(Recipients::CreatorAndAdmins, told.fields.updated_by.id()),
            Self::PriorityChanged(told) => {
                let is_urgent = told.fields.new_priority.eq_ignore_ascii_case(URGENT);
                let recipients = if is_urgent { Recipients::Everyone } else { Recipients::CreatorAndAdmins };
                told.news(recipients, told.fields.updated_by.id())
            }
            Self::CommentAdded(told) => {
                let commenter = told.fields.comment.commenter();
                News { takes_part: commenter, ..told.news(Recipients::Participants, commenter) }
            }
            Self::AttachmentAdded(told) => {
                let uploader = person([&told.fields.uploaded_by, &told.fields.attachment.uploaded_by]);
                News { takes_part: uploader, ..told.news(Recipients::Participants, uploader) }
            }
            Self::AttachmentDeleted(told) => told.news(Recipients::Participants, told.fields.deleted_by.id()),
        }
    }
}
