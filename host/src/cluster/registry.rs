//! What plugins a cluster runs: a record of each, and their components by digest.
//!
//! Each change has a **revision**, one number for all plugins, which only ever rises. The record of a plugin has the revision
//! of its last change; a node that replaces it says which one it replaces, so of two nodes that change a plugin at once, one is
//! refused. A registry has an **id**, by which a node tells whether what it remembers is of this cluster or of another that it
//! was part of. This module does not look into records.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use redis::Value;

use super::config::ClusterConfig;
use super::connection::{Redis, open_another, within};
use super::keys::Keys;
use super::link::random_text;
use super::ops::{items, octets, pairs, text_number};
use super::scripts;

/// The time that a component may take to or from Redis.
const TRANSFER: Duration = Duration::from_secs(30);

/// How long a component is kept that no record names: until a slow node has it, or the record that is to name it is written.
const UNNAMED_FOR: Duration = Duration::from_secs(3600);

/// The plugins of a cluster. Calls wait for Redis, over connections of their own.
#[derive(Debug)]
pub struct Registry {
    config: ClusterConfig,
    keys: Keys,
}

/// What the cluster runs of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The plugin's name.
    pub name: String,
    /// The revision of its last change.
    pub revision: u64,
    /// The record, as the node has written it that made the change.
    pub record: Vec<u8>,
}

/// All that a cluster runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The registry's id; none before the first change.
    pub id: Option<String>,
    /// The revision of the last change.
    pub revision: u64,
    /// What is run of each plugin.
    pub plugins: Vec<Registered>,
}

/// A change of what the cluster runs of a plugin.
#[derive(Debug)]
pub struct Proposal<'a> {
    /// The plugin's name.
    pub name: &'a str,
    /// The revision of the record that is replaced; 0 if there is none.
    pub before: u64,
    /// The highest revision that the node knows.
    pub known: u64,
    /// The registry's id as the node remembers it.
    pub id: Option<&'a str>,
    /// The record.
    pub record: &'a [u8],
    /// The digests of all components that it names.
    pub components: &'a [String],
    /// The digests of components that only the record before has named.
    pub dropped: &'a [String],
}

impl Registry {
    pub(super) fn new(config: ClusterConfig) -> Self {
        let keys = Keys::new(&config.name);
        Self { config, keys }
    }

    fn run<T>(&self, work: impl AsyncFnOnce(&mut Redis) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let done = runtime.block_on(async {
            let mut redis = open_another(&self.config).await?;
            within(TRANSFER, work(&mut redis)).await.context("Redis does not answer")?
        });
        done.with_context(|| format!("the cluster's Redis, {}", self.config.redis))
    }

    /// All that the cluster runs.
    ///
    /// # Errors
    /// Where Redis is away or refuses.
    pub fn read(&self) -> anyhow::Result<Contents> {
        self.run(async |redis| {
            let mut pipeline = redis::pipe();
            pipeline.atomic().get(self.keys.plugins_revision()).hgetall(self.keys.plugins());
            let answer: Value = pipeline.query_async(redis).await?;
            let [revision, records] = items(&answer)? else { bail!("Redis answers {answer:?}") };
            let revision = if matches!(revision, Value::Nil) { 0 } else { text_number(octets(revision)?)? };
            let records = match records {
                Value::Map(records) => {
                    records.iter().map(|(name, record)| Ok((octets(name)?, octets(record)?))).collect()
                }
                records => pairs(items(records)?),
            };
            let mut contents = Contents { revision, ..Contents::default() };
            for (name, record) in records? {
                match name {
                    b"" => contents.id = Some(text(record)?),
                    name => contents.plugins.push(registered(name, record)?),
                }
            }
            Ok(contents)
        })
    }

    /// A component.
    ///
    /// # Errors
    /// Where Redis is away or refuses, or does not have it.
    pub fn component(&self, digest: &str) -> anyhow::Result<Vec<u8>> {
        let component: Option<Vec<u8>> =
            self.run(async |redis| Ok(redis::cmd("GET").arg(self.keys.component(digest)).query_async(redis).await?))?;
        component.with_context(|| format!("the cluster does not have the component {digest} any more: load it again"))
    }

    /// Puts a component, unless it is there.
    ///
    /// # Errors
    /// Where Redis is away or refuses.
    pub fn keep(&self, digest: &str, component: &[u8]) -> anyhow::Result<()> {
        self.run(async |redis| {
            // One that a record names has no end, and stays so.
            let (key, seconds) = (self.keys.component(digest), UNNAMED_FOR.as_secs());
            let mut set = redis::cmd("SET");
            set.arg(&key).arg(component).arg("NX").arg("EX").arg(seconds);
            let is_new: Option<()> = set.query_async(redis).await?;
            if is_new.is_none() {
                redis::cmd("EXPIRE").arg(&key).arg(seconds).arg("GT").query_async::<()>(redis).await?;
            }
            Ok(())
        })
    }

    /// Changes what the cluster runs of a plugin. Returns the revision and the registry's id; none if another node has changed it
    /// since.
    ///
    /// # Errors
    /// Where Redis is away or refuses.
    pub fn change(&self, change: &Proposal<'_>) -> anyhow::Result<Option<(u64, String)>> {
        let components = change.components.iter().chain(change.dropped).map(|digest| self.keys.component(digest));
        let keys: Vec<_> = [self.keys.plugins(), self.keys.plugins_revision()].into_iter().chain(components).collect();
        self.run(async |redis| {
            let mut call = scripts::CHANGE_PLUGIN.prepare_invoke();
            for key in keys {
                call.key(key);
            }
            call.arg(change.name).arg(change.before).arg(change.known).arg(change.record);
            call.arg(change.components.len()).arg(UNNAMED_FOR.as_secs()).arg(self.keys.news());
            call.arg(change.id.map_or_else(random_text, str::to_owned));
            let (revision, id): (u64, String) = call.invoke_async(redis).await?;
            Ok((revision > 0).then_some((revision, id)))
        })
    }

    /// Puts a record back that Redis has lost.
    ///
    /// # Errors
    /// Where Redis is away or refuses.
    pub fn put_back(&self, id: &str, lost: &Registered, components: &[String]) -> anyhow::Result<()> {
        self.run(async |redis| {
            let mut call = scripts::PUT_PLUGIN_BACK.prepare_invoke();
            call.key(self.keys.plugins()).key(self.keys.plugins_revision());
            for digest in components {
                call.key(self.keys.component(digest));
            }
            call.arg(&lost.name).arg(lost.revision).arg(&lost.record[..]).arg(self.keys.news()).arg(id);
            let is_of_this: u64 = call.invoke_async(redis).await?;
            ensure!(is_of_this > 0, "it is of another cluster than this node was part of: start the node again");
            Ok(())
        })
    }
}

fn text(bytes: &[u8]) -> anyhow::Result<String> {
    String::from_utf8(bytes.to_vec()).context("what the cluster runs is not written in UTF-8")
}

/// The record of a plugin, which begins with its revision.
fn registered(name: &[u8], record: &[u8]) -> anyhow::Result<Registered> {
    let at = record.iter().position(|byte| *byte == b' ').context("a plugin's record has no revision")?;
    Ok(Registered { name: text(name)?, revision: text_number(&record[..at])?, record: record[at + 1..].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_begins_with_its_revision() {
        let read = registered(b"chat", b"12 {\"a\": 1}").unwrap();
        assert_eq!((read.revision, &read.record[..]), (12, &b"{\"a\": 1}"[..]));
        assert!(registered(b"chat", b"{}").is_err() && registered(b"chat", b"x {}").is_err());
    }
}
