//! What crosses the wire: what services send and operators set, and what is read of it. What goes out is what came in.

use roundhouse_sdk::{Id, Whole};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// The operator's settings.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// The roles whose people hear of all tickets.
    pub(crate) admin_roles: Vec<String>,
    /// Whether people are spared what they did themselves.
    pub(crate) exclude_actor: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { admin_roles: ["admin", "super_admin"].map(str::to_owned).into(), exclude_actor: false }
    }
}

/// What services send. Each payload has the ticket's id too; the host made the scope of that.
#[derive(Debug, Deserialize)]
pub enum Message {
    /// There is a new ticket.
    #[serde(rename = "ticket:created")]
    Created(Told<Created>),
    /// Fields of a ticket have changed.
    #[serde(rename = "ticket:updated")]
    Updated(Told<Updated>),
    /// Its status has.
    #[serde(rename = "ticket:statusChanged")]
    StatusChanged(Told<StatusChanged>),
    /// Its priority has.
    #[serde(rename = "ticket:priorityChanged")]
    PriorityChanged(Told<PriorityChanged>),
    /// Somebody commented on it.
    #[serde(rename = "ticket:commentAdded")]
    CommentAdded(Told<CommentAdded>),
    /// Somebody attached a file to it.
    #[serde(rename = "ticket:attachmentAdded")]
    AttachmentAdded(Told<AttachmentAdded>),
    /// Somebody removed one.
    #[serde(rename = "ticket:attachmentDeleted")]
    AttachmentDeleted(Told<AttachmentDeleted>),
}

/// What a service tells: what any event may name, and what this one has to say.
#[derive(Debug)]
pub struct Told<T> {
    whole: Whole<Named>,
    fields: T,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Told<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let whole = Whole::<Named>::deserialize(deserializer)?;
        let fields = serde_json::from_str(whole.text()).map_err(D::Error::custom)?;
        Ok(Self { whole, fields })
    }
}

/// Whom any event may name.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Named {
    pub(crate) creator_id: Option<Id>,
    pub(crate) participants: Option<Vec<Participant>>,
}

/// Somebody in a list of people, who has to have an id.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct Participant(pub(crate) Id);

impl TryFrom<Value> for Participant {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        id_of(&value).map(Self).ok_or("each has to be an id, or an object with one as its id, _id or userId")
    }
}

/// Somebody who may be told of by name alone, or not at all.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Value")]
struct Somebody(Option<Id>);

impl From<Value> for Somebody {
    fn from(value: Value) -> Self {
        Self(id_of(&value))
    }
}

/// The id of a person who is written as an id or as an object with one.
fn id_of(person: &Value) -> Option<Id> {
    match person {
        Value::String(id) => Id::new(id),
        Value::Object(fields) => ["id", "_id", "userId"].iter().find_map(|name| Id::new(fields.get(*name)?.as_str()?)),
        _ => None,
    }
}

/// The first of these fields that tells of a person with an id.
fn person<const N: usize>(fields: &Map<String, Value>, names: [&str; N]) -> Option<Id> {
    names.iter().find_map(|name| id_of(fields.get(*name)?))
}

/// What is read of `ticket:created`, which is the full ticket: who created it and whom it was given to, and no tree of
/// all the rest.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Created {
    created_by: Somebody,
    creator: Somebody,
    assignee_id: Somebody,
    assigned_to: Somebody,
    assignee: Somebody,
}

impl Created {
    fn creator(&self) -> Option<&Id> {
        [&self.created_by, &self.creator].into_iter().find_map(|somebody| somebody.0.as_ref())
    }

    fn assignee(&self) -> Option<&Id> {
        [&self.assignee_id, &self.assigned_to, &self.assignee].into_iter().find_map(|somebody| somebody.0.as_ref())
    }
}

/// What is read of `ticket:updated`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Updated {
    changes: Changes,
    #[serde(default)]
    updated_by: Somebody,
}

/// What is read of the changes: whom the ticket was given to.
#[derive(Debug, Deserialize)]
#[serde(from = "Map<String, Value>")]
struct Changes {
    assignee: Option<Id>,
}

impl From<Map<String, Value>> for Changes {
    fn from(changes: Map<String, Value>) -> Self {
        Self { assignee: person(&changes, ["assigneeId", "assignedTo", "assignee"]) }
    }
}

