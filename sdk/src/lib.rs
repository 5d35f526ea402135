//! What a Roundhouse feature is written with.
//!
//! A feature is a pure reducer over a scope: it gets an event, the scope's state and a [`Context`], changes
//! the state and says what is to be done. The host checks that and does it.
//!
//! ```
//! use std::time::Duration;
//!
//! use roundhouse_sdk::simulator::Simulation;
//! use roundhouse_sdk::{Context, Failure, Feature, Manifest, Outgoing, Scope, Sender};
//! use serde::{Deserialize, Serialize};
//! use serde_json::json;
//!
//! /// Counts the knocks at a door, and forgets them when it has been quiet for a minute.
//! struct Door;
//!
//! #[derive(Default, Serialize, Deserialize)]
//! struct Knocks(u32);
//!
//! #[derive(Deserialize)]
//! enum Message {
//!     #[serde(rename = "door:knock")]
//!     Knock {},
//! }
//!
//! #[derive(Serialize)]
//! struct Knocked {
//!     count: u32,
//! }
//!
//! roundhouse_sdk::outgoing! { Knocked => "door:knocked" }
//!
//! impl Feature for Door {
//!     type Settings = serde_json::Map<String, serde_json::Value>;
//!     type State = Knocks;
//!     type Message = Message;
//!     type Timer = ();
//!     type Query = ();
//!
//!     fn describe() -> Manifest {
//!         roundhouse_sdk::manifest!()
//!             .scope(Scope::volatile("door:{doorId}").from_clients(["door:knock"]))
//!             .emits([Knocked::NAME])
//!     }
//!
//!     fn message(
//!         knocks: &mut Knocks,
//!         cx: &mut Context<Self>,
//!         sender: &Sender,
//!         Message::Knock {}: Message,
//!     ) -> Result<(), Failure> {
//!         knocks.0 += 1;
//!         cx.join(sender.client()?);
//!         cx.emit(cx.room(), &Knocked { count: knocks.0 });
//!         cx.set_timer("quiet", Duration::from_secs(60), &());
//!         Ok(())
//!     }
//!
//!     fn timer(knocks: &mut Knocks, _: &mut Context<Self>, (): ()) -> Result<(), Failure> {
//!         *knocks = Knocks::default();
//!         Ok(())
//!     }
//! }
//!
//! roundhouse_sdk::export!(Door);
//!
//! let mut sim = Simulation::<Door>::new();
//! let ana = sim.connect("ana", "Ana");
//! sim.emit_with_ack(ana, "door:knock", json!({"doorId": "front"})).unwrap();
//! assert_eq!(sim.received(ana), [("door:knocked".to_owned(), json!({"count": 1}))]);
//! sim.advance(Duration::from_secs(60));
//! assert!(sim.state("door:front").is_none());
//! ```
//!
//! # Layout, in reading order
//! - [`Feature`][]: the trait that an author implements; [`export!`] makes it a component
//! - [`Manifest`], [`Scope`], [`EventLimits`]: what a feature says about itself
//! - [`Context`]: what it may know and do; [`Outgoing`] binds an event's type to its name
//! - [`Sender`], [`Member`], [`Identity`]: who is who
//! - [`Id`], [`IdOr`], [`Reference`], [`FromClient`], [`ClaimedSender`], [`Passthrough`]: what payloads are read into
//! - [`Failure`][]: refusals
//! - [`log`]: lines for operators
//! - [`simulator`]: people, a clock and rooms for tests, without any WebAssembly
//! - [`handle`]: the one way into a feature, from the component's edge and from the simulator

mod allocator;
#[doc(hidden)]
pub mod bindings;
mod context;
mod decode;
mod dispatch;
mod effect;
mod event;
mod event_limits;
mod failure;
mod feature;
mod guest;
mod id;
mod identity;
mod locate;
pub mod log;
mod manifest;
mod passthrough;
mod payload;
mod random;
mod reading;
#[cfg(not(target_arch = "wasm32"))]
pub mod simulator;
mod template;
mod time;
mod warm;

pub use context::Context;
pub use dispatch::{handle, migrate, migrate_down};
pub use effect::{Answer, Audience, Audiences, Effect, Emit, Fetch, Outcome, Outgoing, Reached, Save, StateChange};
pub use event::{
    Acknowledgement, Answers, Call, Document, Event, Fetched, LeaveReason, Message, Page, Query, Saved, StoreFailure,
    Timer,
};
pub use event_limits::EventLimits;
pub use failure::Failure;
pub use feature::Feature;
pub use id::Id;
pub use identity::{Claimed, ClaimedSender, Identity, Member, Sender, check_name};
pub use manifest::{Manifest, Needs, Route, Scope};
pub use passthrough::Passthrough;
pub use payload::{Attachment, Payload};
pub use reading::{FromClient, IdOr, Reference, object};
pub use time::iso8601;

/// What [`export!`] needs; nothing for authors.
#[doc(hidden)]
pub mod __private {
    pub use crate::allocator::Allocator;
    pub use crate::bindings;
    pub use crate::guest::Component;
}

/// Makes a feature the component that its crate builds to for `wasm32-wasip2`, with an allocator that suits short calls; the
/// crate cannot have a `#[global_allocator]` of its own. Natively it does nothing, so that many features fit into one test.
#[macro_export]
macro_rules! export {
    ($feature:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Component = $crate::__private::Component<$feature>;
    $crate::__private::bindings::export!(Component with_types_in $crate::__private::bindings);

            // It is for one thread.
            #[cfg(not(target_feature = "atomics"))]
            #[global_allocator]
            static ALLOCATOR: $crate::__private::Allocator = $crate::__private::Allocator::new();
        };
    };
}

/// Binds types to the names of the events that they are on the wire.
///
/// ```
/// #[derive(serde::Serialize)]
/// struct AgentLeft<'a> {
///     reason: &'a str,
/// }
///
/// roundhouse_sdk::outgoing! {
///     AgentLeft<'_> => "agent:left",
/// }
/// ```
#[macro_export]
macro_rules! outgoing {
    ($($event:ty => $name:literal),* $(,)?) => {
        $(
            impl $crate::Outgoing for $event {
                const NAME: &'static str = $name;
            }
        )*
    };
}
