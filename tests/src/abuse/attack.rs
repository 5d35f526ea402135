//! An attack: the attacker, the attacked host, and the bytes that are sent.

use std::fmt;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;

use super::field::Field;

/// The attacker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attacker {
    /// A client without a token, which the host refuses.
    Stranger,
    /// A client without a token, which the host accepts.
    Anonymous,
    /// One connection of one account.
    Account,
    /// Several connections of one account.
    Connections,
    /// Several accounts, each from an address of its own.
    Accounts,
    /// A plugin, driven by clients of its author.
    Plugin,
    /// A service with a key of the API.
    RequestKind,
}

impl fmt::Display for Attacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stranger => "a stranger",
            Self::Anonymous => "an anonymous client",
            Self::Account => "one account, one connection",
            Self::Connections => "one account, several connections",
            Self::Accounts => "several accounts",
            Self::Plugin => "a plugin",
            Self::RequestKind => "a service key",
        })
    }
}

/// The host that an attack needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// Default limits, and every client has a token.
    Closed,
    /// Default limits, and clients without a token are accepted.
    Open,
    /// As [`Setting::Closed`], and clients speak TLS.
    Tls,
    /// As [`Setting::Closed`], and tokens by public keys are accepted, too.
    Keys,
}

/// The target of attacks. Each group has a short run among the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Payloads that cost a feature more than they cost their sender.
    Payloads,
    /// Scopes, rooms and timers.
    Scopes,
    /// Turns on a plugin thread.
    Turns,
    /// Memory before authentication.
    Memory,
    /// Floods through a feature's own events.
    Floods,
    /// The protocols.
    Wire,
    /// The API.
    Services,
    /// Misbehaviour of a plugin.
    Plugins,
    /// The way in: handshakes, tokens, and what comes right after them.
    Entry,
}

impl Group {
    /// All groups, in order.
    pub const ALL: [Self; 9] = [
        Self::Payloads,
        Self::Scopes,
        Self::Turns,
        Self::Memory,
        Self::Floods,
        Self::Wire,
        Self::Services,
        Self::Plugins,
        Self::Entry,
    ];

    /// The name of the group, whose singular begins the name of its test.
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
            Self::Entry => "entry",
        }
    }
}

/// One way to harm other clients.
#[derive(Debug)]
pub struct Attack {
    /// The name on the command line.
    pub name: &'static str,
    /// The attacker.
    pub who: Attacker,
    /// The bytes that are sent, in words.
    pub what: &'static str,
    /// The host that the attack needs.
    pub setting: Setting,
    /// The multiple of the usual time for which the attack runs in a full run.
    pub length: u32,
    /// Runs the attack until the field's time is over.
    pub run: fn(Rc<Field>) -> LocalBoxFuture<'static, anyhow::Result<()>>,
}
