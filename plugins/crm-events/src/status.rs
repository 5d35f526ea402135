//! The status of a message.

use serde::{Deserialize, Serialize};

/// The status of a message. The order is that of delivery.
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

    /// The status with this name, in upper or lower case.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| format!("{status:?}").eq_ignore_ascii_case(name))
    }
}
