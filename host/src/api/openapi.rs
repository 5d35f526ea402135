//! The description of the API, made from the table of calls, and from the types and bounds by which they read and write.

use serde_json::{Map, Value, json};

use super::calls::{Call, ROUTES, Route};
use super::directory::{Connection, Connections, DEFAULT_LIMIT, Disconnected, MAX_LIMIT, Members, User};
use super::emit::{Delivered, Emit, MAX_EMITS, MAX_EVENT_CHARS};
use super::events::ServiceEvent;
use super::keys::KeyScope;
use super::plugins::{Plugins, Refused, Stats, Unloaded};
use super::schema::{ConnectionId, HeaderKey, Id, Room, Schemas};
use crate::model::Failure;
use crate::plugin::{Change, PluginReport};

/// The document at `/openapi.json`.
pub(super) fn document() -> Value {
    let mut schemas = Schemas::new();
    let mut paths: Map<String, Value> = Map::new();
    for route in &ROUTES {
        paths.entry(route.path).or_insert_with(|| json!({}))[route.method.as_str().to_ascii_lowercase()] =
            operation(route, &mut schemas);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Roundhouse",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "How services and operators speak to a host. Errors are `{code, message}`.",
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "securitySchemes": { "apiKey": { "type": "http", "scheme": "bearer", "description": "An API key." } },
            "schemas": schemas.into_definitions(),
        },
    })
}

fn operation(route: &Route, schemas: &mut Schemas) -> Value {
    let about = match route.scope {
        None => "Needs no key.",
        Some(KeyScope::Publish) => "Needs a key with the scope `publish`.",
        Some(KeyScope::Admin) => "Needs a key with the scope `admin`.",
    };
    let mut operation = json!({
        "operationId": operation_id(route.call),
        "summary": route.summary,
        "description": about,
        "security": if route.scope.is_some() { json!([{ "apiKey": [] }]) } else { json!([]) },
        "parameters": parameters(route, schemas),
        "responses": responses(route, schemas),
    });
    if let Some(body) = request_body(route.call, schemas) {
        operation["requestBody"] = body;
    }
    operation
}

fn operation_id(call: Call) -> &'static str {
    match call {
        Call::Emit => "emit",
        Call::Event => "sendEvent",
        Call::Query => "query",
        Call::Stats => "stats",
        Call::Plugins => "listPlugins",
        Call::Plugin => "readPlugin",
        Call::InstallPlugin => "installPlugin",
        Call::LoadPlugin => "loadPlugin",
        Call::UnloadPlugin => "unloadPlugin",
        Call::RollBackPlugin => "rollBackPlugin",
        Call::ResetPlugin => "resetPlugin",
        Call::Connections => "listConnections",
        Call::Connection => "readConnection",
        Call::CloseConnection => "disconnectConnection",
        Call::User => "readUser",
        Call::CloseUser => "disconnectUser",
        Call::Room => "readRoom",
        Call::Alive => "alive",
        Call::Ready => "ready",
        Call::Metrics => "metrics",
        Call::Description => "description",
    }
}

fn parameters(route: &Route, schemas: &mut Schemas) -> Value {
    let in_path = route.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = in_path
        .map(|name| {
            let schema = match (name, route.call) {
                ("id", Call::Connection | Call::CloseConnection) => schemas.read::<ConnectionId>(),
                ("id", _) => schemas.read::<Id>(),
                ("room", _) => schemas.read::<Room>(),
                ("query", _) => json!({ "type": "string", "minLength": 1, "maxLength": MAX_EVENT_CHARS }),
                _ => json!({ "type": "string", "pattern": "^[a-z0-9-]+$", "minLength": 1, "maxLength": 64 }),
            };
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        })
        .collect();
    let mut in_query = |name: &str, about: &str, schema: Value| {
        let parameter =
            json!({ "name": name, "in": "query", "required": false, "description": about, "schema": schema });
        parameters.push(parameter);
    };
    if route.call.may_lose_writes() {
        let about = "Whether states may be lost that the build cannot take over.";
        in_query("loseWrites", about, json!({ "type": "boolean", "default": false }));
    }
    if route.call.lists() {
        let limit = json!({ "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT });
        in_query("limit", "How many, at most.", limit);
        in_query("after", "The `next` of the page before.", schemas.read::<ConnectionId>());
    }
    if route.call == Call::Connections {
        in_query("user", "Of this user alone.", schemas.read::<Id>());
    }
    if matches!(route.call, Call::Emit | Call::Event) {
        let about = "As `idempotencyKey` in the body, which must be the same if both are there; of an array of emits the key of \
                     the whole call.";
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false, "description": about,
            "schema": schemas.read::<HeaderKey>(),
        }));
    }
    parameters.into()
}

