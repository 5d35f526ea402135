//! What an attack is, and the list of all.

use std::fmt;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;

use super::attacks;
use super::field::Field;

/// Who attacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Somebody without a token, whom the host does not let in.
    Stranger,
    /// Somebody whom the host lets in without a token.
    Anonymous,
    /// One connection of one account.
    Account,
    /// Several connections of one account.
    Connections,
    /// Several accounts, each from an address of its own.
    Accounts,
    /// A feature, driven by clients of its author.
    Plugin,
    /// A service with a key of the API.
    Service,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stranger => "a stranger",
            Self::Anonymous => "an anonymous client",
            Self::Account => "one account, one connection",
            Self::Connections => "one account, several connections",
            Self::Accounts => "several accounts",
            Self::Plugin => "a plugin",
            Self::Service => "a service key",
        })
    }
}

/// Which host an attack needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// Default limits, and tokens for everybody.
    Closed,
    /// The same, and clients without a token are let in.
    Open,
}

/// What is attacked. Each group has a short run among the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Payloads that cost a feature more than they cost their sender.
    Payloads,
    /// Scopes, rooms and timers.
    Scopes,
    /// Turns on a plugin thread.
    Turns,
    /// Memory before a sign-in.
    Memory,
    /// Floods of a feature's own means.
    Floods,
    /// The protocols.
    Wire,
    /// The API.
    Services,
    /// What a plugin does by itself.
    Plugins,
}

impl Group {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Payloads,
        Self::Scopes,
        Self::Turns,
        Self::Memory,
        Self::Floods,
        Self::Wire,
        Self::Services,
        Self::Plugins,
    ];

    /// Its name, which is that of its test.
    pub fn name(self) -> &'static str {
        match self {
            Self::Payloads => "payloads",
            Self::Scopes => "scopes",
            Self::Turns => "turns",
            Self::Memory => "memory",
            Self::Floods => "floods",
            Self::Wire => "wire",
            Self::Services => "services",
            Self::Plugins => "plugins",
        }
    }

    /// Its attacks.
    pub fn attacks(self) -> &'static [Attack] {
        match self {
            Self::Payloads => attacks::payloads::ATTACKS,
            Self::Scopes => attacks::scopes::ATTACKS,
            Self::Turns => attacks::turns::ATTACKS,
            Self::Memory => attacks::memory::ATTACKS,
            Self::Floods => attacks::floods::ATTACKS,
            Self::Wire => attacks::wire::ATTACKS,
            Self::Services => attacks::services::ATTACKS,
            Self::Plugins => attacks::plugins::ATTACKS,
        }
    }
}

/// One way of hurting others.
#[derive(Debug)]
pub struct Attack {
    /// Its name on the command line.
    pub name: &'static str,
    /// Who does it.
    pub who: Who,
    /// What is sent.
    pub what: &'static str,
    /// Which host it needs.
    pub setting: Setting,
    /// How many times as long as others it goes on in a full run.
    pub length: u32,
    /// Does it, until the field says that it is over.
    pub run: fn(Rc<Field>) -> LocalBoxFuture<'static, anyhow::Result<()>>,
}

/// All attacks, with their groups.
pub fn all() -> impl Iterator<Item = (Group, &'static Attack)> {
    Group::ALL.into_iter().flat_map(|group| group.attacks().iter().map(move |attack| (group, attack)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// How many there must be.
    const AT_LEAST: usize = 60;

    #[test]
    fn attack_names_are_unique() {
        let names: HashSet<_> = all().map(|(_, attack)| attack.name).collect();
        assert_eq!(names.len(), all().count(), "two attacks have one name");
        assert!(names.len() >= AT_LEAST, "{} attacks", names.len());
        for (_, attack) in all() {
            assert!(!attack.what.contains('|') && attack.length > 0, "{}: it stands in a table", attack.name);
        }
    }
}
