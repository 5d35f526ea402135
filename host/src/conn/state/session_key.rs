//! The key with which a client resumes a connection.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq as _;

use crate::model::ConnId;

/// The key with which a client resumes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionKey {
    pub(crate) connection: ConnId,
    secret: u128,
}

impl SessionKey {
    pub(crate) fn new(connection: ConnId, secret: u128) -> Self {
        Self { connection, secret }
    }

    pub(super) fn secret(&self) -> u128 {
        self.secret
    }

    /// The part of the secret on which the rest depends, in a cluster.
    pub(crate) fn salt(&self) -> u16 {
        (self.secret >> 112) as u16
    }

    /// Whether two keys are the same, compared in constant time.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.connection == other.connection && self.has_secret(other.secret)
    }

    /// Whether this is its secret, compared in constant time.
    pub(super) fn has_secret(&self, secret: u128) -> bool {
        self.secret.to_ne_bytes().ct_eq(&secret.to_ne_bytes()).into()
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:032x}", self.connection, self.secret)
    }
}

impl FromStr for SessionKey {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (connection, secret) = text.split_at_checked(16).filter(|(_, secret)| secret.len() == 32).ok_or(())?;
        Ok(Self {
            connection: connection.parse().map_err(drop)?,
            secret: u128::from_str_radix(secret, 16).map_err(drop)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_key_parses_what_it_displays() {
        let key = SessionKey { connection: ConnId::new(1, 2, 3), secret: 7 << 64 };
        assert_eq!(key.to_string().parse(), Ok(key));
        for text in ["", "x", &"0".repeat(47), &"0".repeat(49), &"g".repeat(48), &format!("{}é", "0".repeat(46))] {
            assert_eq!(text.parse::<SessionKey>(), Err(()), "{text}");
        }
    }
}
