//! Addresses of clients, and the proxies that are trusted to report them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

/// The length of the IPv6 prefix that providers assign to one customer.
const IPV6_PREFIX: u32 = 64;

/// The networks of proxies whose report of the client's address is trusted. Clones share the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// Whether an address is a trusted proxy's.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether no proxy is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for TrustedProxies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let networks = Vec::<String>::deserialize(deserializer)?;
        let networks = networks.iter().map(|network| parse_network(network)).collect::<Result<Vec<_>, _>>();
        networks.map(|networks| Self(networks.into())).map_err(serde::de::Error::custom)
    }
}

/// A malformed network.
#[derive(Debug, PartialEq, Eq)]
struct BadNetwork(String);

impl fmt::Display for BadNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is neither a network like 10.0.0.0/8 or fd00::/8 nor an address", self.0)
    }
}

/// A network, or one address.
fn parse_network(text: &str) -> Result<IpNet, BadNetwork> {
    let address = IpAddr::from_str(text).map(|address| IpNet::from(address.to_canonical()));
    address.or_else(|_| IpNet::from_str(text)).map_err(|_| BadNetwork(text.to_owned()))
}

/// The key by which connections from an address are counted: the IPv4 address, even if it is written as IPv6, or the network
/// of an IPv6 address.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = u128::MAX << (u128::BITS - IPV6_PREFIX);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & prefix))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(networks: &[&str]) -> TrustedProxies {
        serde_json::from_value(networks.into()).unwrap()
    }

    #[test]
    fn trusted_networks_contain_their_addresses() {
        let proxies = trusted(&["10.0.0.0/8", "192.0.2.7", "fd00::/8", "::1", "::ffff:198.51.100.1"]);
        for yes in ["10.1.2.3", "192.0.2.7", "fd12::1", "::1", "::ffff:10.1.2.3", "198.51.100.1"] {
            assert!(proxies.contains(yes.parse().unwrap()), "{yes}");
        }
        for no in ["11.0.0.1", "192.0.2.8", "fe80::1", "127.0.0.1"] {
            assert!(!proxies.contains(no.parse().unwrap()), "{no}");
        }
        assert!(!trusted(&[]).contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn malformed_networks_are_named() {
        for bad in ["10.0.0.0/33", "proxy", "", "10.0.0.1:80", "10.0.0"] {
            let error = serde_json::from_value::<TrustedProxies>([bad].as_slice().into()).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")) && error.contains("10.0.0.0/8"), "{error}");
        }
    }

    #[test]
    fn ipv6_addresses_count_by_prefix() {
        let network = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("2001:db8:1:2::1"), "2001:db8:1:2::");
    }
}
