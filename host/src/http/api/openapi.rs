//! The description of the API, made from the table of calls and from the bounds that the calls check.

use serde_json::{Map, Value, json};

use super::calls::{Call, ROUTES, Route};
use super::directory::{DEFAULT_LIMIT, MAX_LIMIT, MAX_ROOMS};
use super::emit::{MAX_EMITS, MAX_EVENT_CHARS, MAX_ROOM_CHARS};
use super::idempotency::MAX_KEY_CHARS;
use super::keys::KeyScope;
use crate::model::ErrorCode;
use crate::protocol::RESERVED_EVENTS;

/// Text without control characters.
const PRINTABLE: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$";

/// The same without whitespace: what ids are made of.
const PRINTABLE_WORD: &str =
    "^[^\\u0000-\\u0020\\u007f-\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+$";

/// The document at `/openapi.json`.
pub(super) fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in &ROUTES {
        paths.entry(route.path).or_insert_with(|| json!({}))[route.method.as_str().to_ascii_lowercase()] =
            operation(route);
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
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route) -> Value {
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
        "parameters": parameters(route),
        "responses": responses(route),
    });
    if let Some(body) = request_body(route.call) {
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
        Call::LoadPlugin => "loadPlugin",
        Call::UnloadPlugin => "unloadPlugin",
        Call::RollBackPlugin => "rollBackPlugin",
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

fn parameters(route: &Route) -> Value {
    let in_path = route.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = in_path
        .map(|name| {
            let schema = match (name, route.call) {
                ("id", Call::Connection | Call::CloseConnection) => reference("ConnectionId"),
                ("id", _) => reference("Id"),
                ("room", _) => reference("Room"),
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
    if matches!(route.call, Call::Connections | Call::User | Call::Room) {
        let limit = json!({ "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT });
        in_query("limit", "How many, at most.", limit);
        in_query("after", "The `next` of the page before.", reference("ConnectionId"));
    }
    if route.call == Call::Connections {
        in_query("user", "Of this user alone.", reference("Id"));
    }
    parameters.into()
}

fn request_body(call: Call) -> Option<Value> {
    let json = |required: bool, schema: Value| json!({ "required": required, "content": { "application/json": { "schema": schema } } });
    Some(match call {
        Call::Emit => {
            let several = json!({ "type": "array", "items": reference("Emit"), "maxItems": MAX_EMITS });
            json(true, json!({ "oneOf": [reference("Emit"), several] }))
        }
        Call::Event => json(true, reference("Event")),
        Call::Query => json(false, json!({})),
        Call::LoadPlugin => json!({
            "required": true,
            "description": "A WebAssembly component.",
            "content": { "application/octet-stream": { "schema": { "type": "string", "format": "binary" } } },
        }),
        _ => return None,
    })
}

/// What a call may answer: each status that any path through its code ends in.
fn responses(route: &Route) -> Value {
    let (content_type, schema) = success(route.call);
    let mut responses = json!({
        "200": { "description": "Done.", "content": { content_type: { "schema": schema } } },
    });
    let mut refusal = |status: &str, why: &str, schema: &str| {
        let content = json!({ "application/json": { "schema": reference(schema) } });
        responses[status] = json!({ "description": why, "content": content });
    };
    if route.scope.is_some() {
        refusal("400", "Something is not what it should be; the message says what and where.", "Error");
        refusal("401", "There is no key, or not one that the host knows.", "Error");
        refusal("403", "The key lacks the scope, or the feature refuses.", "Error");
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
    let conflict = ("409", "The idempotency key was used for another call, or it makes no sense now.");
    let missing = ("404", "There is none.");
    let further: Vec<(&str, &str)> = match route.call {
        Call::Emit => [&[conflict, by_feature[3]], of_bodies].concat(),
        Call::Event | Call::Query => [&[conflict], by_feature, of_bodies].concat(),
        Call::Plugin | Call::Connection | Call::CloseConnection | Call::User | Call::CloseUser | Call::Room => {
            vec![missing]
        }
        Call::UnloadPlugin => vec![missing, by_feature[3]],
        Call::RollBackPlugin => vec![missing, ("409", "There is no generation to go back to."), by_feature[3]],
        _ => Vec::new(),
    };
    for (status, why) in further {
        refusal(status, why, "Error");
    }
    match route.call {
        Call::LoadPlugin => refusal("422", "The component is refused, and nothing has changed.", "RefusedComponent"),
        Call::Ready => responses["503"] = json!({ "description": "Not now.", "content": plain_text() }),
        _ => {}
    }
    responses
}

fn plain_text() -> Value {
    json!({ "text/plain": { "schema": { "type": "string" } } })
}

/// What a call answers that goes well.
fn success(call: Call) -> (&'static str, Value) {
    let schema = match call {
        Call::Emit => {
            let several = json!({ "type": "array", "items": reference("Delivered"), "maxItems": MAX_EMITS });
            json!({ "oneOf": [reference("Delivered"), several] })
        }
        // Whatever the feature replies.
        Call::Event | Call::Query => json!({}),
        Call::Stats => reference("Stats"),
        Call::Plugins => object(json!({ "plugins": { "type": "array", "items": reference("Plugin") } }), &[]),
        Call::Plugin => reference("Plugin"),
        Call::LoadPlugin | Call::RollBackPlugin => reference("Generation"),
        Call::UnloadPlugin => object(json!({ "name": { "type": "string" } }), &[]),
        Call::Connections => {
            let connections = json!({ "type": "array", "items": reference("Connection"), "maxItems": MAX_LIMIT });
            object(json!({ "connections": connections, "next": reference("Next") }), &[])
        }
        Call::Connection => reference("Connection"),
        Call::User => reference("User"),
        Call::Room => reference("RoomMembers"),
        Call::CloseConnection | Call::CloseUser => object(json!({ "disconnected": count() }), &[]),
        Call::Alive | Call::Ready | Call::Metrics => return ("text/plain", json!({ "type": "string" })),
        Call::Description => json!({ "type": "object" }),
    };
    ("application/json", schema)
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn word(max_chars: usize) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": max_chars, "pattern": PRINTABLE_WORD })
}

/// An object that has these fields and no others, all but `optional` always.
fn object(properties: Value, optional: &[&str]) -> Value {
    let names = properties.as_object().into_iter().flat_map(Map::keys);
    let required: Vec<&String> = names.filter(|name| !optional.contains(&name.as_str())).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn schemas() -> Value {
    let text = || json!({ "type": "string" });
    let name = || json!({ "type": ["string", "null"] });
    let list = |of: Value| json!({ "type": "array", "items": of });
    let figures = |names: &[&str], of: Value| {
        object(names.iter().map(|name| ((*name).to_owned(), of.clone())).collect::<Map<_, _>>().into(), &[])
    };
    let codes: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    let event = json!({
        "type": "string", "minLength": 1, "maxLength": MAX_EVENT_CHARS, "pattern": PRINTABLE,
        "not": { "enum": RESERVED_EVENTS },
    });
    let idempotency_key = json!({
        "type": ["string", "null"], "minLength": 1, "maxLength": MAX_KEY_CHARS, "pattern": PRINTABLE,
        "description": "A call that is repeated with its key within 24 hours is answered as the first was, and done once.",
    });
    let data = json!({ "description": "Any JSON." });
    let generation = json!({ "name": text(), "version": text(), "generation": count(), "digest": text() });
    let mut plugin = generation.clone();
    plugin["description"] = text();
    plugin["source"] = json!({ "enum": ["bundled", "folder", "api"] });
    plugin["state"] = json!({ "enum": ["running", "quarantined"] });
    plugin["previous"] = json!({ "oneOf": [reference("Generation"), { "type": "null" }] });
    plugin["calls"] = count();
    plugin["traps"] = count();
    plugin["latency"] = figures(&["p50Us", "p99Us"], json!({ "type": "number" }));
    plugin["stats"] = json!({ "description": "The feature's own figures, where it has any." });
    let mut stats = figures(
        &[
            "uptimeMs",
            "sockets",
            "connections",
            "users",
            "rooms",
            "eventsReceived",
            "eventsRefused",
            "framesQueued",
            "slowConnections",
            "pluginCalls",
            "pluginFaults",
            // Times of events, which are fractions.
            "eventP50Us",
            "eventP99Us",
        ],
        count(),
    );
    for time in ["eventP50Us", "eventP99Us"] {
        stats["properties"][time] = json!({ "type": "number" });
    }
    json!({
        "Error": object(json!({ "code": { "enum": codes }, "message": text() }), &[]),
        "RefusedComponent": object(
            json!({ "code": { "const": "bad_request" }, "message": text(), "step": text() }), &[]),
        "Id": word(128),
        "ConnectionId": { "type": "string", "pattern": "^[0-9a-f]{16}$" },
        "Room": word(MAX_ROOM_CHARS),
        "Next": {
            "type": ["string", "null"],
            "description": "Where there is more: what to give as `after` to get it.",
        },
        "To": {
            "type": "object",
            "description": "Whoever is named in any of these ways, each once.",
            "properties": {
                "user": reference("Id"),
                "users": list(reference("Id")),
                "roles": list(reference("Id")),
                "room": reference("Room"),
                "rooms": list(reference("Room")),
                "connection": reference("ConnectionId"),
                "all": { "type": "boolean", "const": true },
            },
            "minProperties": 1,
            "additionalProperties": false,
        },
        "Emit": object(
            json!({
                "to": reference("To"),
                "event": event,
                "data": data,
                "except": { "oneOf": [reference("To"), { "type": "null" }] },
                "idempotencyKey": idempotency_key,
            }),
            &["data", "except", "idempotencyKey"],
        ),
        "Event": object(
            json!({ "event": event, "data": data, "idempotencyKey": idempotency_key }),
            &["data", "idempotencyKey"],
        ),
        "Delivered": object(json!({ "delivered": count() }), &[]),
        "Generation": object(generation, &[]),
        "Plugin": object(plugin, &["stats"]),
        "Stats": stats,
        "Connection": object(
            json!({
                "connectionId": reference("ConnectionId"), "userId": text(), "name": name(), "roles": list(text()),
                "since": count(), "rooms": list(text()),
            }),
            &[],
        ),
        "User": object(
            json!({
                "userId": text(), "name": name(), "roles": list(text()), "since": count(),
                "connectionCount": count(), "connections": list(reference("Connection")), "next": reference("Next"),
                "roomCount": count(), "rooms": { "type": "array", "items": text(), "maxItems": MAX_ROOMS },
            }),
            &[],
        ),
        "RoomMembers": object(
            json!({
                "room": text(), "connectionCount": count(), "userCount": count(),
                "members": list(object(
                    json!({
                        "connectionId": reference("ConnectionId"), "userId": text(), "name": name(), "since": count(),
                    }),
                    &[],
                )),
                "next": reference("Next"),
            }),
            &[],
        ),
    })
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
