//! The SDK for Roundhouse features.
//!
//! A feature is a pure reducer over a scope: it gets an event, the scope's state and a [`Context`], changes the state and
//! asks for effects. The host checks the effects and applies them.
//!
//! ```
//! use std::time::Duration;
//!
//! use roundhouse_sdk::simulator::Simulation;
//! use roundhouse_sdk::{ClaimedSender, Context, Failure, Feature, Manifest, Scope, Sender, Timer};
//! use serde::{Deserialize, Serialize};
//! use serde_json::json;
//!
//! /// Counts the knocks at a door, until it has been quiet for a minute.
//! struct Door;
//!
//! #[derive(Default, Serialize, Deserialize)]
//! struct Knocks(u32);
//!
//! roundhouse_sdk::messages! {
//!     enum Message {
//!         client "door:knock" => Knock(ClaimedSender),
//!     }
//! }
//!
//! #[derive(Serialize)]
//! struct Knocked {
//!     count: u32,
//! }
//!
//! roundhouse_sdk::outgoing! {
//!     const EMITS;
//!     Knocked => "door:knocked",
//! }
//!
//! impl Feature for Door {
//!     type Settings = serde_json::Map<String, serde_json::Value>;
//!     type State = Knocks;
//!     type Message = Message;
//!
//!     fn describe() -> Manifest {
//!         roundhouse_sdk::manifest!()
//!             .scope(Scope::volatile("door:{doorId}").takes::<Message>())
//!             .emits(EMITS)
//!     }
//!
//!     fn message(
//!         knocks: &mut Knocks,
//!         cx: &mut Context<Self>,
//!         sender: &Sender,
//!         Message::Knock(knock): Message,
//!     ) -> Result<(), Failure> {
//!         let member = knock.verify(sender)?;
//!         knocks.0 += 1;
//!         cx.join(member);
//!         cx.emit(cx.room(), &Knocked { count: knocks.0 });
//!         cx.set_timer("quiet", Duration::from_secs(60), &());
//!         Ok(())
//!     }
//!
//!     fn timer(knocks: &mut Knocks, _: &mut Context<Self>, _: &Timer) -> Result<(), Failure> {
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
//! - [`Manifest`], [`Scope`], [`EventLimits`]: the description of a feature
//! - [`messages!`] declares the messages that it handles, [`outgoing!`] the events that it emits
//! - [`Context`]: the facts that a feature gets, and the effects that it asks for
//! - [`Sender`], [`Member`], [`Identity`]: users and their connections
//! - [`FromClient`], [`ClaimedSender`], [`Passthrough`], [`Id`], [`IdOr`], [`Reference`]: types of payloads
//! - [`IdempotencyKeys`]: recognises messages that clients repeat
//! - [`Failure`][]: typed errors for senders
//! - [`log`]: log lines for operators
//! - [`simulator`]: users, a clock and rooms for tests, without WebAssembly; [`case!`] makes a host's case file a test
//! - [`handle`]: the dispatch of an event to a feature, for the component's edge and the simulator

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
mod from_client;
mod guest;
mod id;
mod idempotency;
mod identity;
mod known;
mod locate;
pub mod log;
mod manifest;
mod messages;
mod passthrough;
mod payload;
mod random;
mod reading;
#[cfg(not(target_arch = "wasm32"))]
pub mod simulator;
mod template;
mod time;
mod warm;

pub use dispatch::{handle, migrate, migrate_down};
pub use effect::{Answer, Audience, Audiences, Effect, Emit, Fetch, Outcome, Outgoing, Reached, Save, StateChange};
pub use event::{
    Acknowledgement, Answers, Call, Document, Event, Fetched, LeaveReason, Message, Page, Query, Saved, StoreFailure,
    Timer,
};
pub use event_limits::EventLimits;
pub use failure::Failure;
pub use feature::{Context, Feature};
pub use from_client::FromClient;
pub use id::Id;
pub use idempotency::IdempotencyKeys;
pub use identity::{Claimed, ClaimedSender, Identity, Member, Sender, check_name};
pub use manifest::{Manifest, Needs, Route, Scope};
pub use messages::{MessageRoute, Messages, Origin};
pub use passthrough::Passthrough;
pub use payload::{Attachment, Payload};
pub use reading::{IdOr, Reference, object};
pub use time::iso8601;

/// Items for [`export!`], not for authors.
#[doc(hidden)]
pub mod __private {
    pub use crate::allocator::Allocator;
    pub use crate::bindings;
    pub use crate::guest::{Component, Exported};
    pub use crate::warm::Warm;
}

/// Exports a feature as the component of its crate for `wasm32-wasip2`, with an allocator for short calls; the crate cannot
/// have a `#[global_allocator]` of its own. Natively it does nothing, so that one test may use several features.
#[macro_export]
macro_rules! export {
    ($feature:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Component = $crate::__private::Component<$feature>;
    $crate::__private::bindings::export!(Component with_types_in $crate::__private::bindings);

            impl $crate::__private::Exported for $feature {
                fn with_warm<R>(body: impl FnOnce(&mut Option<$crate::__private::Warm<Self::Settings>>) -> R) -> R {
                    // Exports of a component have no `self`, so state between calls is in a static. It is thread-local
                    // because a component has one thread.
                    ::std::thread_local! {
                        static WARM: ::std::cell::RefCell<Option<$crate::__private::Warm<<$feature as $crate::Feature>::Settings>>> =
                            const { ::std::cell::RefCell::new(None) };
                    }
                    WARM.with_borrow_mut(body)
                }
            }

            // The allocator supports one thread only.
            #[cfg(not(target_feature = "atomics"))]
            #[global_allocator]
            static ALLOCATOR: $crate::__private::Allocator = $crate::__private::Allocator::new();
        };
    };
}

/// Binds types to the names of their events on the wire, and lists the names in the constant that is named first, if one is.
///
/// ```
/// #[derive(serde::Serialize)]
/// struct AgentLeft<'a> {
///     reason: &'a str,
/// }
///
/// roundhouse_sdk::outgoing! {
///     pub(crate) const EMITS;
///     AgentLeft<'_> => "agent:left",
/// }
///
/// assert_eq!(EMITS, ["agent:left"]);
/// ```
#[macro_export]
macro_rules! outgoing {
    ($vis:vis const $emits:ident; $($event:ty => $name:literal),* $(,)?) => {
        /// The names of the events, for [`Manifest::emits`]($crate::Manifest::emits).
        $vis const $emits: [&str; [$($name),*].len()] = [$($name),*];

        $crate::outgoing! { $($event => $name),* }
    };
    ($($event:ty => $name:literal),* $(,)?) => {
        $(
            impl $crate::Outgoing for $event {
                const NAME: &'static str = $name;
            }
        )*
    };
}
