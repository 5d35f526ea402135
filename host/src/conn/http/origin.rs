//! Allowed origins, as they are configured and as browsers send them (RFC 6454, section 6.1).

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::header::{HOST, ORIGIN};
use hyper::{HeaderMap, header::HeaderValue};

/// The opaque origin of files and sandboxed frames.
const OPAQUE: &str = "null";

/// One or several origins that are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// `*`: every origin.
    Any,
    /// `null`: pages with an opaque origin, which any site can create.
    Opaque,
    /// One origin, as browsers write it.
    Exact(String),
    /// All names within a domain, as `https://*.app.example`.
    Within {
        /// The scheme with its separator, as `https://`.
        scheme: String,
        /// From the dot on, with the port, as `.app.example:8443`.
        domain: String,
    },
}

impl AllowedOrigin {
    /// Parses an origin, and normalises it as browsers do.
    ///
    /// # Errors
    /// The right form of the origin, where no browser sends this one.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "*" => return Ok(Self::Any),
            OPAQUE => return Ok(Self::Opaque),
            _ => {}
        }
        let lower = text.to_ascii_lowercase();
        let (scheme, authority) = lower.split_once("://").ok_or("it has no scheme, as in https://app.example")?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        match scheme {
            "ws" | "wss" => return Err(format!("it is the page's address that counts: write http{}", &lower[2..])),
            "file" => return Err("pages from files are sent with the origin null: write \"null\"".to_owned()),
            _ if !is_scheme => return Err(format!("{scheme:?} is no scheme")),
            _ => {}
        }
        if let Some(end) = authority.find(['/', '?', '#', '\\']) {
            return Err(format!("an origin has no path: write {scheme}://{}", &authority[..end]));
        }
        if authority.contains('@') {
            return Err("an origin has no user: leave out what is before the @".to_owned());
        }
        let (host, port) = split_port(authority)?;
        let port = match (scheme, port) {
            (_, None) | ("http", Some(80)) | ("https", Some(443)) => String::new(),
            (_, Some(port)) => format!(":{port}"),
        };
        if let Some(domain) = host.strip_prefix("*.") {
            check_name(domain)?;
            if domain.parse::<Ipv4Addr>().is_ok() || !domain.contains('.') && domain != "localhost" {
                return Err("that is too wide: name a domain, as in https://*.app.example".to_owned());
            }
            return Ok(Self::Within { scheme: format!("{scheme}://"), domain: format!(".{domain}{port}") });
        }
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => {
                let address: Ipv6Addr = address.parse().map_err(|_| format!("{address:?} is no IPv6 address"))?;
                format!("[{address}]")
            }
            None => check_name(host).map(|()| host.to_owned())?,
        };
        Ok(Self::Exact(format!("{scheme}://{host}{port}")))
    }

    /// Whether this allows pages of `origin`, which a browser sent.
    pub(super) fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Opaque => origin == OPAQUE,
            Self::Exact(exact) => exact.eq_ignore_ascii_case(without_default_port(origin)),
            Self::Within { scheme, domain } => {
                let origin = without_default_port(origin).to_ascii_lowercase();
                let name = origin.strip_prefix(&**scheme).and_then(|rest| rest.strip_suffix(&**domain));
                name.is_some_and(|name| !name.is_empty() && name.chars().all(is_of_name))
            }
        }
    }

    /// Whether this names its origin, unlike `*` and `null`. Any site can have pages that match `*` or `null`, so such
    /// pages may not use cookies, which are the visitor's.
    pub fn is_named(&self) -> bool {
        matches!(self, Self::Exact(_) | Self::Within { .. })
    }
}

/// Whether a request comes from a page of this host, or from no page. `own_scheme` is the request's scheme, where
/// known: a page loaded over `http`, which an attacker can alter, is no page of the host over `https`.
pub(super) fn is_from_here(headers: &HeaderMap, own_scheme: Option<&str>) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let origin = origin.to_str().unwrap_or_default();
    let Some((scheme, authority)) = without_default_port(origin).split_once("://") else { return false };
    if own_scheme.is_some_and(|own| own != scheme) {
        return false;
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // A proxy may add to `Host` the default port that a browser leaves out of `Origin`.
    let host = match scheme {
        "https" => host.strip_suffix(":443").unwrap_or(host),
        "http" => host.strip_suffix(":80").unwrap_or(host),
        _ => host,
    };
    !host.is_empty() && host.eq_ignore_ascii_case(authority)
}

/// Whether an origin is this machine, on any port.
pub(super) fn is_of_this_machine(origin: &HeaderValue) -> bool {
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    let host = authority.and_then(|authority| split_port(authority).ok()).map(|(host, _)| host);
    host.is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"))
}

