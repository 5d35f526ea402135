//! The rules of the room policy.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, anyhow, ensure};
use prometheus::IntCounterVec;
use serde_json::{Map, Value};

use super::action::Action;
use super::authorize::{AuthorizeConfig, Authorizer, Then};
use super::expression::{Expression, identity_value, text_value};
use super::pattern::{Pattern, VARIABLES};
use crate::model::{Clock, ErrorCode, Failure, Identity, LogLimit};
use crate::outbound::Outbound;

/// The most rules.
const MAX_RULES: usize = 1000;

/// A rule as it is configured.
#[derive(Debug, Clone, Default)]
pub struct RoomRule {
    /// The rooms that it decides.
    pub pattern: String,
    /// The condition for every action without one of its own.
    pub allow: Option<String>,
    /// The condition to join.
    pub join: Option<String>,
    /// The condition to publish.
    pub publish: Option<String>,
    /// The condition to subscribe.
    pub subscribe: Option<String>,
    /// The backend that decides where the conditions allow it.
    pub authorize: Option<AuthorizeConfig>,
}

#[derive(Debug, Clone)]
struct Rule {
    text: String,
    pattern: Pattern,
    /// In the order of [`Action::ALL`]. An action without a condition is refused to all users, unless the rule has no
    /// conditions at all and leaves all to its backend.
    conditions: [Option<Expression>; 3],
    backend: Option<Authorizer>,
}

/// The rules, the first of which that matches a room decides. A room that none matches is closed to everyone.
#[derive(Clone)]
pub struct RoomPolicy {
    rules: Arc<[Rule]>,
    decisions: IntCounterVec,
    failures: Arc<Mutex<LogLimit>>,
}

impl fmt::Debug for RoomPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomPolicy").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// The verdict on an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is allowed.
    Allowed,
    /// It is allowed, and the backend was asked.
    Authorized,
    /// The backend has to be asked first: see [`RoomPolicy::ask`].
    Pending,
    /// It is refused.
    Refused(Failure),
    /// The backend gives no verdict now.
    Unknown(Failure),
}

/// A decision, and the reason for it.
#[derive(Debug, Clone)]
pub struct Decision<'a> {
    /// Whether the action is allowed, by the conditions alone.
    pub is_allowed: bool,
    /// The number of the rule that decided, from 1, and its pattern. `None` where no rule matches the room.
    pub rule: Option<(usize, &'a str)>,
    /// The condition that decided, if the rule has one for the action.
    pub condition: Option<&'a str>,
    /// Why the condition could not be evaluated.
    pub error: Option<String>,
    backend: Option<&'a Authorizer>,
}

impl RoomPolicy {
    /// Compiles the rules. `decisions` counts decisions by action and verdict. Rules of one backend share its bounds.
    ///
    /// # Errors
    /// With the number of the rule, its key, and the mistake.
    pub fn compile(
        rules: &[RoomRule],
        decisions: IntCounterVec,
        outbound: Option<(&Outbound, &Clock)>,
    ) -> anyhow::Result<Self> {
        ensure!(rules.len() <= MAX_RULES, "rooms has {} rules, and may have {MAX_RULES}", rules.len());
        let backends: HashMap<_, _> = match outbound {
            Some((outbound, clock)) => {
                let configs = rules.iter().filter_map(|rule| rule.authorize.as_ref());
                configs.map(|config| (config.clone(), Authorizer::new(config, outbound, clock.clone()))).collect()
            }
            None => HashMap::new(),
        };
        let compiled = rules
            .iter()
            .enumerate()
            .map(|(at, rule)| Rule::compile(rule, &backends).with_context(|| format!("rooms[{at}]")));
        let rules = compiled.collect::<anyhow::Result<Vec<_>>>()?.into();
        Ok(Self { rules, decisions, failures: Arc::default() })
    }

