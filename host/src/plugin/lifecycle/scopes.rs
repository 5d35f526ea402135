//! A look at one scope and at its past: the outcomes of its events, and what another build would have done.

use std::sync::Arc;

use roundhouse_contract::case::{CaseEnd, json_or_text, redact_fields};
use roundhouse_contract::{ScopeAddress, differences};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::install::{Lifecycle, Load};
use super::replay::{Replayer, Written};
use crate::model::{ErrorCode, Failure, GenerationId};
use crate::plugin::load::call::Call;
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::load::loader::LoadError;
use crate::plugin::load::migrate::State;
use crate::plugin::run::job::Job;
use crate::plugin::run::scope_view::{InMemory, ScopeView};

/// A scope as the API shows it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Scope")]
pub struct ScopeReport {
    /// Its key, which is the name of its room.
    pub scope: String,
    /// The build that handles it.
    pub build: GenerationId,
    /// Whether it is in memory now. A durable scope may be in the database alone.
    pub in_memory: bool,
    /// Whether it outlives the host.
    pub durable: bool,
    /// The version of the state's schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<u32>,
    /// Its state, now or at the time that was asked for: JSON where it is some, else text.
    pub state: Value,
    /// The events that it has handled.
    pub sequence: u64,
    /// Its timers.
    pub timers: Vec<TimerReport>,
    /// Its members.
    pub members: Vec<MemberReport>,
    /// Events that wait for its feature.
    pub waiting: usize,
    /// The events that are remembered, from the time that was asked for on, the oldest first.
    pub events: Vec<PastEvent>,
}

/// A timer that is set.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Timer")]
pub struct TimerReport {
    /// Its name.
    pub name: String,
    /// When it is due, in milliseconds since 1970.
    pub due_ms: u64,
    /// What it carries.
    pub payload: Value,
}

/// A member of a scope.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ScopeMember")]
pub struct MemberReport {
    /// The connection.
    pub connection: String,
    /// Its user, if it is known.
    pub user: Option<String>,
    /// Whether it is in the scope's room. Others are watched.
    pub in_room: bool,
}

/// An event that a scope has handled.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PastEvent {
    /// The call as a case file, with its outcome.
    pub case: Value,
    /// Whether the host has committed that. It has not where the feature or the host refused the event, or the feature failed.
    #[serde(rename = "committed")]
    pub is_committed: bool,
    /// What the other build would have made of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<Value>,
    /// How that differs, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
}

impl Lifecycle {
    /// A scope, now or at a time in milliseconds since 1970, and its events since.
    ///
    /// # Errors
    /// If there is no such scope here, or its past is not remembered so far back.
    pub async fn scope(self: &Arc<Self>, key: &str, at_ms: Option<u64>) -> Result<ScopeReport, Failure> {
        let key = key.to_owned();
        let looked = self.request(move |lifecycle| {
            let (plugin, address) = lifecycle.owner(&key)?;
            let view = lifecycle.view(&plugin, &address, at_ms)?;
            let mut report = lifecycle.scope_report(&plugin, &address, &view, at_ms);
            let mut replayer = Replayer::default();
            let event = |call: &Arc<Call>| {
                let end = lifecycle.end_of(&plugin, call, &mut replayer);
                lifecycle.past_event(&plugin, call, end)
            };
            report.events = view.calls.iter().map(event).collect();
            Ok(report)
        });
        looked.await.unwrap_or_else(|why| Err(Failure::new(ErrorCode::FeatureUnavailable, why)))
    }

    /// What another build would have made of a scope's events since a time: each gets the state that the build made of the
    /// events before. The state in the report is the one at the end.
    ///
    /// # Errors
    /// If there is no such scope here, or its past is not remembered so far back. The inner error is the step that refuses the
    /// component.
    pub async fn replay_scope(
        self: &Arc<Self>,
        key: &str,
        at_ms: Option<u64>,
        load: Load,
    ) -> Result<Result<ScopeReport, LoadError>, Failure> {
        let key = key.to_owned();
        let replayed = self.request(move |lifecycle| {
            let (plugin, address) = lifecycle.owner(&key)?;
            let view = lifecycle.view(&plugin, &address, at_ms)?;
            let load = Load { name: Some(plugin.name.clone()), ..load };
            Ok(lifecycle.try_instead(&plugin, &address, &view, at_ms, &load))
        });
        replayed.await.unwrap_or_else(|why| Err(Failure::new(ErrorCode::FeatureUnavailable, why)))
    }

