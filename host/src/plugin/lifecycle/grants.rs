//! The report on a plugin's grants: asked, given, used.

use std::sync::Arc;

use roundhouse_contract::Grants;
use schemars::JsonSchema;
use serde::Serialize;

use super::install::Lifecycle;
use super::report::PluginState;
use super::suggestion::{Findings, grants_to_start, unused};
use crate::model::{ErrorCode, Failure, GenerationId};
use crate::plugin::load::bundled::bundled;
use crate::plugin::load::catalogue::{FailedStart, Plugin};
use crate::plugin::load::loader::digest;

/// The grants of a plugin as the API shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PluginGrants")]
pub struct GrantReport {
    /// Name, version, generation and digest of the build.
    #[serde(flatten)]
    pub id: GenerationId,
    /// Whether it gets events.
    pub state: PluginState,
    /// What the build's manifest asks for. It can do no more, whatever is given.
    pub asked: GrantList,
    /// What is given: a build that asks for more does not run.
    pub given: GrantList,
    /// Whether the configuration says what is given. Otherwise it is the default: for a bundled feature what the bundled
    /// build asks for, for another one nothing.
    pub configured: bool,
    /// What is asked for and not given, so that the build could not be started.
    #[serde(skip_serializing_if = "GrantList::is_empty")]
    pub missing: GrantList,
    /// What is asked for and was needed for the effects of the counted events.
    pub used: GrantList,
    /// What is asked for or given, and was not needed.
    pub unused: GrantList,
    /// The last use of each used grant.
    pub last_uses: Vec<LastUse>,
    /// The events of this build whose effects were counted: all that were committed since it was loaded, or so many of the
    /// last as the call says.
    pub events: u64,
    /// When the build was loaded, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Lines for the configuration: the least grants for what was used, with comments. Of a build that is missing grants
    /// those with which it starts.
    pub suggestion: String,
}

/// Grants by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Grants")]
pub struct GrantList {
    /// Rooms: names, or prefixes followed by `*`.
    pub rooms: Vec<String>,
    /// Wider audiences: `user`, `roles`, `all`.
    pub audiences: Vec<String>,
    /// Actions: `save`, `disconnect`, `connect`, `join`.
    pub actions: Vec<String>,
}

/// The last use of a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastUse {
    /// `room`, `audience` or `action`.
    pub kind: &'static str,
    /// The room, audience or action, as the manifest names it.
    pub name: String,
    /// How many events were committed since; up to 64 fewer in truth, because not each use is noted.
    pub events_ago: u64,
    /// When the noted use was, in milliseconds since 1970.
    pub at_ms: u64,
}

impl From<&Grants> for GrantList {
    fn from(grants: &Grants) -> Self {
        let Grants { rooms, audiences, actions } = grants.clone();
        Self { rooms, audiences, actions }
    }
}

impl GrantList {
    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.audiences.is_empty() && self.actions.is_empty()
    }
}

impl Lifecycle {
    /// The grants of a plugin, and which of them the last `last` events of the running build made use of.
    ///
    /// # Errors
    /// If there is no such plugin, or it could not be started and its component cannot be read.
    pub async fn grants(self: &Arc<Self>, name: &str, last: u64) -> Result<GrantReport, Failure> {
        let failed = self.shared.catalogue.load().idle.get(name).and_then(|idle| idle.failed.clone());
        let Some(failed) = failed else {
            let plugin = self.shared.plugin(name).ok_or_else(|| self.shared.no_plugin(name))?;
            return Ok(self.grants_of(&plugin, last));
        };
        let name = name.to_owned();
        // The component may have to be compiled.
        let report = self.request(move |lifecycle| lifecycle.grants_of_failed(&name, &failed));
        report.await.unwrap_or_else(|why| Err(Failure::new(ErrorCode::FeatureUnavailable, why)))
    }

    fn grants_of(&self, plugin: &Plugin, last: u64) -> GrantReport {
        let generation = plugin.current();
        let (asked, given) = (&generation.manifest.needs, &generation.given);
        let record = &generation.grant_use;
        let used = asked.filtered(|place, _| record.last(place, last).is_some());
        let last_uses = asked.iter().enumerate().filter_map(|(place, grant)| {
            let used = record.last(place, last)?;
            let (kind, name) = (grant.kind.as_str(), grant.name.to_owned());
            Some(LastUse { kind, name, events_ago: used.events_ago, at_ms: used.at_ms })
        });
        let (all_events, since_ms) = (record.events(), record.since_ms());
        let events = all_events.min(last);
        let before = plugin.before();
        let before = before.as_ref().map(|before| (&*before.id, &before.manifest.needs));
        let id = &generation.id;
        let findings = Findings { id, asked, given: &given.grants, used: &used, events, all_events, since_ms, before };
        GrantReport {
            id: GenerationId::clone(id),
            state: self.state_of(plugin),
            asked: asked.into(),
            given: (&given.grants).into(),
            configured: given.is_configured,
            missing: GrantList::default(),
            used: (&used).into(),
            unused: (&unused(asked, &given.grants, &used)).into(),
            last_uses: last_uses.collect(),
            events,
            since_ms: Some(since_ms),
            suggestion: findings.suggestion(),
        }
    }

    /// The grants of a plugin that could not be started, perhaps because it asks for more.
    fn grants_of_failed(&self, name: &str, failed: &FailedStart) -> Result<GrantReport, Failure> {
        let FailedStart { installed, error } = failed;
        let unreadable = |why: &dyn std::fmt::Display| {
            let message = format!("{name}: {}; what it asks for is not known: {why}", error.message);
            Failure::new(ErrorCode::FeatureUnavailable, message)
        };
        let own = bundled().iter().find(|own| own.name == name && digest(own.component) == installed.digest);
        let component = match own {
            Some(own) => own.component.to_vec(),
            None => self.store.read(&installed.digest).map_err(|error| unreadable(&error))?,
        };
        let asked_and_given = self.loader.asked_and_given(&component, installed.source);
        let (manifest, given) = asked_and_given.map_err(|error| unreadable(&error))?;
        let missing = manifest.needs.missing_from(&given.grants);
        let id = installed.generation_id(name);
        let suggestion = match missing.is_empty() {
            // The reason may be several lines of the component's own words, which must not look like configuration.
            true => format!("# {name} does not run, for another reason than its grants: see its report.\n"),
            false => grants_to_start(&id, &given.grants, &missing),
        };
        Ok(GrantReport {
            id,
            state: PluginState::Failed,
            asked: (&manifest.needs).into(),
            given: (&given.grants).into(),
            configured: given.is_configured,
            missing: (&missing).into(),
            used: GrantList::default(),
            unused: GrantList::default(),
            last_uses: Vec::new(),
            events: 0,
            since_ms: None,
            suggestion,
        })
    }
}
