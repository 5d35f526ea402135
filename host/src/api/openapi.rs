//! The description of the API at `/openapi.json`, made from the table of calls.

use serde_json::{Map, Value, json};

use super::calls::ROUTES;
use super::directory::{DEFAULT_LIMIT, MAX_LIMIT};
use super::keys::KeyScope;
use super::parameters::{MAX_AT, MAX_SHADOW_SECONDS};
use super::rollouts::{DEFAULT_CANARY_PERCENT, DEFAULT_SHADOW_SECONDS};
use super::route::{Query, Route};
use super::schema::{BlockId, ConnectionId, HeaderKey, Id, MAX_EVENT_CHARS, Refusal, Room, Schemas};
use super::why::{DEFAULT_LAST, MAX_LAST};

/// Refusals of every call that needs a key.
const WITH_KEY: [Refusal; 4] = [
    Refusal::new("400", "Something is not what it should be; the message says what and where."),
    Refusal::new("401", "There is no key, or not one that the host knows."),
    Refusal::new("403", "The key lacks the scope, is narrowed, or the feature refuses."),
    Refusal::new("429", "The key makes more calls than it may."),
];

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
    let about = match route.scope() {
        None => "Needs no key.",
        Some(KeyScope::Publish) => "Needs a key with the scope `publish`.",
        Some(KeyScope::Admin) => "Needs a key with the scope `admin`.",
    };
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "description": about,
        "security": if route.scope().is_some() { json!([{ "apiKey": [] }]) } else { json!([]) },
        "parameters": parameters(route, schemas),
        "responses": responses(route, schemas),
    });
    if let Some(body) = route.body {
        operation["requestBody"] = body(schemas);
    }
    operation
}

fn parameters(route: &Route, schemas: &mut Schemas) -> Value {
    let segments: Vec<&str> = route.path.split('/').collect();
    let mut parameters: Vec<Value> = segments
        .windows(2)
        .filter_map(|pair| Some((pair[0], pair[1].strip_prefix('{')?.strip_suffix('}')?)))
        .map(|(before, name)| {
            let schema = match (before, name) {
                ("connections", "id") => schemas.read::<ConnectionId>(),
                (_, "id") => schemas.read::<Id>(),
                (_, "room" | "key") => schemas.read::<Room>(),
                (_, "query") => json!({ "type": "string", "minLength": 1, "maxLength": MAX_EVENT_CHARS }),
                _ => json!({ "type": "string", "pattern": "^[a-z0-9-]+$", "minLength": 1, "maxLength": 64 }),
            };
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        })
        .collect();
    let mut add = |name: &str, place: &str, about: &str, schema: Value| {
        parameters
            .push(json!({ "name": name, "in": place, "required": false, "description": about, "schema": schema }));
    };
    if matches!(route.query, Query::LoseWrites | Query::RollBack) {
        let about = "Whether states may be lost that the build cannot take over.";
        add("loseWrites", "query", about, json!({ "type": "boolean", "default": false }));
    }
    if route.query == Query::RollBack {
        let about = "The generation to go back to; by default the one before.";
        add("to", "query", about, json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX }));
    }
    if route.query == Query::Shadow {
        let seconds = json!({ "type": "integer", "minimum": 1, "maximum": MAX_SHADOW_SECONDS, "default": DEFAULT_SHADOW_SECONDS });
        add("seconds", "query", "How long it is tried.", seconds);
        let about = "Whether it is promoted then, if it made the same of all events.";
        add("promoteIfEqual", "query", about, json!({ "type": "boolean", "default": false }));
    }
    if route.query == Query::Canary {
        let percent = json!({ "type": "number", "minimum": 0.1, "maximum": 100, "default": DEFAULT_CANARY_PERCENT });
        add("percent", "query", "The share of the scopes that it handles.", percent);
    }
    if route.query == Query::Why {
        let last = json!({ "type": "integer", "minimum": 1, "maximum": MAX_LAST, "default": DEFAULT_LAST });
        add("last", "query", "How many events of each connection.", last);
    }
    if route.query == Query::At {
        let about = "A time: milliseconds since 1970, or, where it is negative, before now.";
        let at = json!({ "type": "integer", "minimum": -(MAX_AT as i64), "maximum": MAX_AT });
        add("at", "query", about, at);
    }
    if route.query == Query::Last {
        let about = "Only the uses in so many last events count; by default those in all since the build was loaded.";
        add("last", "query", about, json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX }));
    }
    if matches!(route.query, Query::Page | Query::PageOfUser | Query::PageOfBlocks) {
        let limit = json!({ "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT });
        add("limit", "query", "How many, at most.", limit);
        let after = match route.query {
            Query::PageOfBlocks => schemas.read::<BlockId>(),
            _ => schemas.read::<ConnectionId>(),
        };
        add("after", "query", "The `next` of the page before.", after);
    }
    if route.query == Query::PageOfUser {
        add("user", "query", "Of this user alone.", schemas.read::<Id>());
    }
    if route.takes_key {
        let about = "As `idempotencyKey` in the body, which must be the same if both are there; of an array of emits the key of \
                     the whole call.";
        add("Idempotency-Key", "header", about, schemas.read::<HeaderKey>());
    }
    parameters.into()
}

fn responses(route: &Route, schemas: &mut Schemas) -> Value {
    let mut responses = json!({ "200": { "description": "Done.", "content": (route.answer)(schemas) } });
    let with_key: &[Refusal] = if route.scope().is_some() { &WITH_KEY } else { &[] };
    for Refusal { status, why, content } in with_key.iter().chain(route.refusals) {
        responses[status] = json!({ "description": why, "content": content(schemas) });
    }
    responses
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Collects all schemas that a part of the document refers to.
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
    fn document_describes_each_route_and_uses_each_schema() {
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
