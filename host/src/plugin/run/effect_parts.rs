//! What effects are made of, read and weighed: audiences, payloads, connections.

use bytes::Bytes;

use crate::hub::Audience;
use crate::model::{ConnId, Payload};
use crate::plugin::guest::bindings::roundhouse::feature::effects as wit;
use crate::plugin::guest::bindings::roundhouse::feature::types::PayloadResult;

/// Bytes of payloads in the effects of one event, at most: as much as a client may send at once by default.
const MAX_EFFECT_BYTES: usize = 1024 * 1024;

/// What a feature returned that it may not return, in words.
pub(crate) type Refusal = String;

/// The connections that audiences are, where they must be nothing else.
pub(crate) fn connections_of(audiences: Vec<Audience>) -> Result<Vec<ConnId>, Refusal> {
    audiences
        .into_iter()
        .map(|audience| match audience {
            Audience::Connection(connection) => Ok(connection),
            _ => Err("an acknowledgement asked of an audience that is not a connection".to_owned()),
        })
        .collect()
}

pub(crate) fn unknown_connection(connection: ConnId) -> Refusal {
    format!("something for the connection {connection}, which it has nothing to do with")
}

pub(crate) fn parse_connection(id: &str) -> Result<ConnId, Refusal> {
    id.parse().map_err(|_| format!("a connection id {id:?} that the host never gave"))
}

/// An audience, whether it is granted or not.
pub(crate) fn read_audience(audience: wit::Audience, bytes: &mut usize) -> Result<Audience, Refusal> {
    Ok(match audience {
        wit::Audience::Room(room) => {
            weigh(room.len(), bytes)?;
            Audience::Room(room)
        }
        wit::Audience::User(user) => {
            weigh(user.len(), bytes)?;
            Audience::Users(vec![user])
        }
        wit::Audience::Users(users) => {
            weigh(users.iter().map(String::len).sum(), bytes)?;
            Audience::Users(users)
        }
        wit::Audience::Roles(roles) => {
            weigh(roles.iter().map(String::len).sum(), bytes)?;
            Audience::Roles(roles)
        }
        wit::Audience::Connection(id) => Audience::Connection(parse_connection(&id)?),
        wit::Audience::All => Audience::All,
        wit::Audience::Other((kind, _)) => return Err(format!("an audience {kind:?}, which this host does not know")),
    })
}

pub(crate) fn payload(payload: PayloadResult, bytes: &mut usize) -> Result<Payload, Refusal> {
    weigh(payload.args.len() + payload.attachments.iter().map(Vec::len).sum::<usize>(), bytes)?;
    let attachments = payload.attachments.into_iter().map(Bytes::from).collect();
    Payload::from_args(payload.args, attachments).map_err(|error| format!("a payload that cannot be sent: {error}"))
}

pub(crate) fn weigh(size: usize, bytes: &mut usize) -> Result<(), Refusal> {
    *bytes += size;
    if *bytes > MAX_EFFECT_BYTES {
        return Err(format!("effects of more than {MAX_EFFECT_BYTES} bytes"));
    }
    Ok(())
}

pub(crate) fn json(text: &str, what: &str) -> Result<(), Refusal> {
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(drop)
        .map_err(|error| format!("{what} is not JSON: {error}"))
}
