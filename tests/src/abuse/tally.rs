//! An attacker's sent and received frames.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::glimpse::error_code;

/// The totals of all connections of an attacker.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Tally {
    /// Sent frames or requests.
    pub sent: u64,
    /// Sent bytes.
    pub sent_bytes: u64,
    /// Received bytes.
    pub got_bytes: u64,
    /// Received frames that were not refusals.
    pub answers: u64,
    /// Refusals by code, and HTTP answers by status.
    pub refused: BTreeMap<String, u64>,
    /// Ends of connections, by close code or cause.
    pub closed: BTreeMap<String, u64>,
    /// Other findings.
    pub notes: Vec<String>,
    /// Harm to other clients that their measurements do not show; must be empty.
    pub harm: Vec<String>,
}

impl Tally {
    /// Counts a sent frame or request.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += 1;
        self.sent_bytes += bytes as u64;
    }

    /// Counts a refusal, or a status.
    pub fn refused(&mut self, code: &str) {
        *self.refused.entry(code.to_owned()).or_default() += 1;
    }

    /// Counts the end of a connection.
    pub fn closed(&mut self, how: &str) {
        *self.closed.entry(how.to_owned()).or_default() += 1;
    }

    /// Counts a frame.
    pub(super) fn frame(&mut self, opcode: u8, seen: &[u8]) {
        match (opcode, seen) {
            (8, [a, b, ..]) => self.closed(&u16::from_be_bytes([*a, *b]).to_string()),
            (8, _) => self.closed("closed"),
            (1, _) => match error_code(seen) {
                Some(code) => self.refused(code),
                None => self.answers += 1,
            },
            _ => {}
        }
    }

    /// The figures of received frames and ends, as a cell of a table.
    pub fn line(&self) -> String {
        let count = |(what, n): (&String, &u64)| format!("{n} × {what}");
        let mut parts: Vec<String> = self.refused.iter().map(count).collect();
        parts.extend(self.closed.iter().map(|(what, n)| format!("{n} closed: {what}")));
        if self.answers > 0 {
            parts.push(format!("{} answers", self.answers));
        }
        parts.extend(self.notes.iter().cloned());
        parts.join(", ")
    }
}
