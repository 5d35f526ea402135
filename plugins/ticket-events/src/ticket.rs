//! The state of a ticket: its creator and its participants. This file emits nothing.

use std::collections::BTreeSet;

use roundhouse_sdk::{Failure, Id};
use serde::{Deserialize, Serialize};

/// The greatest size of the participants in the state, in bytes, without the creator: some thousand ids of usual length.
/// With the creator the state is well below the host's limit of 64 KiB, and an emit to all of them with a payload of a
/// megabyte is within the host's limits.
const MAX_BYTES: usize = 32 * 1024;

/// A ticket: its creator and its participants.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Ticket {
    #[serde(skip_serializing_if = "Option::is_none")]
    creator: Option<Id>,
    /// The other participants, the latest active last.
    others: Vec<Id>,
}

impl Ticket {
    /// Whether the ticket has no known participant.
    pub(crate) fn is_empty(&self) -> bool {
        self.creator.is_none() && self.others.is_empty()
    }

    pub(crate) fn creator(&self) -> Option<&Id> {
        self.creator.as_ref()
    }

    /// The creator and all others.
    pub(crate) fn participants(&self) -> impl Iterator<Item = &Id> {
        self.creator.iter().chain(&self.others)
    }

    pub(crate) fn set_creator(&mut self, creator: &Id) {
        self.others.retain(|other| other != creator);
        self.creator = Some(creator.clone());
    }

    /// Adds participants. If they are too many for the state, the least recently active are dropped.
    pub(crate) fn add<'a>(&mut self, people: impl IntoIterator<Item = &'a Id>) -> Result<(), Failure> {
        let (mut n_bytes, mut came) = (0, Vec::new());
        for id in people.into_iter().filter(|id| self.creator.as_ref() != Some(*id)) {
            came.push(id);
            n_bytes += size(id);
            if n_bytes > MAX_BYTES {
                return Err(Failure::too_large(format!(
                    "participants: more than {MAX_BYTES} bytes of ids; send the event with fewer"
                )));
            }
        }
        // Each id keeps its last place. A set finds the duplicates, because comparing thousands of ids pairwise takes
        // too long.
        let mut seen = BTreeSet::new();
        let mut last: Vec<&Id> = came.into_iter().rev().filter(|id| seen.insert(*id)).collect();
        last.reverse();
        self.others.retain(|other| !seen.contains(other));
        self.others.extend(last.into_iter().cloned());
        let mut n_bytes: usize = self.others.iter().map(size).sum();
        let n_forgotten = self.others.iter().take_while(|other| {
            let is_too_many = n_bytes > MAX_BYTES;
            n_bytes -= size(other);
            is_too_many
        });
        self.others.drain(..n_forgotten.count());
        Ok(())
    }
}

/// The size of an id in the state, in bytes, with its escapes.
fn size(id: &Id) -> usize {
    const QUOTES_AND_COMMA: usize = 3;
    let n_escaped = id.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
    id.len() + n_escaped + QUOTES_AND_COMMA
}