fn without_default_port(origin: &str) -> &str {
    let default = if origin.starts_with("https:") { ":443" } else { ":80" };
    match origin.starts_with("http") {
        true => origin.strip_suffix(default).unwrap_or(origin),
        false => origin,
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    let end_of_address = authority.find(']').map_or(0, |end| end + 1);
    let Some(colon) = authority[end_of_address..].find(':') else { return Ok((authority, None)) };
    let (host, port) = authority.split_at(end_of_address + colon);
    let port = port[1..].parse().map_err(|_| format!("{:?} is no port: list an origin for each port", &port[1..]))?;
    Ok((host, Some(port)))
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("it has no host".to_owned());
    }
    if !name.is_ascii() {
        return Err(format!("write {name:?} as browsers send it, with xn-- (punycode)"));
    }
    if name.contains('*') {
        return Err("a * may stand in place of the first names alone, as in https://*.app.example".to_owned());
    }
    let is_address_like = name.chars().all(|c| c.is_ascii_digit() || c == '.');
    match name.chars().all(is_of_name) && (!is_address_like || name.parse::<Ipv4Addr>().is_ok()) {
        true => Ok(()),
        false => Err(format!("{name:?} is no host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &str, origin: &str) -> bool {
        AllowedOrigin::parse(pattern).unwrap().allows(origin)
    }

    #[test]
    fn origins_match_as_browsers_send_them() {
        for (pattern, origin) in [
            ("https://app.example", "https://app.example"),
            ("HTTPS://App.Example", "https://app.example"),
            ("https://app.example:443", "https://app.example"),
            ("http://app.example:80", "http://app.example"),
            ("https://app.example", "https://app.example:443"),
            ("https://app.example:8443", "https://app.example:8443"),
            ("http://[0:0::1]:3000", "http://[::1]:3000"),
            ("https://*.app.example", "https://a.app.example"),
            ("https://*.App.example:443", "https://a.b.app.example"),
            ("https://*.app.example:8443", "https://a.app.example:8443"),
            ("http://*.localhost:3000", "http://a.localhost:3000"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("tauri://localhost", "tauri://localhost"),
            ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
            ("null", "null"),
            ("*", "https://any.example"),
            ("*", "null"),
        ] {
            assert!(allows(pattern, origin), "{pattern} {origin}");
        }
        for (pattern, origin) in [
            ("https://app.example", "http://app.example"),
            ("https://app.example", "https://app.example:8443"),
            ("https://app.example", "https://app.example.evil.example"),
            ("https://*.app.example", "https://app.example"),
            ("https://*.app.example", "https://.app.example"),
            ("https://*.app.example", "https://evilapp.example"),
            ("https://*.app.example", "https://evil.example/.app.example"),
            ("https://*.app.example", "https://evil.example@.app.example"),
            ("https://*.app.example", "http://a.app.example"),
            ("https://*.app.example", "https://a.app.example:8443"),
            ("https://app.example", "null"),
            ("null", "https://app.example"),
        ] {
            assert!(!allows(pattern, origin), "{pattern} {origin}");
        }
    }

    #[test]
    fn malformed_allowed_origins_are_refused_with_the_reason() {
        for (text, reason) in [
            ("app.example", "scheme"),
            ("https://", "no host"),
            ("https://app.example/", "write https://app.example"),
            ("https://app.example/path", "write https://app.example"),
            ("https://app.example?x", "no path"),
            ("https://user:pw@app.example", "no user"),
            ("https://app.example:", "port"),
            ("https://app.example:http", "port"),
            ("https://app.example:*", "list an origin for each port"),
            ("https://bücher.example", "xn--"),
            ("https://a b.example", "no host"),
            ("https://127.1", "no host"),
            ("https://[::g]", "IPv6"),
            ("wss://app.example", "write https://app.example"),
            ("ws://app.example", "write http://app.example"),
            ("file://", "null"),
            ("1http://a", "scheme"),
            ("https://*", "first names"),
            ("https://*.example", "too wide"),
            ("https://*.10.0.0.1", "too wide"),
            ("https://a.*.example", "first names"),
            ("https://*.*.app.example", "first names"),
            ("", "scheme"),
        ] {
            let refused = AllowedOrigin::parse(text).expect_err(text);
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }

    #[test]
    fn same_origin_needs_equal_scheme_host_and_port() {
        let from_here = |host: &'static str, origin: &'static str| {
            let pairs = [(HOST, HeaderValue::from_static(host)), (ORIGIN, HeaderValue::from_static(origin))];
            is_from_here(&pairs.into_iter().collect(), None)
        };
        assert!(is_from_here(&HeaderMap::new(), Some("http")));
        let by = |own: &str, origin: &'static str| {
            let pairs = [(HOST, HeaderValue::from_static("a.example")), (ORIGIN, HeaderValue::from_static(origin))];
            is_from_here(&pairs.into_iter().collect(), Some(own))
        };
        assert!(by("http", "http://a.example") && by("https", "https://a.example"));
        assert!(!by("https", "http://a.example") && !by("http", "https://a.example"));
        assert!(from_here("a.example:8080", "http://a.example:8080"));
        assert!(from_here("A.example:443", "https://a.example"));
        assert!(from_here("a.example:80", "http://a.example"));
        assert!(!from_here("a.example:8080", "http://a.example"));
        assert!(!from_here("a.example:80", "https://a.example"));
        assert!(!from_here("null", "null"));
        assert!(!from_here("", "https://"));
    }

    #[test]
    fn loopback_origins_are_recognised() {
        for (origin, is_here) in [
            ("http://localhost:3000", true),
            ("http://127.0.0.1", true),
            ("http://[::1]", true),
            ("http://[::1]:3000", true),
            ("http://localhost.evil.example", false),
            ("null", false),
        ] {
            assert_eq!(is_of_this_machine(&HeaderValue::from_static(origin)), is_here, "{origin}");
        }
    }
}
