//! The state of a contact: the users who type to it, and the connections at which they type. This file emits nothing.

use std::time::Duration;

use roundhouse_sdk::{Failure, Member};
use serde::{Deserialize, Serialize};

/// The greatest number of typists of one contact: more than any team.
const MAX_TYPISTS: usize = 50;

/// The greatest size of all typists in the state, in bytes, below the host's limit of 64 KiB.
const MAX_TYPISTS_BYTES: usize = 48 * 1024;

/// The greatest number of connections of one typist in the state: more than a user types at.
const MAX_PLACES: usize = 4;

/// The state of a contact: who is typing to it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Contact(Vec<Typist>);

/// A user who types.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Typist {
    pub(crate) user_id: String,
    pub(crate) user_name: String,
    places: Vec<Place>,
}

/// A connection at which a user types.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    connection: String,
    /// The time of the last `typing:start`, in epoch milliseconds.
    last: u64,
    /// Whether the connection is watched, because it has not subscribed.
    is_watched: bool,
}

/// The effect of a `typing:start`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// The user did not type before.
    pub(crate) is_begun: bool,
    /// The connection has to be watched.
    pub(crate) is_to_be_watched: bool,
}

impl Typist {
    /// The watched connections.
    pub(crate) fn watched(&self) -> impl Iterator<Item = &str> {
        self.places.iter().filter(|place| place.is_watched).map(|place| place.connection.as_str())
    }

    fn last(&self) -> u64 {
        self.places.iter().map(|place| place.last).max().unwrap_or(0)
    }
}

impl Contact {
    pub(crate) fn is_quiet(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn n_typing(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn typist(&self, user_id: &str) -> Option<&Typist> {
        self.0.iter().find(|typist| typist.user_id == user_id)
    }

    /// A user types. `has_subscribed`: the connection is in the contact's room.
    pub(crate) fn type_on(
        &mut self,
        member: &Member,
        name: &str,
        now: u64,
        has_subscribed: bool,
    ) -> Result<Start, Failure> {
        let place = Place { connection: member.connection.clone(), last: now, is_watched: !has_subscribed };
        if let Some(typist) = self.0.iter_mut().find(|typist| typist.user_id == member.user_id()) {
            if let Some(known) = typist.places.iter_mut().find(|known| known.connection == place.connection) {
                known.last = now;
                return Ok(Start { is_begun: false, is_to_be_watched: false });
            }
            let is_noted = typist.places.len() < MAX_PLACES;
            if is_noted {
                typist.places.push(place);
            }
            return Ok(Start { is_begun: false, is_to_be_watched: is_noted && !has_subscribed });
        }
        let (user_id, user_name) = (member.user_id().to_owned(), name.to_owned());
        self.0.push(Typist { user_id, user_name, places: vec![place] });
        if self.0.len() > MAX_TYPISTS || bytes(&self.0) > MAX_TYPISTS_BYTES {
            return Err(Failure::conflict("too many people write to this contact already; go on without telling"));
        }
        Ok(Start { is_begun: true, is_to_be_watched: !has_subscribed })
    }

    /// A connection has subscribed: its departure is reported without a watch.
    pub(crate) fn subscribed(&mut self, connection: &str) {
        let places = self.0.iter_mut().flat_map(|typist| &mut typist.places);
        places.filter(|place| place.connection == connection).for_each(|place| place.is_watched = false);
    }

    /// Ends a user's typing. Returns the typist, if the user typed.
    pub(crate) fn stop(&mut self, user_id: &str) -> Option<Typist> {
        let position = self.0.iter().position(|typist| typist.user_id == user_id)?;
        Some(self.0.remove(position))
    }

    /// Removes a connection. Returns its typist if the typing ends with it: no other connection has sent `typing:start` for
    /// `lasts`.
    pub(crate) fn stop_at(&mut self, connection: &str, now: u64, lasts: Duration) -> Option<Typist> {
        let typed_there = |typist: &Typist| typist.places.iter().any(|place| place.connection == connection);
        let position = self.0.iter().position(typed_there)?;
        let typist = &mut self.0[position];
        typist.places.retain(|place| place.connection != connection);
        let types_on = !left(typist.last(), now, lasts).is_zero();
        (!types_on).then(|| self.0.remove(position))
    }

    /// The time of a user's last `typing:start`, in epoch milliseconds; `None` if the user does not type.
    pub(crate) fn last_typing(&self, user_id: &str) -> Option<u64> {
        self.typist(user_id).map(Typist::last)
    }
}

/// The rest of a period that began at `since`, in epoch milliseconds.
fn left(since: u64, now: u64, lasts: Duration) -> Duration {
    lasts.saturating_sub(Duration::from_millis(now.saturating_sub(since)))
}

fn bytes<T: Serialize>(value: &T) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |bytes| bytes.len())
}