    /// Decides whether a user may do something in a room. `event` is the name of the client's event, empty where there is
    /// none.
    pub fn decide(&self, identity: &Identity, room: &str, action: Action, event: &str) -> Decision<'_> {
        let Some((at, rule, values)) = self.rule_of(room) else {
            return Decision { is_allowed: false, rule: None, condition: None, error: None, backend: None };
        };
        let decided = |is_allowed, condition, error| Decision {
            is_allowed,
            rule: Some((at + 1, &rule.text)),
            condition,
            error,
            backend: rule.backend.as_ref(),
        };
        let Some(condition) = &rule.conditions[action as usize] else {
            return decided(rule.conditions.iter().all(Option::is_none), None, None);
        };
        let names = rule.pattern.placeholders();
        let mut variables =
            vec![("identity", identity_value(identity)), ("room", text_value(room)), ("event", text_value(event))];
        variables.extend(names.into_iter().zip(values.iter().map(|value| text_value(value))));
        match condition.evaluate(&variables) {
            Ok(is_allowed) => decided(is_allowed, Some(condition.as_str()), None),
            Err(error) => decided(false, Some(condition.as_str()), Some(error)),
        }
    }

    /// Whether a user may do something in a room. A condition that cannot be evaluated is logged, and a refusal names the
    /// room and the rule's pattern.
    pub fn check(&self, identity: &Identity, room: &str, action: Action, event: &str) -> Verdict {
        self.check_begun(identity, room, action, event, false)
    }

    /// As [`RoomPolicy::check`]; with `is_begun` for the effects of an event, for which a verdict of the backend counts some
    /// seconds longer.
    pub fn check_begun(&self, identity: &Identity, room: &str, action: Action, event: &str, is_begun: bool) -> Verdict {
        let decision = self.decide(identity, room, action, event);
        let verdict = match decision.backend.as_ref().filter(|_| decision.is_allowed) {
            None if decision.is_allowed => Verdict::Allowed,
            None => Verdict::Refused(self.refusal(identity, room, action, &decision)),
            Some(backend) => match backend.verdict(identity, room, action, is_begun) {
                None => return Verdict::Pending,
                Some(Ok(true)) => Verdict::Authorized,
                Some(Ok(false)) => Verdict::Refused(self.refusal(identity, room, action, &decision)),
                Some(Err(why)) => {
                    let message =
                        format!("it cannot be said now whether you may {} the room {room}: {why}", action.verb());
                    Verdict::Unknown(Failure::new(ErrorCode::FeatureUnavailable, message))
                }
            },
        };
        let counted = match verdict {
            Verdict::Allowed | Verdict::Authorized => "allowed",
            _ => "refused",
        };
        self.decisions.with_label_values(&[action.as_str(), counted]).inc();
        verdict
    }

    /// Asks the backend of a room about a user, unless its verdict is known, and then calls `then`; in the order of the
    /// calls. `then` must be quick, and must not ask for another verdict. Returns `false`, and drops `then`, where too many
    /// wait for the backend.
    #[must_use]
    pub fn ask(&self, identity: &Arc<Identity>, room: &str, then: Then) -> bool {
        match self.backend_of(room) {
            Some((backend, values)) => backend.ask(identity, room, values, then),
            None => {
                then();
                true
            }
        }
    }

    /// Calls `then` when the backend of a room, which gave no verdict, may be asked again.
    pub fn ask_later(&self, room: &str, then: Then) {
        match self.backend_of(room) {
            Some((backend, _)) => backend.later(then),
            None => then(),
        }
    }

    /// Asks the backend of a room now. `None` where the room has none.
    ///
    /// # Errors
    /// Why there is no verdict.
    pub async fn ask_now(&self, identity: &Identity, room: &str) -> Option<Result<[bool; 3], String>> {
        let (backend, values) = self.backend_of(room)?;
        Some(backend.answer(identity, room, values).await)
    }

    /// The backend of the rule that decides a room, and the values of the rule's placeholders.
    fn backend_of(&self, room: &str) -> Option<(&Authorizer, Map<String, Value>)> {
        let (_, rule, values) = self.rule_of(room)?;
        let names = rule.pattern.placeholders().into_iter().map(str::to_owned);
        Some((rule.backend.as_ref()?, names.zip(values.into_iter().map(Value::from)).collect()))
    }

    fn rule_of(&self, room: &str) -> Option<(usize, &Rule, Vec<String>)> {
        self.rules.iter().enumerate().find_map(|(at, rule)| Some((at, rule, rule.pattern.matches(room)?)))
    }

    fn refusal(&self, identity: &Identity, room: &str, action: Action, decision: &Decision<'_>) -> Failure {
        let why = match &decision.rule {
            Some((_, pattern)) => format!("by the rule {pattern}"),
            None => "because no rule is for it".to_owned(),
        };
        if let (Some(error), Some((rule, pattern))) = (&decision.error, &decision.rule)
            && let Some(skipped) = self.failures.lock().unwrap_or_else(PoisonError::into_inner).ask()
        {
            tracing::warn!(
                rule, pattern, user = %identity.user, room, %action, error, skipped,
                "the condition of a room's rule cannot be evaluated, which counts as no"
            );
        }
        Failure::new(ErrorCode::Forbidden, format!("you may not {} the room {room}, {why}", action.verb()))
    }
}

