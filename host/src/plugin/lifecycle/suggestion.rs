//! The least grants of a plugin, as lines of the configuration with comments.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use roundhouse_contract::{Grant, Grants};

use crate::model::GenerationId;
use crate::plugin::load::grants::toml_line;

/// The number of events below which a suggestion warns: a feature may do some things once in hundreds of events.
const FEW_EVENTS: u64 = 1000;

/// What is known of a running build's grants.
#[derive(Debug)]
pub(super) struct Findings<'a> {
    pub(super) id: &'a GenerationId,
    /// What its manifest asks for, all of which is given.
    pub(super) asked: &'a Grants,
    pub(super) given: &'a Grants,
    /// What it asks for and made use of.
    pub(super) used: &'a Grants,
    /// The events that the uses were sought in, and all events since the build was loaded.
    pub(super) events: u64,
    pub(super) all_events: u64,
    pub(super) since_ms: u64,
    /// The build that a rollback goes back to, and what it asks for.
    pub(super) before: Option<(&'a GenerationId, &'a Grants)>,
}

impl Findings<'_> {
    /// The least grants for what was used, with what they leave out.
    pub(super) fn suggestion(&self) -> String {
        let build = name_of(self.id);
        let since = date(self.since_ms);
        if self.events == 0 && self.used.is_empty() {
            return format!("# {build} has handled no event since {since}: there is nothing to suggest yet.\n");
        }
        let of_all = match self.events < self.all_events {
            true => format!("the last {} of {} events", self.events, self.all_events),
            false => format!("{} events", self.events),
        };
        let mut text = format!("# The least grants for what {build} did since {since}: {of_all}.\n");
        if self.events < FEW_EVENTS {
            text += "# WARNING: these are few events, and what it does rarely is missing. Ask again after more.\n";
        }
        let idle = self.asked.filtered(|_, asked| !self.used.cover(asked));
        if !idle.is_empty() {
            text += "# WARNING: this build asks for more than it used, and does not start with these: see below.\n";
        }
        let table = &self.id.name;
        let _ = writeln!(text, "[plugins.{table}]\n{}", toml_line(self.used));
        self.add_unused(&mut text);
        if !idle.is_empty() {
            let line = toml_line(self.asked);
            let _ = writeln!(text, "# Until a build asks for less, the least that this one starts with:\n# {line}");
        }
        if let Some((before, asked)) = self.before {
            let missing = asked.missing_from(self.used);
            if !missing.is_empty() {
                let before = name_of(before);
                let _ = writeln!(text, "# Without more, no rollback after a restart: {before} asks for {missing}.");
            }
        }
        text
    }

    fn add_unused(&self, text: &mut String) {
        let unused = unused(self.asked, self.given, self.used);
        if unused.is_empty() {
            return;
        }
        *text += "# Given, and not used in these events:\n";
        for grant in unused.iter() {
            let why = match (has(self.asked, grant), self.used.iter().any(|used| grant.covers(used))) {
                (true, _) => "",
                (false, true) => ", wider than what was used",
                (false, false) => ", which this build does not ask for",
            };
            let _ = writeln!(text, "#   {grant}{why}");
        }
    }
}

/// What is asked for or given, and not among what was used.
pub(super) fn unused(asked: &Grants, given: &Grants, used: &Grants) -> Grants {
    given.with(asked).filtered(|_, grant| !has(used, grant))
}

/// The grants with which a build starts that asks for more than it is given.
pub(super) fn grants_to_start(id: &GenerationId, given: &Grants, missing: &Grants) -> String {
    let (build, table, line) = (name_of(id), &id.name, toml_line(&given.with(missing)));
    format!("# {build} does not run, for it asks for what is not given: {missing}.\n[plugins.{table}]\n{line}\n")
}

fn has(grants: &Grants, grant: Grant<'_>) -> bool {
    grants.iter().any(|other| other == grant)
}

fn name_of(id: &GenerationId) -> String {
    format!("{} {} (generation {})", id.name, id.version, id.generation)
}

/// A time as a date in UTC.
fn date(ms: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(rooms: &[&str], audiences: &[&str], actions: &[&str]) -> Grants {
        let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Grants { rooms: strings(rooms), audiences: strings(audiences), actions: strings(actions) }
    }

    fn id(generation: u64) -> GenerationId {
        GenerationId { name: "desk".to_owned(), version: "1.2.0".to_owned(), generation, digest: String::new() }
    }

    fn suggestion(asked: &Grants, given: &Grants, used: &Grants, (events, all_events): (u64, u64)) -> String {
        let since_ms = 1_800_000_000_000;
        let before = grants(&["hall"], &[], &["disconnect"]);
        let before = Some((&id(2), &before));
        Findings { id: &id(3), asked, given, used, events, all_events, since_ms, before }.suggestion()
    }

    #[test]
    fn unused_needs_and_excess_are_comments() {
        let asked = grants(&["hall", "desk:*"], &["all"], &["save"]);
        let given = grants(&["*", "lobby"], &["all", "roles"], &["save"]);
        let used = grants(&["desk:*"], &[], &["save"]);
        let expected = "\
# The least grants for what desk 1.2.0 (generation 3) did since 2027-01-15T08:00:00Z: the last 900 of 5000 events.
# WARNING: these are few events, and what it does rarely is missing. Ask again after more.
# WARNING: this build asks for more than it used, and does not start with these: see below.
[plugins.desk]
grants = { rooms = [\"desk:*\"], actions = [\"save\"] }
# Given, and not used in these events:
#   the room *, wider than what was used
#   the room lobby, which this build does not ask for
#   the room hall
#   the audience all
#   the audience roles, which this build does not ask for
# Until a build asks for less, the least that this one starts with:
# grants = { rooms = [\"hall\", \"desk:*\"], audiences = [\"all\"], actions = [\"save\"] }
# Without more, no rollback after a restart: desk 1.2.0 (generation 2) asks for the room hall, the action disconnect.
";
        assert_eq!(suggestion(&asked, &given, &used, (900, 5000)), expected);
    }

    #[test]
    fn grants_all_in_use_have_no_warning() {
        let all = grants(&["hall"], &[], &["disconnect"]);
        let expected = "\
# The least grants for what desk 1.2.0 (generation 3) did since 2027-01-15T08:00:00Z: 1000 events.
[plugins.desk]
grants = { rooms = [\"hall\"], actions = [\"disconnect\"] }
";
        assert_eq!(suggestion(&all, &all, &all, (1000, 1000)), expected);
    }

    #[test]
    fn without_events_nothing_is_suggested() {
        let all = grants(&["hall"], &[], &[]);
        let text = suggestion(&all, &all, &Grants::default(), (0, 0));
        assert!(text.lines().all(|line| line.starts_with('#')) && text.contains("nothing to suggest"), "{text}");
    }
}
