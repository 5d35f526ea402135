//! What a user may do in a room.

use std::fmt;

/// What a user may do in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// To become a member, and so to get what is sent to the room.
    Join,
    /// To send an event to the scope whose room it is.
    Publish,
    /// To be watched by the scope, and to get its documents.
    Subscribe,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 3] = [Self::Join, Self::Publish, Self::Subscribe];

    /// The action's name in the configuration, and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        }
    }

    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Publish => "publish to",
            Self::Subscribe => "subscribe to",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
