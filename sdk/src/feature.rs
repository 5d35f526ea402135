//! The trait that an author implements, and the context that its methods get.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::effect::{Answer, Effect};
use crate::event::{Acknowledgement, Answers, Fetched, LeaveReason, Query, Saved, Timer};
use crate::known::Known;
use crate::random::Random;
use crate::{Failure, Manifest, Member, Sender};

/// A feature: a pure reducer over a scope. Each method gets the scope's state, changes it, and asks through the context for
/// effects. If it returns a failure, the state stays and no effect is applied.
pub trait Feature: Sized + 'static {
    /// The operator's settings. With `#[serde(default, deny_unknown_fields)]` each setting has a default, and a
    /// misspelt one is an error. If the settings are invalid, every event is refused with `feature_unavailable`.
    type Settings: DeserializeOwned + 'static;
    /// The state of one scope, stored as JSON. A scope without a state starts from the default, and a state that equals the
    /// default is deleted.
    type State: Serialize + DeserializeOwned + Default;
    /// The messages, an enum that [`messages!`](crate::messages) declares.
    type Message: DeserializeOwned;

    /// Describes the feature.
    fn describe() -> Manifest;

    /// A message of a client or a service, or the host's `connect` of a [connection](crate::Scope::on_connect).
    fn message(
        state: &mut Self::State,
        cx: &mut Context<Self>,
        sender: &Sender,
        message: Self::Message,
    ) -> Result<(), Failure>;

    /// Another feature or an operator joined a connection to the scope's room.
    fn joined(_state: &mut Self::State, _cx: &mut Context<Self>, _member: &Member) -> Result<(), Failure> {
        Ok(())
    }

    /// A connection that was in the scope's room, or was watched, has left or disconnected. Departures by effects of
    /// this scope are not reported.
    fn left(
        _state: &mut Self::State,
        _cx: &mut Context<Self>,
        _member: &Member,
        _reason: LeaveReason,
    ) -> Result<(), Failure> {
        Ok(())
    }

    /// The client of a connection that takes part in this scope has lost its transport, and may resume the session.
    /// Until then the host keeps the connection, its rooms, and the events for it. Only scopes with
    /// [`Scope::on_away`](crate::Scope::on_away) get this event.
    ///
    /// The next event is [`back`](Self::back), or [`left`](Self::left) if the client does not resume within the
    /// recovery window.
    fn away(_state: &mut Self::State, _cx: &mut Context<Self>, _member: &Member) -> Result<(), Failure> {
        Ok(())
    }

    /// The client of a connection that was [away](Self::away) has resumed it. The client gets the events that it missed
    /// before those that are emitted now.
    fn back(_state: &mut Self::State, _cx: &mut Context<Self>, _member: &Member) -> Result<(), Failure> {
        Ok(())
    }

    /// A timer is due.
    fn timer(_state: &mut Self::State, _cx: &mut Context<Self>, _timer: &Timer) -> Result<(), Failure> {
        Ok(())
    }

    /// A service queries this scope.
    fn query(_state: &Self::State, _cx: &Context<Self>, query: &Query) -> Result<Answer, Failure> {
        Err(Failure::not_found(format!("there is no query {}", query.name)))
    }

    /// Folds the answers of all scopes to a query that names none.
    fn gathered(_cx: &Context<Self>, query: &Query, _answers: &Answers) -> Result<Answer, Failure> {
        Err(Failure::not_found(format!("there is no query {}", query.name)))
    }

    /// A client has acknowledged an event, or its acknowledgement is missing.
    fn acknowledged(
        _state: &mut Self::State,
        _cx: &mut Context<Self>,
        _acknowledgement: &Acknowledgement,
    ) -> Result<(), Failure> {
        Ok(())
    }

    /// A document was stored, or could not be.
    fn saved(_state: &mut Self::State, _cx: &mut Context<Self>, _saved: &Saved) -> Result<(), Failure> {
        Ok(())
    }

    /// The documents of a fetch, or its failure. If the event that fetched had no reply, its sender gets the reply or
    /// the failure of this event.
    fn fetched(_state: &mut Self::State, _cx: &mut Context<Self>, _fetched: &Fetched) -> Result<(), Failure> {
        Ok(())
    }

    /// Migrates a state of schema version `from` to the present one. The default accepts a state that decodes as the
    /// present schema.
    fn migrate(from: u32, state: &[u8]) -> Result<Self::State, Failure> {
        serde_json::from_slice(state)
            .map_err(|error| Failure::internal(format!("state of schema version {from} cannot be read: {error}")))
    }

    /// Migrates a state back to the older schema version `to`, one of those that [`Manifest::migrates_down_to`] names,
    /// in the format of a build with that version. A rollback calls it. If it fails for a scope, the older build's
    /// [`Feature::migrate`] reads the state; if that fails too, an operator decides whether the scope's changes may be
    /// lost.
    fn migrate_down(to: u32, _state: Self::State) -> Result<serde_json::Value, Failure> {
        Err(Failure::internal(format!("there is no way back to schema version {to}")))
    }
}

/// The context of an event: the facts that the host gives beside the event and the state, and the effects that the
/// feature asks for. The host applies the effects after the method has returned, in their order, and only if it returned
/// `Ok`.
///
/// [`param`](Self::param) and [`settings`](Self::settings) borrow from the event and not from the context, so they can be
/// held across [`emit`](Self::emit).
pub struct Context<'a, F: Feature> {
    pub(crate) known: &'a Known<'a, F::Settings>,
    pub(crate) random: Random,
    pub(crate) effects: Vec<Effect>,
    /// The first failure to encode a value as JSON. If there is one, the event fails.
    pub(crate) fault: Option<Failure>,
}

impl<F: Feature> fmt::Debug for Context<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("call", &self.known.call)
            .field("effects", &self.effects)
            .finish_non_exhaustive()
    }
}
