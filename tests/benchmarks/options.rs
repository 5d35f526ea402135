//! The command line: workloads, servers, and where figures go.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};

/// All servers that may take part.
pub(crate) const NAMES: [&str; 8] =
    ["roundhouse", "roundhouse-socketio", "socket.io", "ws", "socketioxide", "nats", "floor", "floor-merged"];

/// The workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// One room of 1,000: the next event when all have the last.
    #[value(alias = "a")]
    Single,
    /// The same with 64 events in flight.
    #[value(alias = "b")]
    Pipelined,
    /// The latency of 50 events a second to 1,000.
    #[value(alias = "c")]
    Latency,
    /// 100 rooms of 10, 20 events a second in each.
    #[value(alias = "d")]
    Rooms,
    /// Memory and CPU of idle connections.
    #[value(alias = "e")]
    Idle,
    /// 5,000 that connect at once.
    #[value(alias = "f")]
    Storm,
    /// Events of a bundled feature with acknowledgements, beside an echo.
    #[value(alias = "g")]
    Plugin,
    /// Messages that are shown, stored and confirmed.
    #[value(alias = "h")]
    Chat,
    /// Up to 18,000 connections, one message a second to each.
    #[value(alias = "i")]
    Connections,
    /// The growth of cost with members and rooms.
    Growth,
}

/// How a floor writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Merging {
    /// Each frame by itself.
    Separate,
    /// All due frames at once.
    Merged,
}

impl Merging {
    /// The number of writes for `due` frames, and the frames in each.
    pub(crate) fn writes(self, due: usize) -> (usize, usize) {
        match self {
            Self::Separate => (due, 1),
            Self::Merged => (usize::from(due > 0), due),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Separate => "separate",
            Self::Merged => "merged",
        }
    }
}

/// Measures Roundhouse and its peers: servers on core 0, the generator on core 1.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Only these workloads.
    #[arg(value_enum)]
    pub(crate) workloads: Vec<Workload>,
    /// Only these servers.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(NAMES))]
    pub(crate) servers: Vec<String>,
    /// How often each server has its turn, where turns are short.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Another build of the host; several, as NAME=PATH, run in turn.
    #[arg(long = "host", value_parser = named_path)]
    pub(crate) hosts: Vec<(String, PathBuf)>,
    /// Less of everything: a check that it works.
    #[arg(long)]
    pub(crate) quick: bool,
    /// The file of the figures, as JSON; by default in the target folder.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// The file of the tables, as Markdown; by default in the target folder.
    #[arg(long)]
    pub(crate) tables: Option<PathBuf>,
    /// The file of the plot; by default in the target folder.
    #[arg(long)]
    pub(crate) plot: Option<PathBuf>,
    /// The argument that cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// Run as a floor.
    #[arg(long, hide = true, value_enum)]
    pub(crate) floor: Option<Merging>,
}

fn named_path(text: &str) -> anyhow::Result<(String, PathBuf)> {
    let (name, path) = text.split_once('=').unwrap_or(("", text));
    Ok((name.to_owned(), std::path::absolute(path)?))
}

impl Options {
    pub(crate) fn wants(&self, workload: Workload) -> bool {
        self.workloads.is_empty() || self.workloads.contains(&workload)
    }

    pub(crate) fn rounds(&self) -> usize {
        if self.quick { self.rounds.min(2) } else { self.rounds }
    }
}
