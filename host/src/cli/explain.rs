//! `roundhouse check --explain TOKEN ROOM`: what the room policy says of a user and a room, and why.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::load_config::load_config;
use super::output::print_json;
use crate::auth::{Place, PresentedToken};
use crate::config::Overrides;
use crate::metrics::Metrics;
use crate::model::{Clock, is_valid_room};
use crate::policy::Action;
use crate::server::{authenticator, room_policy, start_outbound};

/// Prints the identity of a token, and the decision for each action in a room. The token `-` is read from standard input,
/// where other users of the machine do not see it.
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
    let outbound = start_outbound(&config, &clock)?;
    let auth = authenticator(&config, &clock, &metrics, outbound.as_ref(), drop);
    let given = if token == "-" { read_line()? } else { token.to_owned() };
    let Some(token) = PresentedToken::new(Place::Message, &given) else { bail!("the token is empty") };
    let identity = auth.verify(&token.token)?.identity;
    let policy = room_policy(&config, &metrics, outbound.as_ref().map(|outbound| (outbound, &clock)))?;
    let asked = policy.as_ref().map(|policy| block_on(policy.ask_now(&identity, room))).transpose()?.flatten();
    let (mut decisions, mut may_join) = (Map::new(), true);
    for action in Action::ALL {
        let decision = policy.as_ref().map(|policy| policy.decide(&identity, room, action, ""));
        let of_backend = match &asked {
            None => Value::Null,
            Some(Ok(allowed)) => json!(allowed[action as usize]),
            Some(Err(why)) => json!({ "error": why }),
        };
        let is_allowed = decision.as_ref().is_none_or(|decision| decision.is_allowed)
            && (asked.is_none() || of_backend == json!(true));
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
                    "authorize": of_backend,
                }),
            },
        };
        decisions.insert(action.as_str().to_owned(), json!({ "allowed": is_allowed, "because": because }));
    }
    print_json(&json!({ "identity": identity.to_json(), "room": room, "decisions": decisions }))?;
    if !may_join {
        bail!("the user {} may not join the room {room}", identity.user);
    }
    Ok(())
}

fn read_line() -> anyhow::Result<String> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("cannot read the token from standard input")?;
    Ok(line)
}

fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}
