//! Refusals: the exceeded limit, its holder, and the remedy.

use std::sync::Arc;

use super::budget::Means;
use crate::model::{ErrorCode, Failure};

/// The kinds of accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A user, or the network of anonymous users.
    User,
    /// An API key.
    Service,
    /// A plugin.
    Plugin,
    /// A scope of a plugin.
    Scope,
}

impl Holder {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::User, Self::Service, Self::Plugin, Self::Scope];

    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Plugin => "plugin",
            Self::Scope => "scope",
        }
    }
}

/// The kinds of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The number of resources.
    Count(Means),
    /// The bytes of resources.
    Bytes(Means),
    /// The rate of bytes of documents that are written.
    Saved,
    /// The rate of bytes of documents that are read.
    Fetched,
}

impl What {
    /// All kinds of limits, once for each name.
    pub const ALL: [Self; Means::ALL.len() + 2] = {
        let mut all = [Self::Saved; Means::ALL.len() + 2];
        let mut at = 0;
        while at < Means::ALL.len() {
            all[at] = Self::Count(Means::ALL[at]);
            at += 1;
        }
        all[at] = Self::Fetched;
        all
    };

    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Count(means) | Self::Bytes(means) => means.label(),
            Self::Saved => "saved",
            Self::Fetched => "fetched",
        }
    }
}

/// An exceeded limit of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdraft {
    /// The name of the account's holder.
    pub account: Arc<str>,
    /// The kind of account.
    pub holder: Holder,
    /// The kind of limit.
    pub what: What,
    /// The amount held; for a rate, the burst.
    pub held: usize,
    /// The limit; for a rate, the bytes per second.
    pub bound: usize,
    /// For a rate, the time after which a repetition is within it, in milliseconds.
    pub wait_ms: u64,
}

impl Overdraft {
    /// The error for the sender.
    pub fn failure(&self) -> Failure {
        let Self { holder, what, held, bound, wait_ms, .. } = self;
        let whose = match holder {
            Holder::User if self.account.contains(' ') => "this address",
            Holder::User => "this user",
            Holder::Service => "this API key",
            Holder::Plugin => "this feature",
            Holder::Scope => "this scope",
        };
        let message = match what {
            What::Count(means) => {
                format!("{whose} has {held} {}, and may have {bound}: {}", means.plural(), means.advice())
            }
            What::Bytes(means) => {
                let plural = means.plural();
                format!("{whose} has {held} bytes of {plural}, and may have {bound}: {}", means.advice())
            }
            What::Saved | What::Fetched => {
                let verb = if *what == What::Saved { "writes" } else { "reads" };
                let seconds = wait_ms.div_ceil(1000);
                format!(
                    "{whose} {verb} more than {bound} bytes of documents a second ({held} at once): try again in {seconds} s"
                )
            }
        };
        Failure::new(self.code(), message)
    }

    fn code(&self) -> ErrorCode {
        match (self.holder, self.what) {
            // Time alone does not help: the client has to release something.
            (Holder::User | Holder::Service, What::Count(Means::Rooms | Means::Watches)) => ErrorCode::Conflict,
            (Holder::User | Holder::Service, _) => ErrorCode::RateLimited,
            (Holder::Plugin, _) => ErrorCode::FeatureUnavailable,
            (Holder::Scope, _) => ErrorCode::Conflict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(account: &str, holder: Holder, what: What) -> (ErrorCode, String) {
        let overdraft = Overdraft { account: account.into(), holder, what, held: 7, bound: 8, wait_ms: 1200 };
        let Failure { code, message, .. } = overdraft.failure();
        (code, message)
    }

    #[test]
    fn refusals_name_holder_number_and_remedy() {
        for (account, holder, what, code, message) in [
            (
                "ana",
                Holder::User,
                What::Count(Means::Rooms),
                ErrorCode::Conflict,
                "this user has 7 rooms, and may have 8: leave some first, on any connection",
            ),
            (
                "address ::1",
                Holder::User,
                What::Bytes(Means::Timers),
                ErrorCode::RateLimited,
                "this address has 7 bytes of timers, and may have 8: try again when some are due",
            ),
            (
                "service crm",
                Holder::Service,
                What::Saved,
                ErrorCode::RateLimited,
                "this API key writes more than 8 bytes of documents a second (7 at once): try again in 2 s",
            ),
            (
                "chat",
                Holder::Plugin,
                What::Count(Means::Fetches),
                ErrorCode::FeatureUnavailable,
                "this feature has 7 fetches, and may have 8: try again when some are answered",
            ),
        ] {
            assert_eq!(refusal(account, holder, what), (code, message.to_owned()));
        }
    }

    #[test]
    fn overdraft_labels_are_unique() {
        let labels: std::collections::HashSet<_> = What::ALL.iter().map(|what| what.label()).collect();
        assert_eq!(labels.len(), What::ALL.len());
    }
}