fn request_body(call: Call, schemas: &mut Schemas) -> Option<Value> {
    let json = |required: bool, schema: Value| json!({ "required": required, "content": { "application/json": { "schema": schema } } });
    Some(match call {
        Call::Emit => json(true, one_or_several(schemas.read::<Emit<'_>>())),
        Call::Event => json(true, schemas.read::<ServiceEvent<'_>>()),
        Call::Query => json(false, json!({})),
        Call::InstallPlugin | Call::LoadPlugin => json!({
            "required": true,
            "description": "A WebAssembly component.",
            "content": { "application/octet-stream": { "schema": { "type": "string", "format": "binary" } } },
        }),
        _ => return None,
    })
}

/// What a call may answer: each status that any path through its code ends in.
fn responses(route: &Route, schemas: &mut Schemas) -> Value {
    let (content_type, schema) = success(route.call, schemas);
    let error = schemas.written::<Failure>();
    let mut responses = json!({
        "200": { "description": "Done.", "content": { content_type: { "schema": schema } } },
    });
    let mut refusal = |status: &str, why: &str, schema: &Value| {
        let content = json!({ "application/json": { "schema": schema } });
        responses[status] = json!({ "description": why, "content": content });
    };
    if route.scope.is_some() {
        refusal("400", "Something is not what it should be; the message says what and where.", &error);
        refusal("401", "There is no key, or not one that the host knows.", &error);
        refusal("403", "The key lacks the scope, or the feature refuses.", &error);
    }
    let by_feature: &[(&str, &str)] = &[
        ("404", "No feature handles this, or it does not find what is named."),
        ("429", "More than may be sent in this time."),
        ("500", "The host failed."),
        ("503", "The feature or the host cannot do this now: try again later."),
    ];
    let of_bodies: &[(&str, &str)] = &[
        ("413", "The body, or something in it, is too large."),
        ("415", "The body is said to be something else than JSON."),
    ];
    let conflict = (
        "409",
        "The idempotency key was used for another call, the header has another than the body, or the call makes no sense now.",
    );
    let missing = ("404", "There is none.");
    let further: Vec<(&str, &str)> = match route.call {
        Call::Emit => [&[conflict, by_feature[3]], of_bodies].concat(),
        Call::Event | Call::Query => [&[conflict], by_feature, of_bodies].concat(),
        Call::Plugin => vec![missing, by_feature[3]],
        Call::Connection | Call::CloseConnection | Call::User | Call::CloseUser | Call::Room => {
            vec![missing]
        }
        Call::UnloadPlugin => vec![missing, by_feature[2], by_feature[3]],
        Call::RollBackPlugin => {
            vec![missing, ("409", "There is no generation to go back to, or states would be lost."), by_feature[3]]
        }
        Call::ResetPlugin => vec![missing],
        _ => Vec::new(),
    };
    for (status, why) in further {
        refusal(status, why, &error);
    }
    match route.call {
        Call::InstallPlugin | Call::LoadPlugin | Call::ResetPlugin => {
            let schema = schemas.written::<Refused<'_>>();
            refusal("422", "The component is refused, and nothing has changed.", &schema);
        }
        Call::Ready => responses["503"] = json!({ "description": "Not now.", "content": plain_text() }),
        _ => {}
    }
    responses
}

fn plain_text() -> Value {
    json!({ "text/plain": { "schema": { "type": "string" } } })
}

/// What a call answers that goes well.
fn success(call: Call, schemas: &mut Schemas) -> (&'static str, Value) {
    let schema = match call {
        Call::Emit => one_or_several(schemas.written::<Delivered>()),
        // Whatever the feature replies.
        Call::Event | Call::Query => json!({}),
        Call::Stats => schemas.written::<Stats>(),
        Call::Plugins => schemas.written::<Plugins>(),
        Call::Plugin => schemas.written::<PluginReport>(),
        Call::InstallPlugin | Call::LoadPlugin | Call::RollBackPlugin | Call::ResetPlugin => {
            schemas.written::<Change>()
        }
        Call::UnloadPlugin => schemas.written::<Unloaded>(),
        Call::Connections => schemas.written::<Connections>(),
        Call::Connection => schemas.written::<Connection>(),
        Call::User => schemas.written::<User>(),
        Call::Room => schemas.written::<Members>(),
        Call::CloseConnection | Call::CloseUser => schemas.written::<Disconnected>(),
        Call::Alive | Call::Ready | Call::Metrics => return ("text/plain", json!({ "type": "string" })),
        Call::Description => json!({ "type": "object" }),
    };
    ("application/json", schema)
}

/// One, or a list of them: emits, and what each was answered.
fn one_or_several(one: Value) -> Value {
    let several = json!({ "type": "array", "items": one, "maxItems": MAX_EMITS });
    json!({ "oneOf": [one, several] })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// All schemas that a part of the document names.
    fn references<'a>(part: &'a Value, into: &mut HashSet<&'a str>) {
        match part {
            Value::Object(fields) => {
                into.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, into));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, into)),
            _ => {}
        }
    }

    #[test]
    fn every_call_is_described_and_every_schema_is_there_and_used() {
        let document = document();
        let mut ids = HashSet::new();
        for Route { method, path, .. } in &ROUTES {
            let operation = &document["paths"][path][method.as_str().to_ascii_lowercase()];
            assert!(ids.insert(operation["operationId"].as_str().expect(path)), "{operation}");
            assert_eq!(
                operation["parameters"].as_array().unwrap().iter().filter(|given| given["in"] == "path").count(),
                path.matches('{').count(),
                "{path}"
            );
        }
        let mut named = HashSet::new();
        references(&document, &mut named);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let there: HashSet<String> = schemas.keys().map(|name| format!("#/components/schemas/{name}")).collect();
        assert_eq!(named, there.iter().map(String::as_str).collect());
    }
}
