//! The trait that an author implements.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::effect::Answer;
use crate::event::{Acknowledgement, Answers, Fetched, LeaveReason, Query, Saved, Timer};
use crate::{Context, Failure, Manifest, Member, Sender};

/// A feature: a pure reducer over a scope. Each method gets the scope's state, changes it and says through
/// the context what is to be done. If it returns a failure, nothing is changed and nothing is done.
pub trait Feature: Sized + 'static {
    /// The operator's settings. With `#[serde(default, deny_unknown_fields)]` each has a default and a
    /// misspelt one is an error; where they are wrong, every event is refused with `feature_unavailable`.
    type Settings: DeserializeOwned + 'static;
    /// The state of one scope, stored as JSON. A scope that has none starts from the default, and one whose
    /// state comes to equal the default is forgotten.
    type State: Serialize + DeserializeOwned + Default;
    /// The messages: an enum with a newtype variant for each routed event, renamed to the event's name.
    /// A variant with several fields takes several arguments, one without fields leaves them unread:
    /// [`Context::payload`] has them all as they came.
    type Message: DeserializeOwned;

    /// What this feature is.
    fn describe() -> Manifest;

    /// A client or a service sent something, or the host tells of a [connection](crate::Scope::on_connect).
    fn message(
        state: &mut Self::State,
        cx: &mut Context<Self>,
        sender: &Sender,
        message: Self::Message,
    ) -> Result<(), Failure>;

    /// A connection came into the scope's room by somebody else's doing.
    fn joined(_state: &mut Self::State, _cx: &mut Context<Self>, _member: &Member) -> Result<(), Failure> {
        Ok(())
    }

    /// A connection that was in the scope's room, or was watched, is gone: not by this scope's own effects.
    fn left(
        _state: &mut Self::State,
        _cx: &mut Context<Self>,
        _member: &Member,
        _reason: LeaveReason,
    ) -> Result<(), Failure> {
        Ok(())
    }

    /// The client of a connection that takes part in this scope has lost its transport, and may come back: until then the
    /// host keeps the connection and its place in rooms, and what it is sent. Told to scopes that ask for it by
    /// [`Scope::on_away`](crate::Scope::on_away) alone.
    ///
    /// Next comes [`back`](Self::back); or [`left`](Self::left), where the client does not come back within the recovery
    /// window, or comes back as a new connection and the old one expires.
    fn away(_state: &mut Self::State, _cx: &mut Context<Self>, _member: &Member) -> Result<(), Failure> {
        Ok(())
    }

    /// The client of a connection that was [away](Self::away) is back, on the same connection: it has been sent what it
    /// missed, and what is emitted now comes after that.
    fn back(_state: &mut Self::State, _cx: &mut Context<Self>, _member: &Member) -> Result<(), Failure> {
        Ok(())
    }

    /// A timer is due.
    fn timer(_state: &mut Self::State, _cx: &mut Context<Self>, _timer: &Timer) -> Result<(), Failure> {
        Ok(())
    }

    /// A service asks something of this scope.
    fn query(_state: &Self::State, _cx: &Context<Self>, query: &Query) -> Result<Answer, Failure> {
        Err(Failure::not_found(format!("there is no query {}", query.name)))
    }

    /// All scopes answered a question without scope: folds their answers into one.
    fn gathered(_cx: &Context<Self>, query: &Query, _answers: &Answers) -> Result<Answer, Failure> {
        Err(Failure::not_found(format!("there is no query {}", query.name)))
    }

    /// A client answered an event that asked for it, or did not in time.
    fn acknowledged(
        _state: &mut Self::State,
        _cx: &mut Context<Self>,
        _acknowledgement: &Acknowledgement,
    ) -> Result<(), Failure> {
        Ok(())
    }

    /// A document was stored, or was not.
    fn saved(_state: &mut Self::State, _cx: &mut Context<Self>, _saved: &Saved) -> Result<(), Failure> {
        Ok(())
    }

    /// Documents that this scope asked for are there, or cannot be had. Where the event that asked had no reply, the
    /// reply or the failure of this goes to its sender.
    fn fetched(_state: &mut Self::State, _cx: &mut Context<Self>, _fetched: &Fetched) -> Result<(), Failure> {
        Ok(())
    }

    /// Turns a state that schema version `from` left into today's. Without a migration, a state that still
    /// reads as today's is taken as it is.
    fn migrate(from: u32, state: &[u8]) -> Result<Self::State, Failure> {
        serde_json::from_slice(state)
            .map_err(|error| Failure::internal(format!("state of schema version {from} cannot be read: {error}")))
    }

    /// Turns a state back into one of the older schema version `to`, as a build of that version stored it: a rollback asks
    /// for it, of the versions that [`Manifest::migrates_down_to`] names. A scope of which it fails is read by the older
    /// build's own [`Feature::migrate`]; where that fails too, an operator decides whether its changes may be lost.
    fn migrate_down(to: u32, _state: Self::State) -> Result<serde_json::Value, Failure> {
        Err(Failure::internal(format!("there is no way back to schema version {to}")))
    }
}
