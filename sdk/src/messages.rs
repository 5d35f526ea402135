//! The messages of a feature: the name of each event is written once, beside its sender, its scope and the type of its
//! payload.

/// An enum of messages with its routes, made by [`messages!`](crate::messages).
pub trait Messages {
    /// The routes, in the order of the variants.
    const ROUTES: &'static [MessageRoute];
}

/// Events that are decoded into the same variant and come from the same origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageRoute {
    /// The events' names.
    pub events: &'static [&'static str],
    /// The senders.
    pub origin: Origin,
    /// The template of the scope that handles the events; without one, every scope that [takes](crate::Scope::takes)
    /// the enum.
    pub scope: Option<&'static str>,
}

/// The senders of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Clients.
    Client,
    /// Services.
    Service,
    /// Clients and services.
    ClientOrService,
    /// Services; the feature emits the event to clients under the same name.
    Passthrough,
    /// The host, which sends `connect` alone.
    Host,
}

/// Declares the enum of a feature's messages, its decoding and its routes.
///
/// Each variant follows the events that it is decoded from: their origin (`client`, `service`, `client_or_service`,
/// `host`, or `passthrough` for an event of services that the feature emits under the same name), their names, and
/// `in` the template of their scope, which a feature with one scope leaves out. [`Scope::takes`](crate::Scope::takes) adds
/// the routes to the manifest.
///
/// A variant with one field reads the event's first argument, one with several fields that many arguments, and one without
/// fields leaves them unread: [`Context::payload`](crate::Context::payload) has them all.
///
/// ```
/// use roundhouse_sdk::{FromClient, Passthrough, Scope, messages};
///
/// #[derive(serde::Deserialize)]
/// pub struct Say {
///     body: String,
/// }
///
/// const ROOM: &str = "room:{roomId}";
/// const CHANNEL: &str = "channel:{channelId}";
///
/// messages! {
///     pub enum Message {
///         /// Sends a message to a room or a channel.
///         client "roomMessage" in ROOM, client "channelMessage" in CHANNEL => Say(FromClient<Say>),
///         /// A change of a room.
///         passthrough "room:renamed" | "room:closed" in ROOM => Changed(Passthrough<serde_json::Value>),
///     }
/// }
///
/// let room = Scope::volatile(ROOM).takes::<Message>();
/// assert_eq!(room.routes.iter().map(|route| &*route.event).collect::<Vec<_>>(), [
///     "roomMessage",
///     "room:renamed",
///     "room:closed",
/// ]);
/// ```
#[macro_export]
macro_rules! messages {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $(
                $(#[$doc:meta])*
                $origin:ident $event:literal $(| $alias:literal)* $(in $scope:expr)?
                $(, $more_origin:ident $more_event:literal $(| $more_alias:literal)* $(in $more_scope:expr)?)*
                => $variant:ident $(($($argument:ty),+ $(,)?))? $({ $($fields:tt)* })?
            ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(::serde::Deserialize)]
        $vis enum $name {
            $(
                $(#[$doc])*
                #[serde(rename = $event $(, alias = $alias)* $(, alias = $more_event $(, alias = $more_alias)*)*)]
                $variant $(($($argument),+))? $({ $($fields)* })?,
            )*
        }

        impl $crate::Messages for $name {
            const ROUTES: &'static [$crate::MessageRoute] = &[
                $(
                    $crate::messages!(@route $origin [$event $(, $alias)*] $($scope)?),
                    $($crate::messages!(@route $more_origin [$more_event $(, $more_alias)*] $($more_scope)?),)*
                )*
            ];
        }
    };
    (@route $origin:ident $events:tt) => {
        $crate::MessageRoute { events: &$events, origin: $crate::messages!(@origin $origin), scope: None }
    };
    (@route $origin:ident $events:tt $scope:expr) => {
        $crate::MessageRoute { events: &$events, origin: $crate::messages!(@origin $origin), scope: Some($scope) }
    };
    (@origin client) => { $crate::Origin::Client };
    (@origin service) => { $crate::Origin::Service };
    (@origin client_or_service) => { $crate::Origin::ClientOrService };
    (@origin passthrough) => { $crate::Origin::Passthrough };
    (@origin host) => { $crate::Origin::Host };
}
