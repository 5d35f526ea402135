//! The client's address, as proxies report it: by `X-Forwarded-For`, or by `Forwarded` (RFC 7239).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName};

use super::peer::HttpPeer;
use crate::model::TrustedProxies;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The scheme of a page's request: `https` over TLS; else as the first proxy reports it, or else `http`. `None` behind a
/// trusted proxy that reports none and speaks no TLS to the host.
///
/// Reports of untrusted peers count, too: the scheme is only compared with `Origin`, a check against browsers, and no
/// page can make a browser send these headers to another origin without a preflight.
pub(super) fn scheme_of(headers: &HeaderMap, peer: &HttpPeer) -> Option<&'static str> {
    let first = |name: &HeaderName| headers.get(name)?.to_str().ok()?.split(',').next();
    let of_element = |element: &str| {
        let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
        let proto = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("proto")).map(|(_, value)| value).next();
        proto.map(|value| value.trim().trim_matches('"').to_owned())
    };
    let reported = first(&X_FORWARDED_PROTO).map(|scheme| scheme.trim().to_owned());
    match reported
        .or_else(|| first(&FORWARDED).and_then(of_element))
        .map(|scheme| scheme.to_ascii_lowercase())
        .as_deref()
    {
        // Some proxies report a WebSocket's scheme.
        Some("https" | "wss") => Some("https"),
        Some("http" | "ws") => Some("http"),
        _ if peer.is_tls => Some("https"),
        _ if peer.is_proxied => None,
        _ => Some("http"),
    }
}

/// Whether a request has a header that names the client behind a proxy.
pub(super) fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(FORWARDED)
}

