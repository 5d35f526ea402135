//! Addresses to listen on, each an IP address or a host name with a port.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use anyhow::Context as _;
use serde::Deserialize;

/// An address to listen on, which may be a host name until it is resolved.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Address(String);

impl Address {
    /// Resolves the name, once, at the host's start. IPv4 is preferred, so that `localhost` resolves to the default's
    /// address.
    ///
    /// # Errors
    /// Where the name has no address.
    pub fn resolve(&self) -> anyhow::Result<SocketAddr> {
        let resolved = self.0.to_socket_addrs().with_context(|| format!("cannot resolve {}", self.0))?;
        resolved.min_by_key(SocketAddr::is_ipv6).with_context(|| format!("{} has no address", self.0))
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.parse::<SocketAddr>().is_ok() {
            return Ok(Self(text.to_owned()));
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(|| format!("{text:?} has no port"))?;
        if port.parse::<u16>().is_err() {
            return Err(format!("{text:?} does not end with a port"));
        }
        if name.contains(':') {
            return Err(format!("{text:?} has an IPv6 address without brackets, as in [::1]:8080"));
        }
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        is_name.then(|| Self(text.to_owned())).ok_or_else(|| format!("{text:?} has no host name before its port"))
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string())
    }
}

impl From<([u8; 4], u16)> for Address {
    fn from(address: ([u8; 4], u16)) -> Self {
        SocketAddr::from(address).into()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_host_names_are_resolved() {
        for (text, resolved) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::1]:8080", "[::1]:8080"),
            ("localhost:0", "127.0.0.1:0"),
            ("0.0.0.0:80", "0.0.0.0:80"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().resolve().unwrap().to_string(), resolved, "{text}");
        }
        let unknown = "no-such-host.invalid:80".parse::<Address>().unwrap();
        assert!(format!("{:#}", unknown.resolve().unwrap_err()).contains("no-such-host.invalid"));
    }

    #[test]
    fn addresses_without_host_or_port_are_refused() {
        for text in
            ["", "8080", ":8080", "localhost", "localhost:", "localhost:http", "localhost:70000", "::1:8080", "a b:1"]
        {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
    }
}