/// What is read of `ticket:statusChanged`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusChanged {
    #[serde(rename = "oldStatus")]
    _old_status: Option<String>,
    #[serde(rename = "newStatus")]
    _new_status: String,
    #[serde(default)]
    updated_by: Somebody,
}

/// What is read of `ticket:priorityChanged`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PriorityChanged {
    #[serde(rename = "oldPriority")]
    _old_priority: Option<String>,
    new_priority: String,
    #[serde(default)]
    updated_by: Somebody,
}

/// What is read of `ticket:commentAdded`.
#[derive(Debug, Deserialize)]
pub struct CommentAdded {
    comment: Comment,
}

/// What is read of a comment: who made it.
#[derive(Debug, Deserialize)]
#[serde(from = "Map<String, Value>")]
struct Comment {
    commenter: Option<Id>,
}

impl From<Map<String, Value>> for Comment {
    fn from(comment: Map<String, Value>) -> Self {
        Self { commenter: person(&comment, ["user", "userId", "author", "authorId", "createdBy"]) }
    }
}

/// What is read of `ticket:attachmentAdded`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentAdded {
    attachment: Attachment,
    #[serde(default)]
    uploaded_by: Somebody,
}

/// What is read of an attachment: who uploaded it, where the event does not tell.
#[derive(Debug, Deserialize)]
#[serde(from = "Map<String, Value>")]
struct Attachment {
    uploader: Option<Id>,
}

impl From<Map<String, Value>> for Attachment {
    fn from(attachment: Map<String, Value>) -> Self {
        Self { uploader: person(&attachment, ["uploadedBy"]) }
    }
}

/// What is read of `ticket:attachmentDeleted`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentDeleted {
    #[serde(rename = "attachmentId")]
    _attachment_id: Id,
    #[serde(default)]
    deleted_by: Somebody,
}

/// The priority of which everybody is to know.
const URGENT: &str = "urgent";

/// Who is to hear of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipients {
    Admins,
    CreatorAndAdmins,
    Participants,
    Everyone,
}

/// What there is to tell, and what it teaches about the ticket.
#[derive(Debug)]
pub(crate) struct News<'a> {
    pub(crate) whole: &'a Whole<Named>,
    pub(crate) recipients: Recipients,
    /// Who caused it.
    pub(crate) actor: Option<&'a Id>,
    /// The creator, where the event tells who that is.
    pub(crate) creator: Option<&'a Id>,
    /// Who takes part in the ticket by this.
    pub(crate) takes_part: Option<&'a Id>,
}

impl<'a, T> Told<T> {
    /// News that somebody caused, and that teaches no more than the payload names.
    fn news(&'a self, recipients: Recipients, actor: Option<&'a Id>) -> News<'a> {
        let creator = self.whole.fields.creator_id.as_ref();
        News { whole: &self.whole, recipients, actor, creator, takes_part: None }
    }
}

impl Message {
    pub(crate) fn news(&self) -> News<'_> {
        match self {
            Self::Created(told) => {
                let creator = told.whole.fields.creator_id.as_ref().or(told.fields.creator());
                let takes_part = told.fields.assignee();
                News { creator, takes_part, ..told.news(Recipients::Admins, creator) }
            }
            Self::Updated(told) => {
                let takes_part = told.fields.changes.assignee.as_ref();
                News { takes_part, ..told.news(Recipients::CreatorAndAdmins, told.fields.updated_by.0.as_ref()) }
            }
            Self::StatusChanged(told) => told.news(Recipients::CreatorAndAdmins, told.fields.updated_by.0.as_ref()),
            Self::PriorityChanged(told) => {
                let is_urgent = told.fields.new_priority.eq_ignore_ascii_case(URGENT);
                let recipients = if is_urgent { Recipients::Everyone } else { Recipients::CreatorAndAdmins };
                told.news(recipients, told.fields.updated_by.0.as_ref())
            }
            Self::CommentAdded(told) => {
                let commenter = told.fields.comment.commenter.as_ref();
                News { takes_part: commenter, ..told.news(Recipients::Participants, commenter) }
            }
            Self::AttachmentAdded(told) => {
                let uploader = told.fields.uploaded_by.0.as_ref().or(told.fields.attachment.uploader.as_ref());
                News { takes_part: uploader, ..told.news(Recipients::Participants, uploader) }
            }
            Self::AttachmentDeleted(told) => told.news(Recipients::Participants, told.fields.deleted_by.0.as_ref()),
        }
    }
}
