//! `roundhouse check --explain TOKEN ROOM`: what the room policy says of a user and a room, and why.

use std::path::Path;

use anyhow::bail;
use serde_json::{Map, Value, json};

use super::load_config::load_config;
use super::output::print_json;
use crate::auth::{Place, PresentedToken};
use crate::config::Overrides;
use crate::metrics::Metrics;
use crate::model::{Clock, is_valid_room};
use crate::policy::Action;
use crate::server::{authenticator, room_policy};

/// Prints the identity of a token, and the decision for each action in a room.
///
/// # Errors
/// Where the configuration has a mistake, the token is refused, or its user may not join the room.
pub(super) fn explain(file: Option<&Path>, overrides: Overrides, token: &str, room: &str) -> anyhow::Result<()> {
    let mut config = load_config(file, overrides)?;
    if !is_valid_room(room) {
        bail!("{room:?} is no room: a room is 1 to 512 printable characters without whitespace");
    }
    if config.auth.jwt.has_no_key()
        && let Ok(secret) = config.signing_secret()
    {
        config.auth.jwt.secrets.push(secret);
    }
    let metrics = Metrics::new()?;
    let clock = Clock::system();
    let (auth, _outbound) = authenticator(&config, &clock, &metrics, drop)?;
    let Some(token) = PresentedToken::new(Place::Message, token) else { bail!("the token is empty") };
    let identity = auth.verify(&token.token)?.identity;
    let policy = room_policy(&config, &metrics)?;
    let (mut decisions, mut may_join) = (Map::new(), true);
    for action in Action::ALL {
        let decision = policy.as_ref().map(|policy| policy.decide(&identity, room, action, ""));
        let is_allowed = decision.as_ref().is_none_or(|decision| decision.is_allowed);
        may_join &= is_allowed || action != Action::Join;
        let because = match &decision {
            None => json!("there are no [[rooms]], so that every user may use every room"),
            Some(decision) => match &decision.rule {
                None => json!("no rule matches the room"),
                Some((number, pattern)) => json!({
                    "rule": number,
                    "pattern": pattern,
                    "condition": decision.condition,
                    "error": decision.error,
                }),
            },
        };
        decisions.insert(action.as_str().to_owned(), json!({ "allowed": is_allowed, "because": because }));
    }
    let claims: Value = serde_json::from_str(&identity.claims).unwrap_or_default();
    let user = json!({ "id": &*identity.user, "name": identity.name, "roles": identity.roles, "claims": claims });
    print_json(&json!({ "identity": user, "room": room, "decisions": decisions }))?;
    if !may_join {
        bail!("the user {} may not join the room {room}", identity.user);
    }
    Ok(())
}
