//! What an API key may do beyond its scopes: which plugins, events and rooms, and how often.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, Quota};
use roundhouse_contract::matches_pattern;

use crate::hub::Audience;
use crate::model::{ErrorCode, Failure};

/// Names, or beginnings of names in front of a `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patterns(Vec<String>);

impl Patterns {
    /// Reads patterns.
    ///
    /// # Errors
    /// With the pattern that is empty, or has a `*` in front of its end. A list without patterns would allow nothing.
    pub fn parse(patterns: Vec<String>) -> Result<Self, String> {
        if patterns.is_empty() {
            return Err("it is empty, and would allow nothing: leave it out, or name what the key may use".to_owned());
        }
        for pattern in &patterns {
            let head = pattern.strip_suffix('*').unwrap_or(pattern);
            if pattern.is_empty() || head.contains('*') || pattern.chars().any(|c| c.is_whitespace() || c.is_control())
            {
                return Err(format!("{pattern:?} must be a name, or the beginning of names and one * at the end"));
            }
        }
        Ok(Self(patterns))
    }

    fn allow(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| matches_pattern(pattern, name))
    }
}

impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// The narrowing of a key. What a list does not name is refused, and so is every call that the list cannot judge.
#[derive(Debug, Clone, Default)]
pub struct Narrowing {
    /// Plugins that may be sent events, queried and managed.
    pub plugins: Option<Patterns>,
    /// Events that may be sent and emitted.
    pub events: Option<Patterns>,
    /// Rooms that may be emitted to, sent events to and read.
    pub rooms: Option<Patterns>,
    /// The rate of calls.
    pub rate: Option<Arc<DefaultDirectRateLimiter>>,
}

/// A limiter of `per_second` calls, and `burst` at once.
pub fn rate(per_second: NonZeroU32, burst: NonZeroU32) -> Arc<DefaultDirectRateLimiter> {
    Arc::new(DefaultDirectRateLimiter::direct(Quota::per_second(per_second).allow_burst(burst)))
}

fn refuse(key: &str, what: &str, kind: &str, patterns: &Patterns) -> Failure {
    Failure::new(ErrorCode::Forbidden, format!("the API key {key} may not use {what}: its {kind} are {patterns}"))
}

impl Narrowing {
    /// Whether the key may do less than its scopes say, apart from its rate.
    pub(super) fn is_narrowed(&self) -> bool {
        self.plugins.is_some() || self.events.is_some() || self.rooms.is_some()
    }