    fn try_instead(
        &self,
        plugin: &Arc<Plugin>,
        address: &ScopeAddress,
        view: &ScopeView,
        at_ms: Option<u64>,
        load: &Load,
    ) -> Result<ScopeReport, LoadError> {
        let described = self.described(load)?;
        let candidate = self.prepare(load, &described)?;
        let mut report = self.scope_report(plugin, address, view, at_ms);
        let (mut then, mut now) = (Replayer::default(), Replayer::default());
        let mut state = view.calls.first().and_then(|call| call.state.clone());
        for call in &view.calls {
            if call.facts.sequence == 1 {
                // The scope is new, or was evicted and begins anew.
                state.clone_from(&call.state);
            }
            let before = self.end_of(plugin, call, &mut then);
            let (end, written) = now.call_from(self.loader.ticker(), &candidate, call, state.as_ref());
            let mut instead = serde_json::to_value(&end).unwrap_or_default();
            redact_fields(&mut instead, &self.shared.config.case_options(&plugin.name).redact);
            report.events.push(PastEvent {
                differences: differences(&before, &end),
                instead: Some(instead),
                ..self.past_event(plugin, call, before)
            });
            if !call.is_committed() {
                continue;
            }
            let version = candidate.manifest.state_version;
            match written {
                Written::Nothing => {}
                Written::State(bytes) => state = Some(State { version, bytes: bytes.into() }),
                Written::Cleared => state = None,
            }
        }
        report.build = GenerationId::clone(&candidate.id);
        (report.schema, report.state) = self.state_of_report(plugin, state.as_ref());
        Ok(report)
    }

    fn owner(&self, key: &str) -> Result<(Arc<Plugin>, ScopeAddress), Failure> {
        let catalogue = self.shared.catalogue.load();
        let owner = catalogue.owner(key).map(|(plugin, address)| (plugin.clone(), address));
        owner.ok_or_else(|| {
            Failure::new(ErrorCode::NotFound, format!("no running plugin has a scope of the form of {key}"))
        })
    }

