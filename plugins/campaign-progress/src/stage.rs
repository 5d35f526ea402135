//! The stages of a campaign.

use roundhouse_sdk::Failure;
use serde::{Deserialize, Serialize};

/// The stage of a campaign, in the order of the stats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    Running,
    Paused,
    Failed,
    Completed,
    /// Not started.
    Pending,
}

impl Stage {
    pub(crate) fn is_end(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }

    pub(crate) fn ended(self) -> Failure {
        let how = if self == Self::Failed { "has failed" } else { "is completed" };
        Failure::conflict(format!("the campaign {how}; only delivered and read are counted on"))
    }
}
