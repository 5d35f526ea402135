//! Values that are checked while they are read, so that an error names their key.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hyper::Uri;
use serde::{Deserialize, Deserializer};

/// A secret, which no error repeats.
pub(super) fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let unquoted =
        |_| serde::de::Error::custom("a secret must be text: put it in quotes (in the environment: '\"…\"')");
    given(Option::<String>::deserialize(deserializer).map_err(unquoted)?)
}

/// One text or a list of texts, none of which may be empty.
pub(super) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "it must be text, or a list of texts")]
    enum Texts {
        One(String),
        Many(Vec<String>),
    }
    let texts = match Texts::deserialize(deserializer)? {
        Texts::One(text) => vec![text],
        Texts::Many(texts) => texts,
    };
    texts.into_iter().map(|text| given(Some(text)).map(Option::unwrap_or_default)).collect()
}

/// Optional text, which must not be empty: an empty value would match nothing.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    given(Option::<String>::deserialize(deserializer)?)
}

/// An optional path, which must not be empty: an empty path would name the working folder.
pub(super) fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    Ok(text(deserializer)?.map(PathBuf::from))
}

/// A path with a default.
pub(super) fn some_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Ok(path(deserializer)?.unwrap_or_default())
}

/// A name that a cookie can have (RFC 6265, section 4.1.1).
pub(super) fn cookie_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = text(deserializer)?;
    let is_token = |name: &String| name.chars().all(|c| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?={}".contains(c));
    match name.as_ref().is_none_or(is_token) {
        true => Ok(name),
        false => {
            Err(serde::de::Error::custom("no cookie can have such a name: it has no spaces, semicolons and the like"))
        }
    }
}

fn given<E: serde::de::Error>(text: Option<String>) -> Result<Option<String>, E> {
    match &text {
        Some(text) if text.trim().is_empty() => Err(E::custom("it is empty: give it a value, or leave the key out")),
        _ => Ok(text),
    }
}

/// # Errors
/// Where a duration is not within `least` and a day.
pub(super) fn check_duration(name: &str, duration: Duration, least: Duration) -> anyhow::Result<()> {
    let most = Duration::from_secs(24 * 60 * 60);
    ensure!((least..=most).contains(&duration), "{name} is {duration:?}, and must be {least:?} to 1 day");
    Ok(())
}

/// The URL of a service that the host calls.
///
/// # Errors
/// Where it is not `http` or `https`, or has a user and password, which would be logged.
pub(super) fn parse_url(key: &str, url: &str) -> anyhow::Result<Uri> {
    let parsed: Uri = url.parse().with_context(|| format!("{key} is not a URL"))?;
    ensure!(matches!(parsed.scheme_str(), Some("http" | "https")), "{key} must begin with https:// or http://");
    let authority = parsed.authority().map_or("", |authority| authority.as_str());
    ensure!(!authority.contains('@'), "{key} has a user or password, which the host does not send");
    let is_local = matches!(parsed.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if parsed.scheme_str() == Some("http") && !is_local {
        tracing::warn!("{key} is not encrypted: whoever is between can exchange the answers; use https");
    }
    Ok(parsed)
}