    /// A scope, and its calls since a time.
    fn view(&self, plugin: &Plugin, address: &ScopeAddress, at_ms: Option<u64>) -> Result<ScopeView, Failure> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let key = address.key.clone();
        self.shared.inboxes.of(&key).push(Job::View { plugin: plugin.number, key: key.clone(), reply });
        let mut view = answer
            .blocking_recv()
            .map_err(|_| Failure::new(ErrorCode::FeatureUnavailable, "the host is shutting down"))?;
        if view.is_elsewhere {
            let owner = self.shared.node.as_ref().and_then(|node| node.owner_of(&key));
            let message = match owner {
                Some(name) => format!("the node {name} of the cluster has the scope {key}: ask that one"),
                None => format!("another node of the cluster has the scope {key}: ask the others"),
            };
            return Err(Failure::new(ErrorCode::NotFound, message));
        }
        if view.scope.is_none() && view.calls.is_empty() {
            let message = format!("there is no scope {key} in memory, and none of its events is remembered");
            return Err(Failure::new(ErrorCode::NotFound, message));
        }
        if let Some(at_ms) = at_ms {
            self.check_past(&view, &key)?;
            // The sequence of its first event is 1: before that it was not there.
            let first = view.calls.first().filter(|first| first.facts.sequence > 1);
            if let Some(first) = first.filter(|first| first.facts.now > at_ms) {
                let ago = self.shared.clock.now_ms().saturating_sub(first.facts.now) / 1000;
                let message =
                    format!("the past of {key} is remembered for the last {ago} seconds: ask for a time since");
                return Err(Failure::new(ErrorCode::NotFound, message));
            }
            view.calls.retain(|call| call.facts.now >= at_ms);
        }
        Ok(view)
    }

    /// Checks that no event of a scope is missing among those that are remembered.
    ///
    /// # Errors
    /// If one is: it was larger than what is remembered of a scope, or nothing is remembered.
    fn check_past(&self, view: &ScopeView, key: &str) -> Result<(), Failure> {
        let handled = view.scope.as_ref().map_or(0, |scope| scope.sequence);
        let last = view.calls.last().map_or(0, |last| last.facts.sequence);
        let has_hole = view.calls.windows(2).any(|two| two[1].facts.sequence > two[0].facts.sequence + 1);
        if handled <= last && !has_hole {
            return Ok(());
        }
        let message = format!(
            "the past of {key} is not remembered as a whole: plugins.recent_bytes is 0, or too small for its events and states"
        );
        Err(Failure::new(ErrorCode::NotFound, message))
    }

    /// A scope without its events.
    fn scope_report(
        &self,
        plugin: &Arc<Plugin>,
        address: &ScopeAddress,
        view: &ScopeView,
        at_ms: Option<u64>,
    ) -> ScopeReport {
        let candidate = plugin.rollout().filter(|rollout| rollout.handles(&address.key));
        let in_memory = view.scope.as_ref();
        let then = view.calls.first().filter(|_| at_ms.is_some());
        let state = match then {
            Some(first) => first.state.as_ref(),
            None => in_memory.and_then(|scope| scope.state.as_ref()),
        };
        let stays = || {
            let current = plugin.current();
            let stays = plugin.staying().contains(&address.key, current.id.generation);
            stays.then(|| plugin.stays_on(&current, state?.version)).flatten()
        };
        let build = stays().or_else(|| candidate.map(|rollout| rollout.candidate.clone()));
        let build = build.unwrap_or_else(|| plugin.current());
        let (schema, state) = self.state_of_report(plugin, state);
        let json = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        let timer = |(name, due_ms, payload): &(Box<str>, u64, Box<str>)| TimerReport {
            name: name.to_string(),
            due_ms: *due_ms,
            payload: self.redacted(plugin, json(payload)),
        };
        let timers = |scope: &InMemory| scope.timers.iter().map(timer).collect();
        let members = |scope: &InMemory| {
            let member = scope.members.iter().map(|(connection, identity, in_room)| MemberReport {
                connection: connection.to_string(),
                user: identity.as_ref().map(|identity| identity.user.to_string()),
                in_room: *in_room,
            });
            member.collect()
        };
        ScopeReport {
            scope: address.key.to_string(),
            in_memory: in_memory.is_some(),
            durable: build.manifest.scope_of_key(&address.key).is_some_and(|(kind, _)| kind.is_durable),
            build: GenerationId::clone(&build.id),
            schema,
            state,
            sequence: then.map_or_else(
                || in_memory.map_or(0, |scope| scope.sequence),
                |first| first.facts.sequence.saturating_sub(1),
            ),
            timers: in_memory.map(timers).unwrap_or_default(),
            members: in_memory.map(members).unwrap_or_default(),
            waiting: in_memory.map_or(0, |scope| scope.n_waiting),
            events: Vec::new(),
        }
    }

    fn state_of_report(&self, plugin: &Plugin, state: Option<&State>) -> (Option<u32>, Value) {
        let value = state.map_or(Value::Null, |state| self.redacted(plugin, json_or_text(&state.bytes)));
        (state.map(|state| state.version), value)
    }

    /// A value without what case files leave out.
    fn redacted(&self, plugin: &Plugin, mut value: Value) -> Value {
        redact_fields(&mut value, &self.shared.config.case_options(&plugin.name).redact);
        value
    }

    /// What the build that handled a call made of it.
    fn end_of(&self, plugin: &Plugin, call: &Call, replayer: &mut Replayer) -> CaseEnd {
        let Some(build) = plugin.generation(call.id.generation) else {
            return CaseEnd::Failed(format!(
                "generation {}, which handled it, is not loaded any more",
                call.id.generation
            ));
        };
        let schema = call.state.as_ref().map_or(0, |state| state.version);
        let newer = plugin.newer(schema, build.manifest.state_version);
        replayer.call_again(self.loader.ticker(), (&build, &newer), call)
    }

    /// A call as a case file with its outcome.
    fn past_event(&self, plugin: &Plugin, call: &Call, end: CaseEnd) -> PastEvent {
        let options = self.shared.config.case_options(&plugin.name);
        let mut case = serde_json::to_value(call.case(end, &options)).unwrap_or_default();
        // The outcome repeats what was left out.
        redact_fields(&mut case["end"], &options.redact);
        PastEvent { case, is_committed: call.is_committed(), instead: None, differences: Vec::new() }
    }
}