impl Rule {
    fn compile(rule: &RoomRule, backends: &HashMap<AuthorizeConfig, Authorizer>) -> anyhow::Result<Self> {
        let pattern = Pattern::parse(&rule.pattern).map_err(|wrong| anyhow!("pattern: {wrong}"))?;
        let names = pattern.placeholders();
        let variables: Vec<&str> = VARIABLES.into_iter().chain(names).collect();
        let compile = |key: &str, text: &Option<String>| {
            text.as_deref()
                .map(|text| Expression::compile(text, &variables).with_context(|| key.to_owned()))
                .transpose()
        };
        let allow = compile("allow", &rule.allow)?;
        let conditions = [
            compile("join", &rule.join)?.or_else(|| allow.clone()),
            compile("publish", &rule.publish)?.or_else(|| allow.clone()),
            compile("subscribe", &rule.subscribe)?.or_else(|| allow.clone()),
        ];
        ensure!(
            conditions.iter().any(Option::is_some) || rule.authorize.is_some(),
            "the rule has no condition: give it allow, or some of join, publish and subscribe, or authorize; \
             allow = \"false\" closes a room"
        );
        let backend = rule.authorize.as_ref().map(|config| {
            backends.get(config).cloned().ok_or_else(|| anyhow!("authorize: there is no thread of calls"))
        });
        Ok(Self { text: rule.pattern.clone(), pattern, conditions, backend: backend.transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    fn policy(rules: &[(&str, &str)]) -> anyhow::Result<RoomPolicy> {
        let rules: Vec<RoomRule> = rules
            .iter()
            .map(|(pattern, allow)| RoomRule {
                pattern: (*pattern).to_owned(),
                allow: Some((*allow).to_owned()),
                ..RoomRule::default()
            })
            .collect();
        RoomPolicy::compile(&rules, counter(), None)
    }

    fn counter() -> IntCounterVec {
        IntCounterVec::new(Opts::new("a", "a"), &["action", "verdict"]).unwrap()
    }

    fn of_company(company: &str) -> Identity {
        Identity { claims: format!(r#"{{"companyId":"{company}"}}"#), ..Identity::of_user("ana") }
    }

    #[test]
    fn first_matching_rule_decides() {
        let policy =
            policy(&[("campaign:{id}", "identity.claims.companyId == id"), ("campaign:*", "true"), ("lobby", "true")])
                .unwrap();
        let join = |company: &str, room: &str| policy.decide(&of_company(company), room, Action::Join, "");
        assert!(join("7", "campaign:7").is_allowed);
        let refused = join("8", "campaign:7");
        assert_eq!((refused.is_allowed, refused.rule.unwrap()), (false, (1, "campaign:{id}")));
        assert!(join("8", "lobby").is_allowed);
        let unmatched = join("8", "ticket:7");
        assert_eq!((unmatched.is_allowed, unmatched.rule), (false, None), "a room without a rule is closed");
    }

    #[test]
    fn actions_have_conditions_of_their_own() {
        let rule = RoomRule {
            pattern: "news".to_owned(),
            allow: Some("true".to_owned()),
            publish: Some("'editor' in identity.roles".to_owned()),
            ..RoomRule::default()
        };
        let only_join = RoomRule { pattern: "hall".to_owned(), join: Some("true".to_owned()), ..RoomRule::default() };
        let policy = RoomPolicy::compile(&[rule, only_join], counter(), None).unwrap();
        let may = |room: &str, action| policy.decide(&Identity::of_user("ana"), room, action, "x").is_allowed;
        assert_eq!(Action::ALL.map(|action| may("news", action)), [true, false, true]);
        assert_eq!(Action::ALL.map(|action| may("hall", action)), [true, false, false]);
    }

    #[test]
    fn failed_evaluation_refuses() {
        let policy = policy(&[("campaign:{id}", "identity.claims.team == id")]).unwrap();
        let decision = policy.decide(&of_company("7"), "campaign:7", Action::Publish, "x");
        assert!(!decision.is_allowed && decision.error.is_some(), "{decision:?}");
        let message = "you may not publish to the room campaign:7, by the rule campaign:{id}";
        let refused = Verdict::Refused(Failure::new(ErrorCode::Forbidden, message));
        assert_eq!(policy.check(&of_company("7"), "campaign:7", Action::Publish, "x"), refused);
    }

    #[test]
    fn mistakes_name_rule_and_key() {
        for (rule, said) in [
            (("a:{", "true"), "rooms[0]: pattern: "),
            (("a:{id}", "ids == 'x'"), "rooms[0]: allow: "),
            (("a:{id}", "identity."), "rooms[0]: allow: "),
        ] {
            let error = format!("{:#}", policy(&[rule]).unwrap_err());
            assert!(error.starts_with(said), "{error}");
        }
        let none = RoomRule { pattern: "a".to_owned(), ..RoomRule::default() };
        let error = format!("{:#}", RoomPolicy::compile(&[none], counter(), None).unwrap_err());
        assert!(error.contains("has no condition"), "{error}");
    }
}
