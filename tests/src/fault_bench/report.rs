//! What a run prints.

use std::collections::BTreeMap;
use std::fmt;

use super::fault::Fault;
use super::record::{At, Record};
use super::violation::Violation;

/// The lines of the story that a failure shows.
const STORY_LINES: usize = 300;

/// The figures of a run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The number of commands to pages.
    pub commands: usize,
    /// By fault: for each time, the milliseconds after its end until all invariants held.
    pub faults: BTreeMap<Fault, Vec<At>>,
    /// The milliseconds after deaths until all others knew.
    pub deaths: Vec<At>,
    /// The number of times of rest at which all invariants held.
    pub rests: usize,
    /// The number of times that invariants were checked.
    pub checks: usize,
    /// The number of connections.
    pub connections: usize,
    /// The number of events of the service, and of those that were acknowledged.
    pub posts: (usize, usize),
    /// The number of chat messages, and of those that were acknowledged.
    pub messages: (usize, usize),
    /// By code, the number of refusals.
    pub refusals: BTreeMap<String, usize>,
}

impl Report {
    /// Takes the figures that the record has.
    pub(super) fn take(&mut self, record: &Record) {
        let posts = record.posts.iter().flatten();
        self.posts = (posts.clone().count(), posts.filter(|post| post.is_acknowledged).count());
        let messages = &record.messages;
        self.messages = (messages.len(), messages.iter().filter(|message| message.acknowledged.is_some()).count());
        self.connections = record.sessions.len();
        self.refusals.clone_from(&record.refusals);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} commands on {} connections", self.seed, self.commands, self.connections)?;
        writeln!(f, "service events: {}, acknowledged {}", self.posts.0, self.posts.1)?;
        writeln!(f, "chat messages: {}, acknowledged {}", self.messages.0, self.messages.1)?;
        writeln!(f, "refusals: {:?}", self.refusals)?;
        for (fault, times) in &self.faults {
            writeln!(f, "{fault:?}: {} times; all held after {times:?} ms", times.len())?;
        }
        if !self.deaths.is_empty() {
            writeln!(f, "the dead were gone for all others after {:?} ms", self.deaths)?;
        }
        write!(f, "{} rests, {} checks", self.rests, self.checks)
    }
}

/// The end of a run that violated an invariant.
pub struct Failure {
    /// The invariant.
    violation: Violation,
    /// What led to it.
    story: Vec<String>,
    /// The figures so far.
    report: Report,
}

impl Failure {
    /// The invariant, as a sentence.
    pub fn invariant(&self) -> &'static str {
        self.violation.invariant
    }

    /// The failure with the part of the record's story that concerns it.
    pub(super) fn new(violation: Violation, record: &Record, report: Report) -> Box<Self> {
        let story = record.story(&violation.pages, &violation.places, STORY_LINES);
        Box::new(Self { violation, story, report })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.story {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "VIOLATED: {}", self.violation.invariant)?;
        writeln!(f, "{}", self.violation.what)?;
        write!(f, "{}", self.report)
    }
}

/// As it is displayed: a test that returns it tells the story.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::error::Error for Failure {}