/// The client behind `peer` by these headers; `peer` itself where `peer` is untrusted.
///
/// Each proxy appends the address that connected to it, so the list is read from its end, as far as proxies are
/// trusted. At an entry that is no address (`unknown`, an obfuscated name, nonsense) the last proxy before the entry
/// counts as the client. A proxy that sets one header may pass the client's own copy of the other on, so if both are
/// present they must agree, or neither counts.
pub(super) fn client_of(peer: SocketAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> SocketAddr {
    if !trusted.contains(peer.ip()) {
        return peer;
    }
    let by_header = |name: &HeaderName, entry: fn(&str) -> Option<IpAddr>| {
        let values = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
        let entries: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
        (!entries.is_empty()).then(|| walk(peer.ip(), &entries, entry, trusted))
    };
    let address = match (by_header(&X_FORWARDED_FOR, node), by_header(&FORWARDED, forwarded_for)) {
        (Some(one), Some(other)) if one != other => {
            tracing::debug!(%peer, %one, %other, "X-Forwarded-For and Forwarded disagree, and neither is believed");
            return peer;
        }
        (Some(address), _) | (None, Some(address)) => address,
        (None, None) => return peer,
    };
    // Few proxies report the client's port, and the host does not use the port.
    if address == peer.ip() { peer } else { SocketAddr::new(address, 0) }
}

fn walk(peer: IpAddr, entries: &[&str], entry: fn(&str) -> Option<IpAddr>, trusted: &TrustedProxies) -> IpAddr {
    let mut client = peer;
    for text in entries.iter().rev() {
        if !trusted.contains(client) {
            break;
        }
        match entry(text) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// The `for` of an element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for")).map(|(_, value)| value.trim());
    let value = values.next()?;
    // A second `for` in one element violates RFC 7239.
    if values.next().is_some() {
        return None;
    }
    node(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// An address with an optional port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = if let Some(inner) = bracketed {
        inner.parse::<Ipv6Addr>().ok().map(IpAddr::from)
    } else {
        text.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
    };
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn client(peer: &str, headers: &[(&HeaderName, &str)]) -> String {
        let trusted = serde_json::from_value(["10.0.0.0/8", "fd00::/8"].as_slice().into()).unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        client_of(SocketAddr::new(peer.parse().unwrap(), 5), &map, &trusted).to_string()
    }

    #[test]
    fn unreported_scheme_is_http_unless_proxied() {
        let scheme = |pairs: &[(&'static str, &'static str)], is_proxied, is_tls| {
            let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            let peer = HttpPeer { address: ([192, 0, 2, 7], 1).into(), is_proxied, is_tls };
            scheme_of(&pairs.collect(), &peer)
        };
        for (pairs, direct, proxied) in [
            (&[][..], Some("http"), None),
            (&[("x-forwarded-proto", "https")], Some("https"), Some("https")),
            (&[("x-forwarded-proto", "WSS, http")], Some("https"), Some("https")),
            (&[("forwarded", "for=1.2.3.4;Proto=\"https\", proto=http")], Some("https"), Some("https")),
            (&[("x-forwarded-proto", "http")], Some("http"), Some("http")),
            (&[("x-forwarded-proto", "nonsense")], Some("http"), None),
        ] {
            assert_eq!((scheme(pairs, false, false), scheme(pairs, true, false)), (direct, proxied), "{pairs:?}");
        }
        assert_eq!((scheme(&[], false, true), scheme(&[], true, true)), (Some("https"), Some("https")));
    }

    #[test]
    fn x_forwarded_for_is_walked_from_the_right() {
        for (peer, list, wanted) in [
            ("10.0.0.1", "192.0.2.7", "192.0.2.7:0"),
            ("10.0.0.1", "192.0.2.7, 10.0.0.2", "192.0.2.7:0"),
            ("10.0.0.1", "6.6.6.6, 192.0.2.7", "192.0.2.7:0"),
            ("10.0.0.1", "6.6.6.6,192.0.2.7 ,10.9.9.9", "192.0.2.7:0"),
            ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3:0"),
            ("10.0.0.1", "192.0.2.7:4711", "192.0.2.7:0"),
            ("10.0.0.1", "[2001:db8::1]:4711", "[2001:db8::1]:0"),
            ("10.0.0.1", "2001:db8::1", "[2001:db8::1]:0"),
            ("10.0.0.1", "::ffff:192.0.2.7", "192.0.2.7:0"),
            ("fd00::1", "192.0.2.7", "192.0.2.7:0"),
            // An untrusted peer is the client.
            ("192.0.2.1", "6.6.6.6", "192.0.2.1:5"),
        ] {
            assert_eq!(client(peer, &[(&X_FORWARDED_FOR, list)]), wanted, "{peer}: {list}");
        }
        let two_lines = [(&X_FORWARDED_FOR, "6.6.6.6"), (&X_FORWARDED_FOR, "192.0.2.7, 10.0.0.2")];
        assert_eq!(client("10.0.0.1", &two_lines), "192.0.2.7:0");
    }

    #[test]
    fn malformed_entry_ends_the_trusted_chain() {
        for list in ["", "unknown", "_hidden", "192.0.2.7.8", "6.6.6.6, unknown", "[192.0.2.7]", "6.6.6.6,", "é"] {
            assert_eq!(client("10.0.0.1", &[(&X_FORWARDED_FOR, list)]), "10.0.0.1:5", "{list}");
        }
        assert_eq!(client("10.0.0.1", &[(&X_FORWARDED_FOR, "6.6.6.6, unknown, 10.0.0.2")]), "10.0.0.2:0");
    }

    #[test]
    fn forwarded_is_read_as_in_rfc_7239() {
        for (value, wanted) in [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60:0"),
            ("For=\"[2001:db8:cafe::17]:4711\"", "[2001:db8:cafe::17]:0"),
            ("for=192.0.2.43, for=10.0.0.9", "192.0.2.43:0"),
            ("for=6.6.6.6, proto=https; for=192.0.2.43", "192.0.2.43:0"),
            ("for=\"_gazonk\"", "10.0.0.1:5"),
            ("for=unknown", "10.0.0.1:5"),
            ("for=6.6.6.6;for=7.7.7.7", "10.0.0.1:5"),
            ("by=6.6.6.6", "10.0.0.1:5"),
        ] {
            assert_eq!(client("10.0.0.1", &[(&FORWARDED, value)]), wanted, "{value}");
        }
    }

    #[test]
    fn differing_forwarded_headers_are_ignored() {
        let with = |forwarded| client("10.0.0.1", &[(&X_FORWARDED_FOR, "192.0.2.7"), (&FORWARDED, forwarded)]);
        assert_eq!(with("for=192.0.2.7"), "192.0.2.7:0");
        assert_eq!(with("for=6.6.6.6"), "10.0.0.1:5");
        assert_eq!(with("nonsense"), "10.0.0.1:5");
    }
}
