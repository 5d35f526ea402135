//! JSON Schemas (draft 2020-12, for OpenAPI 3.1) of requests and answers, generated from the types that are read and written,
//! so that both have the same fields.

use std::borrow::Cow;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::transform::{RecursiveTransform, transform_subschemas};
use schemars::{JsonSchema, Schema, json_schema};
use serde_json::{Map, Value, json};

use super::idempotency::MAX_KEY_CHARS;
use crate::model::{Failure, INVISIBLE, MAX_ID_CHARS, MAX_ROOM_CHARS};
use crate::protocol::RESERVED_EVENTS;

/// The longest event name, in characters.
pub(super) const MAX_EVENT_CHARS: usize = 256;

/// The longest reason, in characters.
pub(super) const MAX_REASON_CHARS: usize = 256;

/// The first and the last time that a call may name, in milliseconds since 1970: the years 2000 to 2999. A time in seconds
/// is earlier.
pub(super) const MIN_TIME_MS: u64 = 946_684_800_000;
pub(super) const MAX_TIME_MS: u64 = 32_503_679_999_999;

/// The place of schemas in the document.
const DEFINITIONS: &str = "/components/schemas";

/// Text without control characters.
const PRINTABLE: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$";

/// Characters that ids may not have, in the syntax of a pattern's character class: control characters and whitespace.
const CONTROL_OR_WHITESPACE: &str =
    "\\u0000-\\u0020\\u007f-\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";

/// Generates schemas, and collects the definitions that they refer to.
#[derive(Debug)]
pub(super) struct Schemas {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let settings =
            || SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = DEFINITIONS.into());
        // `required` shows that a field is optional; its default is internal.
        let without_defaults = RecursiveTransform(|schema: &mut Schema| drop(schema.remove("default")));
        Self {
            read: settings().for_deserialize().with_transform(without_defaults).into_generator(),
            written: settings().for_serialize().with_transform(close).into_generator(),
        }
    }

    /// The schema of a type that is read.
    pub(super) fn read<T: JsonSchema>(&mut self) -> Value {
        self.read.subschema_for::<T>().into()
    }

    /// The schema of a type that is written.
    pub(super) fn written<T: JsonSchema>(&mut self) -> Value {
        self.written.subschema_for::<T>().into()
    }

    /// All definitions that schemas referred to, by name.
    pub(super) fn into_definitions(mut self) -> Map<String, Value> {
        let mut definitions = self.read.take_definitions(true);
        definitions.extend(self.written.take_definitions(true));
        definitions
    }
}

/// A refusal that a call may be answered with, as `/openapi.json` describes it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: &'static str,
    pub(super) why: &'static str,
    pub(super) content: fn(&mut Schemas) -> Value,
}

impl Refusal {
    /// A refusal with a code and a message.
    pub(super) const fn new(status: &'static str, why: &'static str) -> Self {
        Self::with_content(status, why, |schemas| json_content(schemas.written::<Failure>()))
    }

    pub(super) const fn with_content(
        status: &'static str,
        why: &'static str,
        content: fn(&mut Schemas) -> Value,
    ) -> Self {
        Self { status, why, content }
    }
}

/// The content of a body in JSON.
pub(super) fn json_content(schema: Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

/// The content of a body in plain text.
pub(super) fn text_content(_: &mut Schemas) -> Value {
    json!({ "text/plain": { "schema": { "type": "string" } } })
}

/// Closes the schema of a written value: it has the fields of the schema and no others.
fn close(schema: &mut Schema) {
    if schema.get("properties").is_some() {
        schema.insert("additionalProperties".to_owned(), false.into());
    }
    transform_subschemas(&mut close, schema);
}

/// Schemas of checked texts, by their names in the document.
macro_rules! texts {
    ($($(#[doc = $about:literal])+ $name:ident = $schema:expr;)+) => {$(
        $(#[doc = $about])+
        #[derive(Debug)]
        pub(super) struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema: Schema = $schema;
                schema.insert("description".to_owned(), concat!($($about),+).trim_start().into());
                schema
            }
        }
    )+};
}

texts! {
    /// The id of a user, or the name of a role.
    Id = word(MAX_ID_CHARS);
    /// The id of a connection, as `connected` says it.
    ConnectionId = json_schema!({ "type": "string", "pattern": "^[0-9a-f]{16}$" });
    /// The id of a block.
    BlockId = json_schema!({
        "type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
    });
    /// A reason, for operators.
    Reason = json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_REASON_CHARS, "pattern": PRINTABLE });
    /// A time in epoch milliseconds.
    Time = json_schema!({ "type": "integer", "minimum": MIN_TIME_MS, "maximum": MAX_TIME_MS });
    /// The name of a room.
    Room = word(MAX_ROOM_CHARS);
    /// The name of an event, other than those that are the protocols' own.
    EventName = json_schema!({
        "type": "string", "minLength": 1, "maxLength": MAX_EVENT_CHARS, "pattern": PRINTABLE,
        "not": { "enum": RESERVED_EVENTS },
    });
    /// A call that is repeated with its key within 24 hours is answered as the first was, and done once.
    IdempotencyKey = json_schema!({
        "type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARS, "pattern": PRINTABLE,
    });
    /// An idempotency key in a header, which may stand in quotes.
    HeaderKey = json_schema!({
        "type": "string",
        "pattern": format!("^([!#-\\[\\]-~]{{1,{MAX_KEY_CHARS}}}|\"[!#-\\[\\]-~]{{1,{MAX_KEY_CHARS}}}\")$"),
    });
}

/// The schema of ids: without control characters, whitespace and invisible characters. Invisible characters are in the
/// pattern unescaped, because dialects differ in how they escape characters over U+FFFF.
fn word(max_chars: usize) -> Schema {
    let invisible: String = INVISIBLE.iter().map(|range| format!("{}-{}", range.start(), range.end())).collect();
    let pattern = format!("^[^{CONTROL_OR_WHITESPACE}{invisible}]+$");
    json_schema!({ "type": "string", "minLength": 1, "maxLength": max_chars, "pattern": pattern })
}
