//! State shared by all accounts: the budgets of users and services, and the clock.

use super::budget::Budget;
use crate::model::Clock;

/// The bounds of all accounts, and their clock.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) user: Budget,
    pub(super) service: Budget,
    pub(super) clock: Clock,
}
