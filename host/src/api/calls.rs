//! The table of calls: a call consists of a row here and a handler.

use hyper::Method;
use serde_json::{Value, json};

use super::blocks::{BlockPage, Blocked, Lifted, NewBlock};
use super::cases::{CaseFile, Cases};
use super::cluster::ClusterReport;
use super::directory::{Connection, Connections, Disconnected, Members, User};
use super::emit::{Delivered, Emit, MAX_EMITS};
use super::events::ServiceEvent;
use super::host::Stats;
use super::plugins::{NewRecording, Plugins, Recording, Refused, Unloaded};
use super::route::Handler::{Admin, Open, Publish};
use super::route::{Names, Query, Route};
use super::schema::{Refusal, Schemas, json_content, text_content};
use super::state::Api;
use super::why::SentEvents;
use crate::plugin::{Change, GrantReport, PluginReport, RolloutReport, ScopeReport, TrialReport};

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const DELETE: Method = Method::DELETE;

const NO_SUCH: Refusal = Refusal::new("404", "There is none.");
const NO_FEATURE: Refusal = Refusal::new("404", "No feature handles this, or it does not find what is named.");
const CONFLICT: Refusal = Refusal::new(
    "409",
    "The idempotency key was used for another call, the header has another than the body, or the call makes no sense now.",
);
const NO_GENERATION: Refusal = Refusal::new("409", "There is no generation to go back to, or states would be lost.");
const NO_CANDIDATE: Refusal = Refusal::new("409", "No candidate is tried, or it cannot take over all states.");
const TOO_LARGE: Refusal = Refusal::new("413", "The body, or something in it, is too large.");
const NO_JSON: Refusal = Refusal::new("415", "The body is said to be something else than JSON.");
const NO_COMPONENT: Refusal =
    Refusal::with_content("422", "The component is refused, and nothing has changed.", |schemas| {
        json_content(schemas.written::<Refused<'_>>())
    });
const TOO_MANY: Refusal = Refusal::new("429", "More than may be sent in this time.");
const HOST_FAILED: Refusal = Refusal::new("500", "The host failed.");
const UNAVAILABLE: Refusal = Refusal::new("503", "The feature or the host cannot do this now: try again later.");
const NOT_READY: Refusal = Refusal::with_content("503", "Not now.", text_content);

/// Refusals of a call that a feature answers.
const BY_FEATURE: [Refusal; 7] = [CONFLICT, NO_FEATURE, TOO_MANY, HOST_FAILED, UNAVAILABLE, TOO_LARGE, NO_JSON];

/// All calls, the most frequent first, because the router searches in order.
pub(super) static ROUTES: [Route; 39] = [
    Route::new(POST, "/v1/emit", "emit", Publish(|api, call| Box::pin(api.emit(call))))
        .summary("Emit straight to connections")
        .takes_key()
        .body(|schemas| json_body(true, one_or_several(schemas.read::<Emit<'_>>())))
        .answers_with(|schemas| json_content(one_or_several(schemas.written::<Delivered>())))
        .refuses(&[CONFLICT, UNAVAILABLE, TOO_LARGE, NO_JSON]),
    Route::new(POST, "/v1/events", "sendEvent", Publish(|api, call| Box::pin(api.event(call))))
        .summary("Hand an event to the feature that routes it")
        .takes_key()
        .body(|schemas| json_body(true, schemas.read::<ServiceEvent<'_>>()))
        .answers_with(any_json)
        .refuses(&BY_FEATURE),
    Route::new(POST, "/v1/query/{plugin}/{query}", "query", Publish(|api, call| Box::pin(api.query(call))))
        .summary("Ask a feature")
        .body(|_| json_body(false, json!({})))
        .answers_with(any_json)
        .refuses(&BY_FEATURE),
    Route::new(GET, "/v1/stats", "stats", Admin(|api, _| Box::pin(api.stats())))
        .summary("Figures of the host")
        .answers::<Stats>(),
    Route::new(GET, "/v1/cluster", "readCluster", Admin(|api, _| Box::pin(api.cluster())))
        .summary("The nodes of the cluster, as this one sees them")
        .answers::<ClusterReport>()
        .refuses(&[NO_SUCH]),
    Route::new(GET, "/v1/connections", "listConnections", Admin(|api, call| Box::pin(api.connections(call))))
        .summary("Who is connected")
        .query(Query::PageOfUser)
        .answers::<Connections>(),
    Route::new(GET, "/v1/connections/{id}", "readConnection", Admin(|api, call| Box::pin(api.connection(call))))
        .summary("One connection")
        .answers::<Connection>()
        .refuses(&[NO_SUCH]),
    Route::new(
        DELETE,
        "/v1/connections/{id}",
        "disconnectConnection",
        Admin(|api, call| Box::pin(api.close_connection(call))),
    )
    .summary("Disconnect a connection (4010)")
    .answers::<Disconnected>()
    .refuses(&[NO_SUCH]),
    Route::new(GET, "/v1/users/{id}", "readUser", Admin(|api, call| Box::pin(api.user(call))))
        .summary("The connections of a user")
        .query(Query::Page)
        .answers::<User>()
        .refuses(&[NO_SUCH]),
    Route::new(
        DELETE,
        "/v1/users/{id}/connections",
        "disconnectUser",
        Admin(|api, call| Box::pin(api.close_user(call))),
    )
    .summary("Disconnect a user (4010)")
    .answers::<Disconnected>()
    .refuses(&[NO_SUCH]),
    Route::new(GET, "/v1/rooms/{room}", "readRoom", Admin(|api, call| Box::pin(api.room(call))))
        .names(Names::Room)
        .summary("The members of a room")
        .query(Query::Page)
        .answers::<Members>()
        .refuses(&[NO_SUCH]),
    Route::new(POST, "/v1/blocks", "createBlock", Admin(|api, call| Box::pin(api.block(call))))
        .summary("Keep a user, session or token out until a time")
        .body(|schemas| json_body(true, schemas.read::<NewBlock>()))
        .answers::<Blocked>()
        .refuses(&[CONFLICT, UNAVAILABLE, TOO_LARGE, NO_JSON]),
    Route::new(GET, "/v1/blocks", "listBlocks", Admin(|api, call| Box::pin(api.list_blocks(call))))
        .summary("The blocks in force")
        .query(Query::PageOfBlocks)
        .answers::<BlockPage>(),
    Route::new(DELETE, "/v1/blocks/{id}", "liftBlock", Admin(|api, call| Box::pin(api.lift_block(call))))
        .summary("Lift a block")
        .answers::<Lifted>()
        .refuses(&[NO_SUCH, UNAVAILABLE]),
    Route::new(GET, "/v1/plugins", "listPlugins", Admin(|api, _| Box::pin(api.plugins())))
        .summary("All plugins")
        .answers::<Plugins>(),
    Route::new(POST, "/v1/plugins", "installPlugin", Admin(|api, call| Box::pin(api.load(call))))
        .summary("Load a plugin by the name that it gives itself")
        .query(Query::LoseWrites)
        .body(component)
        .answers::<Change>()
        .refuses(&[NO_COMPONENT]),
    Route::new(GET, "/v1/plugins/{name}", "readPlugin", Admin(|api, call| Box::pin(api.plugin(call))))
        .names(Names::Plugin)
        .summary("One plugin, with its own figures")
        .answers::<PluginReport>()
        .refuses(&[NO_SUCH, UNAVAILABLE]),
    Route::new(PUT, "/v1/plugins/{name}", "loadPlugin", Admin(|api, call| Box::pin(api.load(call))))
        .names(Names::Plugin)
        .summary("Load a plugin, or replace its build")
        .query(Query::LoseWrites)
        .body(component)
        .answers::<Change>()
        .refuses(&[NO_COMPONENT]),
    Route::new(DELETE, "/v1/plugins/{name}", "unloadPlugin", Admin(|api, call| Box::pin(api.unload(call))))
        .names(Names::Plugin)
        .summary("Unload a plugin")
        .answers::<Unloaded>()
        .refuses(&[NO_SUCH, HOST_FAILED, UNAVAILABLE]),
    Route::new(POST, "/v1/plugins/{name}/rollback", "rollBackPlugin", Admin(|api, call| Box::pin(api.roll_back(call))))
        .names(Names::Plugin)
        .summary("Back to the generation before, or to an older one, or away from a candidate")
        .query(Query::RollBack)
        .answers::<Change>()
        .refuses(&[NO_SUCH, NO_GENERATION, UNAVAILABLE]),
    Route::new(POST, "/v1/trials", "tryPlugin", Admin(|api, call| Box::pin(api.try_out(call))))
        .summary("Try a component on the recent events of its plugin, and load nothing")
        .query(Query::LoseWrites)
        .body(component)
        .answers::<TrialReport>()
        .refuses(&[NO_COMPONENT]),
    Route::new(POST, "/v1/shadows", "beginShadow", Admin(|api, call| Box::pin(api.begin_shadow(call))))
        .summary("Try a component on live events in the shadow of the running build")
        .query(Query::Shadow)
        .body(component)
        .answers::<RolloutReport>()
        .refuses(&[NO_COMPONENT]),
    Route::new(POST, "/v1/canaries", "beginCanary", Admin(|api, call| Box::pin(api.begin_canary(call))))
        .summary("Try a component on a share of the scopes")
        .query(Query::Canary)
        .body(component)
        .answers::<RolloutReport>()
        .refuses(&[NO_COMPONENT]),
    Route::new(GET, "/v1/plugins/{name}/rollout", "readRollout", Admin(|api, call| Box::pin(api.rollout(call))))
        .names(Names::Plugin)
        .summary("The candidate that is tried, or was last")
        .answers::<RolloutReport>()
        .refuses(&[NO_SUCH, UNAVAILABLE]),
    Route::new(POST, "/v1/plugins/{name}/promote", "promotePlugin", Admin(|api, call| Box::pin(api.promote(call))))
        .names(Names::Plugin)
        .summary("Make the candidate that is tried the build of all scopes")
        .query(Query::LoseWrites)
        .answers::<Change>()
        .refuses(&[NO_SUCH, NO_CANDIDATE, UNAVAILABLE]),
    Route::new(POST, "/v1/plugins/{name}/reset", "resetPlugin", Admin(|api, call| Box::pin(api.reset(call))))
        .names(Names::Plugin)
        .summary("Back to the bundled build")
        .query(Query::LoseWrites)
        .answers::<Change>()
        .refuses(&[NO_SUCH, NO_COMPONENT]),
    Route::new(GET, "/v1/plugins/{name}/grants", "readGrants", Admin(|api, call| Box::pin(api.grants(call))))
        .names(Names::Plugin)
        .summary("What a plugin asks for, is given, and made use of")
        .query(Query::Last)
        .answers::<GrantReport>()
        .refuses(&[NO_SUCH, UNAVAILABLE]),
    Route::new(GET, "/v1/plugins/{name}/cases", "listCases", Admin(|api, call| Box::pin(api.cases(call))))
        .names(Names::Plugin)
        .summary("The events on which a plugin failed, as case files")
        .answers::<Cases>()
        .refuses(&[NO_SUCH, UNAVAILABLE]),
    Route::new(GET, "/v1/cases", "listAllCases", Admin(|api, _| Box::pin(api.all_cases())))
        .summary("The events on which any plugin failed, as case files")
        .answers::<Cases>(),
    Route::new(GET, "/v1/cases/{name}", "readCase", Admin(|api, call| Box::pin(api.case(call))))
        .summary("One case file")
        .answers::<CaseFile>()
        .refuses(&[NO_SUCH]),
    Route::new(GET, "/v1/connections/{id}/why", "whyConnection", Admin(|api, call| Box::pin(api.why_connection(call))))
        .summary("What a connection was sent lately, and which build, event and scope it comes from")
        .query(Query::Why)
        .answers::<SentEvents>()
        .refuses(&[NO_SUCH]),
    Route::new(GET, "/v1/users/{id}/why", "whyUser", Admin(|api, call| Box::pin(api.why_user(call))))
        .summary("The same of all connections of a user")
        .query(Query::Why)
        .answers::<SentEvents>()
        .refuses(&[NO_SUCH]),
    Route::new(GET, "/v1/scopes/{key}", "readScope", Admin(|api, call| Box::pin(api.scope(call))))
        .summary("State, timers, members and recent events of a scope, now or at a time before")
        .query(Query::At)
        .answers::<ScopeReport>()
        .refuses(&[NO_SUCH, UNAVAILABLE]),
    Route::new(POST, "/v1/scopes/{key}/replay", "replayScope", Admin(|api, call| Box::pin(api.replay_scope(call))))
        .summary("What another build would have made of a scope's recent events")
        .query(Query::At)
        .body(component)
        .answers::<ScopeReport>()
        .refuses(&[NO_SUCH, NO_COMPONENT, UNAVAILABLE]),
    Route::new(POST, "/v1/plugins/{name}/record", "recordPlugin", Admin(|api, call| Box::pin(api.record(call))))
        .names(Names::Plugin)
        .summary("What a plugin gets from now on, and what it makes of it")
        .body(|schemas| json_body(true, schemas.read::<NewRecording>()))
        .answers::<Recording>()
        .refuses(&[NO_SUCH, CONFLICT, UNAVAILABLE, TOO_LARGE, NO_JSON]),
    Route::new(GET, "/healthz", "alive", Open(|_| Api::alive())).summary("Whether the host is alive"),
    Route::new(GET, "/readyz", "ready", Open(Api::ready)).summary("Whether the host takes work").refuses(&[NOT_READY]),
    Route::new(GET, "/metrics", "metrics", Open(Api::metrics)).summary("Figures in Prometheus' format"),
    Route::new(GET, "/openapi.json", "description", Open(Api::description))
        .summary("This description")
        .answers_with(|_| json_content(json!({ "type": "object" }))),
];

/// Any JSON: a feature's reply.
fn any_json(_: &mut Schemas) -> Value {
    json_content(json!({}))
}

fn json_body(is_required: bool, schema: Value) -> Value {
    json!({ "required": is_required, "content": json_content(schema) })
}

fn component(_: &mut Schemas) -> Value {
    json!({
        "required": true,
        "description": "A WebAssembly component.",
        "content": { "application/octet-stream": { "schema": { "type": "string", "format": "binary" } } },
    })
}

/// One emit or a list of them, and one answer or a list of them.
fn one_or_several(one: Value) -> Value {
    let several = json!({ "type": "array", "items": one, "maxItems": MAX_EMITS });
    json!({ "oneOf": [one, several] })
}

#[cfg(test)]
mod tests {
    use super::super::route::{RouteMatch, find};
    use super::*;

    #[test]
    fn path_and_method_find_one_call() {
        for (method, path, expected) in [
            (Method::POST, "/v1/emit", "emit"),
            (Method::POST, "/v1/query/a/b", "query a b"),
            (Method::GET, "/v1/rooms/a%2Fb", "readRoom a%2Fb"),
            (Method::HEAD, "/healthz", "alive"),
            (Method::POST, "/healthz", "GET, HEAD"),
            (Method::POST, "/v1/plugins/x", "GET, HEAD, PUT, DELETE"),
            (Method::GET, "/v1/users/ana/connections", "DELETE"),
            (Method::GET, "/v1/rooms/", "nothing"),
            (Method::GET, "/v1/rooms/a/b", "nothing"),
            (Method::GET, "/v1/emit/", "nothing"),
            (Method::GET, "v1/emit", "nothing"),
            (Method::GET, "/", "nothing"),
        ] {
            let found = match find(&ROUTES, &method, path) {
                RouteMatch::Route(route, parameters) => format!("{} {}", route.id, parameters.join(" ")),
                RouteMatch::OtherMethod(allowed) => allowed,
                RouteMatch::NotFound => "nothing".to_owned(),
            };
            assert_eq!(found.trim(), expected, "{method} {path}");
        }
    }
}
