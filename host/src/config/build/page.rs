//! `docs/configuration.md` shows each key with its default.

use std::path::Path;

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Format as _, Toml};
use serde::de::DeserializeOwned;

use crate::config::build::{Config, Overrides};
use crate::config::file::{self, File};
use crate::config::sections::api_keys::ApiKeySection;
use crate::config::sections::auth::{AuthSection, ClaimsSection, JwtSection};
use crate::config::sections::auth_session::{SessionClaimsSection, SessionSection};
use crate::config::sections::budget::BudgetSection;
use crate::config::sections::cluster::ClusterSection;
use crate::config::sections::cors::CorsSection;
use crate::config::sections::heartbeat::HeartbeatSection;
use crate::config::sections::limits::LimitsSection;
use crate::config::sections::plugins::PluginsSection;
use crate::config::sections::recovery::RecoverySection;
use crate::config::sections::rooms::RoomSection;
use crate::config::sections::shutdown::ShutdownSection;
use crate::config::sections::socketio::SocketIoSection;
use crate::config::sections::store::StoreSection;
use crate::config::sections::tls::{ApiTlsSection, TlsSection};
use crate::plugin::PluginOptions;

const PAGE: &str = include_str!("../../../../docs/configuration.md");

/// A plugin whose table the page shows as an example.
const EXAMPLE: &str = "[plugins.ticket-collision]";

/// The page's TOML, as lines of each table by its header; the lines before the first header are under "".
fn tables() -> Vec<(&'static str, String)> {
    let (_, rest) = PAGE.split_once("```toml\n").expect("the page has TOML");
    let (toml, _) = rest.split_once("\n```").expect("the TOML ends");
    let mut tables = vec![("", String::new())];
    for line in toml.lines() {
        let header = line.trim_start_matches("# ");
        if header.starts_with('[')
            && let Some((name, _)) = header.split_once('#').or(Some((header, "")))
        {
            tables.push((name.trim(), String::new()));
        }
        let (_, text) = tables.last_mut().expect("there is a table");
        text.push_str(line);
        text.push('\n');
    }
    tables
}

fn build(toml: &str) -> String {
    let built = file::parse(toml, &[])
        .and_then(|file| Config::build(file, false, Overrides::default(), Path::new("/srv")))
        .expect("the page's TOML is a configuration");
    format!("{built:#?}")
}

#[test]
fn page_shows_the_defaults() {
    let toml: String = tables().into_iter().filter(|(name, _)| *name != EXAMPLE).map(|(_, text)| text).collect();
    assert_eq!(build(&toml), build(""));
}

/// The keys of a table, from the error about an unknown key.
fn keys<T: DeserializeOwned>() -> Vec<&'static str> {
    match Figment::from(Toml::string("no_such_key = 1")).extract::<T>().map(|_| ()).map_err(|error| error.kind) {
        Err(Kind::UnknownField(_, known)) => known.to_vec(),
        other => panic!("the unknown key is not refused: {other:?}"),
    }
}

#[test]
fn page_names_every_key() {
    let tables = tables();
    for (table, keys) in [
        ("", keys::<File>()),
        ("[auth]", keys::<AuthSection>()),
        ("[auth.jwt]", keys::<JwtSection>()),
        ("[limits]", keys::<LimitsSection>()),
        ("[limits.user]", keys::<BudgetSection>()),
        ("[heartbeat]", keys::<HeartbeatSection>()),
        ("[recovery]", keys::<RecoverySection>()),
        ("[socketio]", keys::<SocketIoSection>()),
        ("[cors]", keys::<CorsSection>()),
        ("[tls]", keys::<TlsSection>()),
        ("[tls.api]", keys::<ApiTlsSection>()),
        ("[store]", keys::<StoreSection>()),
        ("[cluster]", keys::<ClusterSection>()),
        ("[shutdown]", keys::<ShutdownSection>()),
        ("[plugins]", keys::<PluginsSection>()),
        (EXAMPLE, keys::<PluginOptions>()),
        ("[[api_keys]]", keys::<ApiKeySection>()),
        ("[[rooms]]", keys::<RoomSection>()),
        ("[auth.jwt.claims]", keys::<ClaimsSection>()),
        ("[auth.session]", keys::<SessionSection>()),
        ("[auth.session.claims]", keys::<SessionClaimsSection>()),
    ] {
        let (_, text) = tables.iter().find(|(name, _)| *name == table).expect(table);
        let path = table.trim_matches(['[', ']']);
        for key in keys.into_iter() {
            let inner = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            let is_table = tables.iter().any(|(name, _)| name.trim_matches(['[', ']']) == inner);
            let is_named = text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == key);
            let is_explained = PAGE.contains(&format!("`{inner}`")) || PAGE.contains(&format!("`{key}`"));
            assert!(is_table || is_named || is_explained, "docs/configuration.md does not name {inner}");
        }
    }
}