    /// # Errors
    /// `rate_limited` where the key has made more calls than it may.
    pub(super) fn check_rate(&self, key: &str) -> Result<(), Failure> {
        match &self.rate {
            Some(rate) if rate.check().is_err() => Err(Failure::new(
                ErrorCode::RateLimited,
                format!("the API key {key} makes more calls than it may: try again in a second"),
            )),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// `forbidden` where the key may not send this event to this plugin's scope of this room.
    pub(super) fn check_event(&self, key: &str, event: &str, plugin: &str, room: &str) -> Result<(), Failure> {
        check(&self.events, key, event, "events")?;
        check(&self.plugins, key, plugin, "plugins")?;
        check(&self.rooms, key, room, "rooms")
    }

    /// # Errors
    /// `forbidden` where the key may not emit this event to these audiences. With a list of rooms it may not emit to
    /// users, roles, connections or everyone; with a list of plugins it may not emit at all, for no plugin is asked.
    pub(super) fn check_emit(&self, key: &str, event: &str, to: &[Audience]) -> Result<(), Failure> {
        check(&self.events, key, event, "events")?;
        if let Some(plugins) = &self.plugins {
            return Err(refuse(key, "emit, which asks no plugin", "plugins", plugins));
        }
        let Some(rooms) = &self.rooms else { return Ok(()) };
        to.iter().try_for_each(|audience| match audience {
            Audience::Room(room) => check(&self.rooms, key, room, "rooms"),
            _ => Err(refuse(key, "audiences other than rooms", "rooms", rooms)),
        })
    }

    /// # Errors
    /// `forbidden` where the key may not manage or query this plugin. Answers of plugins are about any room.
    pub(super) fn check_plugin(&self, key: &str, plugin: &str) -> Result<(), Failure> {
        if let Some(rooms) = &self.rooms {
            return Err(refuse(key, &format!("the plugin {plugin} as a whole"), "rooms", rooms));
        }
        match (&self.plugins, &self.events) {
            (None, Some(events)) => Err(refuse(key, &format!("the plugin {plugin} as a whole"), "events", events)),
            _ => check(&self.plugins, key, plugin, "plugins"),
        }
    }

    /// # Errors
    /// `forbidden` where the key may not read this room.
    pub(super) fn check_room(&self, key: &str, room: &str) -> Result<(), Failure> {
        if self.rooms.is_some() {
            return check(&self.rooms, key, room, "rooms");
        }
        self.check_everything(key)
    }

    /// # Errors
    /// `forbidden` where the key is narrowed at all, for a call that is about everything.
    pub(super) fn check_everything(&self, key: &str) -> Result<(), Failure> {
        for (patterns, kind) in [(&self.plugins, "plugins"), (&self.events, "events"), (&self.rooms, "rooms")] {
            if let Some(patterns) = patterns {
                return Err(refuse(key, "calls that are about the whole host", kind, patterns));
            }
        }
        Ok(())
    }
}

fn check(patterns: &Option<Patterns>, key: &str, name: &str, kind: &str) -> Result<(), Failure> {
    match patterns {
        Some(patterns) if !patterns.allow(name) => Err(refuse(key, name, kind, patterns)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(of: &[&str]) -> Option<Patterns> {
        Some(Patterns::parse(of.iter().map(|one| (*one).to_owned()).collect()).unwrap())
    }

    #[test]
    fn patterns_are_names_or_beginnings() {
        let patterns = patterns(&["campaign:*", "lobby"]).unwrap();
        assert_eq!(
            ["campaign:1", "campaign:", "lobby", "lobby2", "xcampaign:1"].map(|name| patterns.allow(name)),
            [true, true, true, false, false]
        );
        for wrong in [&[][..], &[""], &["a*b"], &["**"], &["a b"]] {
            let wrong = wrong.iter().map(|one| (*one).to_owned()).collect();
            assert!(Patterns::parse(wrong).is_err());
        }
    }

    #[test]
    fn unjudged_calls_of_narrowed_keys_are_refused() {
        let by_rooms = Narrowing { rooms: patterns(&["campaign:*"]), ..Narrowing::default() };
        assert!(by_rooms.check_event("k", "campaign:message", "campaign-progress", "campaign:1").is_ok());
        assert!(by_rooms.check_event("k", "x", "timeline", "timeline:a:b").is_err());
        assert!(by_rooms.check_emit("k", "x", &[Audience::Room("campaign:1".into())]).is_ok());
        for to in [Audience::Room("lobby".into()), Audience::All, Audience::Users(vec!["ana".into()])] {
            assert!(by_rooms.check_emit("k", "x", &[Audience::Room("campaign:1".into()), to]).is_err());
        }
        assert!(by_rooms.check_plugin("k", "timeline").is_err() && by_rooms.check_everything("k").is_err());
        assert!(by_rooms.check_room("k", "campaign:1").is_ok() && by_rooms.check_room("k", "lobby").is_err());

        let by_plugins = Narrowing { plugins: patterns(&["timeline"]), ..Narrowing::default() };
        assert!(by_plugins.check_plugin("k", "timeline").is_ok() && by_plugins.check_plugin("k", "chat").is_err());
        assert!(by_plugins.check_emit("k", "x", &[Audience::Room("a".into())]).is_err());
        assert!(by_plugins.check_room("k", "a").is_err());

        let by_events = Narrowing { events: patterns(&["campaign:*"]), ..Narrowing::default() };
        assert!(by_events.check_emit("k", "campaign:x", &[Audience::All]).is_ok());
        assert!(by_events.check_emit("k", "chat:x", &[Audience::All]).is_err());
        assert!(by_events.check_plugin("k", "timeline").is_err());
        assert!(Narrowing::default().check_everything("k").is_ok());
    }

    #[test]
    fn calls_over_the_rate_are_refused() {
        let two = NonZeroU32::new(2).unwrap();
        let narrowing = Narrowing { rate: Some(rate(NonZeroU32::MIN, two)), ..Narrowing::default() };
        assert!(narrowing.check_rate("k").is_ok() && narrowing.check_rate("k").is_ok());
        assert_eq!(narrowing.check_rate("k").unwrap_err().code, ErrorCode::RateLimited);
    }
}
