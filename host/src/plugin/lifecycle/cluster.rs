//! Changes of plugins on all nodes of a cluster.
//!
//! A node that loads, rolls back or unloads a plugin first has all others try the build, then writes the change down in Redis
//! ([`crate::cluster::Registry`]), then makes it; the others hear of it at once, and make it too. What each partition commits
//! says up to which change its owner had come, and a node that takes the partition makes these changes first.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use semver::Version;
use tokio::sync::oneshot;

use super::component_store::Record;
use super::install::Lifecycle;
use super::report::{NodeBehind, PluginReport};
use crate::cluster::{Proposal, Registered, Registry};
use crate::model::{GenerationId, NodeId};
use crate::plugin::load::generation::{Generation, Installed};
use crate::plugin::load::loader::{Described, LoadError, Step};
use crate::plugin::run::clustered::node::Node;
use crate::plugin::run::clustered::operators::TryBuild;
use crate::plugin::run::clustered::questions::{ANSWER_WITHIN, Question, Reply};

/// The time that another node may take to try a build: it compiles it.
const TRY_WITHIN: Duration = Duration::from_secs(30);

/// The time that nodes may take to put the registry back, and between two looks at it.
const PUT_BACK_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Lifecycle {
    /// Adds to reports which nodes of the cluster run another build.
    pub async fn compare_nodes(&self, reports: &mut [PluginReport]) {
        let Some(node) = &self.shared.node else { return };
        let answers = self.shared.ask_nodes(node, node.cluster.others(), &Question::Builds, ANSWER_WITHIN).await;
        let view = node.cluster.view();
        for (other, reply) in answers {
            let Some(info) = view.nodes.get(&other) else { continue };
            for report in &mut *reports {
                report.behind.extend(behind(&info.name, reply.as_ref(), &report.id));
            }
        }
    }

    pub(super) fn clustered(&self) -> Option<(&Arc<Node>, Registry)> {
        let node = self.shared.node.as_ref()?;
        Some((node, node.cluster.registry()))
    }

    /// Asks all other nodes, and waits for their answers.
    fn ask_others(&self, node: &Arc<Node>, question: Question) -> Vec<(NodeId, Option<Reply>)> {
        let others = node.cluster.others();
        if others.is_empty() {
            return Vec::new();
        }
        let (sender, answers) = oneshot::channel();
        let (asking, shared) = (node.clone(), self.shared.clone());
        node.cluster.spawn(async move {
            // The request may have ended.
            let _ = sender.send(shared.ask_nodes(&asking, others, &question, TRY_WITHIN).await);
        });
        answers.blocking_recv().unwrap_or_default()
    }

    /// Whether a file of the plugin folder is older than what the cluster runs, or as old: a node that starts with an older
    /// image must not take the others back.
    pub(super) fn is_older_than_the_clusters(&self, described: &Described) -> bool {
        let record = self.store.record(&described.name);
        let Some(current) = record.current.filter(|_| record.revision > 0 && self.shared.node.is_some()) else {
            return false;
        };
        let version = |text: &str| Version::parse(text).ok();
        version(&described.version) <= version(&current.version) && described.digest != current.digest
    }

    /// Has all other nodes of a cluster try a build that is to run on them.
    ///
    /// # Errors
    /// If it cannot run on one of them, or one does not answer.
    pub(super) fn have_others_try(
        &self,
        generation: &Generation,
        component: &[u8],
        lose_writes: bool,
    ) -> Result<(), LoadError> {
        let Some((node, registry)) = self.clustered() else { return Ok(()) };
        let passing = |message: String| LoadError::passing(Step::Install, message);
        let installed = generation.installed();
        registry.keep(&installed.digest, component).map_err(|error| passing(format!("{error:#}")))?;
        let plugin = generation.id.name.clone();
        for (other, reply) in self.ask_others(node, Question::Try(TryBuild { plugin, installed, lose_writes })) {
            let view = node.cluster.view();
            let Some(info) = view.nodes.get(&other) else { continue };
            match reply {
                Some(Reply { refusal: None, .. }) => {}
                Some(Reply { refusal: Some(why), .. }) => {
                    return Err(passing(format!("it cannot run on the node {} of the cluster: {why}", info.name)));
                }
                None => {
                    return Err(passing(format!("the node {} of the cluster does not answer: try again", info.name)));
                }
            }
        }
        Ok(())
    }

    /// Has all other nodes of a cluster try a build that was kept for a rollback.
    ///
    /// # Errors
    /// If it cannot run on one of them, or one does not answer.
    pub(super) fn have_others_try_again(&self, generation: &Generation, lose_writes: bool) -> Result<(), LoadError> {
        if self.shared.node.is_none() {
            return Ok(());
        }
        let component = self.store.read(&generation.id.digest).map_err(LoadError::not_installed)?;
        self.have_others_try(generation, &component, lose_writes)
    }

    /// Tries a build for another node, which wants to run it on all.
    pub(super) fn try_for_cluster(&self, build: &TryBuild) -> Result<(), LoadError> {
        let TryBuild { plugin: name, installed, lose_writes } = build;
        if self.loaded(name, installed).is_none() {
            self.fetch(&installed.digest).map_err(|error| LoadError::passing(Step::Install, format!("{error:#}")))?;
        }
        let generation = self.generation_of(name, installed)?;
        self.try_routes(&generation)?;
        match self.shared.plugin(name) {
            Some(plugin) => self.losses(&plugin, &generation)?.permit(*lose_writes),
            None => Ok(()),
        }
    }

    /// The generation of a record: one that is loaded, or it is loaded now.
    pub(super) fn generation_of(&self, name: &str, installed: &Installed) -> Result<Arc<Generation>, LoadError> {
        if let Some(loaded) = self.loaded(name, installed) {
            return Ok(loaded);
        }
        let component = self.store.read(&installed.digest).map_err(LoadError::not_installed)?;
        Ok(Arc::new(self.prepare_installed(&component, installed, name)?))
    }

    /// Gets a component from the cluster, unless this node has it.
    pub(super) fn fetch(&self, digest: &str) -> anyhow::Result<()> {
        let Some((_, registry)) = self.clustered() else { return Ok(()) };
        if self.store.read(digest).is_ok() {
            return Ok(());
        }
        let component = registry.component(digest)?;
        self.store.keep(&component, digest).context("the component cannot be written to disk")
    }

    /// Writes a change down for all nodes of a cluster. Returns the record with its revision.
    ///
    /// # Errors
    /// If Redis is away, or another node has changed the plugin at the same time.
    pub(super) fn announce(&self, record: Record) -> io::Result<Record> {
        let Some((node, registry)) = self.clustered() else { return Ok(record) };
        let before = self.store.record(&record.name);
        let file = record.folder.as_ref().map(|file| file.digest.clone());
        let record = Record { last_file: file.or(before.last_file.clone()), ..record };
        let revision = before.revision;
        // Which file a component came from concerns the host alone.
        if revision > 0 && text_of(&record).ok() == text_of(&before).ok() {
            return Ok(Record { revision, registry: before.registry, ..record });
        }
        let changed =
            self.propose(&registry, &record, &before).map_err(|error| io::Error::other(format!("{error:#}")))?;
        let message =
            "another node of the cluster has changed the plugin at the same time: look at what runs, and try again";
        let (revision, id) = changed.ok_or_else(|| io::Error::other(message))?;
        // From now on what this node commits may be of the new build.
        node.revisions.use_up_to(revision);
        Ok(Record { revision, registry: Some(id), ..record })
    }

    fn propose(&self, registry: &Registry, record: &Record, before: &Record) -> anyhow::Result<Option<(u64, String)>> {
        let components = self.put_components(registry, record)?;
        let digests = |record: &Record| record.installed().map(|one| one.digest.clone()).collect::<BTreeSet<_>>();
        let dropped: Vec<_> = digests(before).difference(&digests(record)).cloned().collect();
        let known = self.store.records().iter().map(|record| record.revision).max().unwrap_or(0);
        let proposal = Proposal {
            name: &record.name,
            before: before.revision,
            known,
            id: before.registry.as_deref(),
            record: &text_of(record)?,
            components: &components,
            dropped: &dropped,
        };
        if let Some(changed) = registry.change(&proposal)? {
            return Ok(Some(changed));
        }
        // Another node was quicker, or Redis has lost the registry.
        self.wait_until_put_back(registry, known)?;
        registry.change(&proposal)
    }

    /// Waits until the nodes have put back what Redis has lost of the registry, which they do together: of a record the newest
    /// has to be there before it is changed.
    fn wait_until_put_back(&self, registry: &Registry, known: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + PUT_BACK_WITHIN;
        while registry.read()?.revision < known && Instant::now() < deadline && self.threads.pause(LOOK_AGAIN) {}
        Ok(())
    }

    /// Sees to it that the cluster has the components of a record. Returns their digests.
    fn put_components(&self, registry: &Registry, record: &Record) -> anyhow::Result<Vec<String>> {
        let mut digests = Vec::new();
        for installed in record.installed() {
            match self.store.read(&installed.digest) {
                Ok(component) => registry.keep(&installed.digest, &component)?,
                // The node that loads it puts it before it is tried.
                Err(_) if record.current.as_ref() == Some(installed) => {}
                Err(error) => {
                    tracing::warn!(plugin = %record.name, generation = installed.generation, "{error}");
                    continue;
                }
            }
            digests.push(installed.digest.clone());
        }
        Ok(digests)
    }

    /// Puts the records back that Redis has lost.
    pub(super) fn put_back(&self, registry: &Registry, entries: &[Registered]) -> anyhow::Result<()> {
        let is_there = |record: &Record| {
            entries.iter().any(|entry| entry.name == record.name && entry.revision >= record.revision)
        };
        let mut lost = self.store.records();
        lost.retain(|record| record.revision > 0 && !is_there(record));
        // The highest comes last: when it is there, all are.
        lost.sort_unstable_by_key(|record| record.revision);
        for record in lost {
            tracing::warn!(plugin = %record.name, "Redis has lost what the cluster runs of a plugin, which is put back");
            let components = self.put_components(registry, &record)?;
            let lost = Registered { name: record.name.clone(), revision: record.revision, record: text_of(&record)? };
            registry.put_back(record.registry.as_deref().unwrap_or_default(), &lost, &components)?;
        }
        Ok(())
    }
}

/// How a node differs from the build that this one runs.
fn behind(node: &str, reply: Option<&Reply>, id: &GenerationId) -> Option<NodeBehind> {
    let node = node.to_owned();
    let Some(reply) = reply else {
        return Some(NodeBehind { node, generation: None, message: Some("it does not answer".to_owned()) });
    };
    let Some(build) = reply.builds.iter().find(|build| build.plugin == id.name) else {
        return Some(NodeBehind { node, generation: None, message: None });
    };
    let is_same = build.digest == id.digest && build.failure.is_none();
    (!is_same).then(|| NodeBehind { node, generation: Some(build.generation), message: build.failure.clone() })
}

/// A record as the cluster has it: what concerns one host alone is left out.
fn text_of(record: &Record) -> anyhow::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&Record { folder: None, revision: 0, registry: None, ..record.clone() })?)
}
