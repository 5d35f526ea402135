//! How far a message has come.

use serde::{Deserialize, Serialize};

/// How far a message has come, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Status {
    Queued,
    Sent,
    Delivered,
    Read,
    Failed,
}

impl Status {
    const ALL: [Self; 5] = [Self::Queued, Self::Sent, Self::Delivered, Self::Read, Self::Failed];

    /// The status of this name, in capitals or not.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| format!("{status:?}").eq_ignore_ascii_case(name))
    }
}
