//! Figures, gathered by metric and server: the table, the goals, JSON.

use std::collections::HashMap;

use roundhouse_tests::bench::{median, say};
use serde_json::{Value, json};

use crate::servers::Field;

/// Something that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Metric {
    /// In JSON.
    pub(crate) key: &'static str,
    /// In the table.
    pub(crate) title: &'static str,
    pub(crate) decimals: usize,
    /// The server that others are compared with.
    pub(crate) base: Option<&'static str>,
}

const fn metric(key: &'static str, title: &'static str, decimals: usize, base: Option<&'static str>) -> Metric {
    Metric { key, title, decimals, base }
}

const FLOOR: Option<&str> = Some("floor");
const MERGED: Option<&str> = Some("floor-merged");

pub(crate) const SINGLE: Metric = metric("single.deliveries_per_second", "(a) deliveries/s", 0, FLOOR);
pub(crate) const PIPELINED: Metric = metric("pipelined.deliveries_per_second", "(b) deliveries/s", 0, MERGED);
pub(crate) const SINGLE_CPU: Metric = metric("single.server_ns_per_delivery", "(a) CPU ns each", 0, FLOOR);
pub(crate) const PIPELINED_CPU: Metric = metric("pipelined.server_ns_per_delivery", "(b) CPU ns each", 0, MERGED);
pub(crate) const LATENCY_P50: Metric = metric("latency.p50_ms", "(c) p50 ms", 2, FLOOR);
pub(crate) const LATENCY_P99: Metric = metric("latency.p99_ms", "(c) p99 ms", 2, FLOOR);
pub(crate) const LATENCY_P999: Metric = metric("latency.p999_ms", "(c) p99.9 ms", 2, FLOOR);

/// All of them, in the order of the table.
const METRICS: &[Metric] = &[SINGLE, SINGLE_CPU, PIPELINED, PIPELINED_CPU, LATENCY_P50, LATENCY_P99, LATENCY_P999];

/// All figures of a run.
#[derive(Debug)]
pub(crate) struct Report {
    servers: Vec<String>,
    versions: Value,
    machine: Value,
    /// What each round gave.
    figures: HashMap<(Metric, String), Vec<f64>>,
}

impl Report {
    pub(crate) fn new(field: &Field) -> anyhow::Result<Self> {
        let servers = field.specs.iter().map(|spec| spec.name.clone()).collect();
        Ok(Self { servers, versions: field.versions.clone(), machine: machine()?, figures: HashMap::new() })
    }

    /// Notes what one round gave.
    pub(crate) fn note(&mut self, metric: Metric, server: &str, figure: f64) {
        self.figures.entry((metric, server.to_owned())).or_default().push(figure);
    }

    fn of(&self, metric: Metric, server: &str) -> Option<&Vec<f64>> {
        self.figures.get(&(metric, server.to_owned()))
    }

    /// The median of all rounds.
    pub(crate) fn median(&self, metric: Metric, server: &str) -> Option<f64> {
        self.of(metric, server).map(|figures| median(figures.clone()))
    }

    /// The median of each round's ratio to the metric's base.
    pub(crate) fn ratio(&self, metric: Metric, server: &str) -> Option<f64> {
        let base = self.of(metric, metric.base.filter(|base| *base != server)?)?;
        let ratios: Vec<f64> = self.of(metric, server)?.iter().zip(base).map(|(figure, base)| figure / base).collect();
        (!ratios.is_empty()).then(|| median(ratios))
    }

    /// Prints the table.
    pub(crate) fn show(&self) -> anyhow::Result<()> {
        let metrics: Vec<Metric> =
            METRICS.iter().copied().filter(|wanted| self.figures.keys().any(|(metric, _)| metric == wanted)).collect();
        let mut rows = vec![vec!["server".to_owned()]];
        rows[0].extend(metrics.iter().map(|metric| metric.title.to_owned()));
        for server in &self.servers {
            let cell = |metric: &Metric| {
                let Some(figure) = self.median(*metric, server) else { return String::new() };
                let figure = thousands(figure, metric.decimals);
                self.ratio(*metric, server).map_or(figure.clone(), |ratio| format!("{figure} ({ratio:.2})"))
            };
            rows.push(std::iter::once(server.clone()).chain(metrics.iter().map(cell)).collect());
        }
        say("")?;
        say_table(&rows)?;
        say("In brackets: the ratio to the floor, for (b) to the merging one; the median of the rounds' ratios.")
    }

    /// Everything, with each round by itself.
    pub(crate) fn to_json(&self) -> Value {
        let mut figures = serde_json::Map::new();
        for metric in METRICS {
            let of_servers: serde_json::Map<String, Value> = self
                .servers
                .iter()
                .filter_map(|server| {
                    let rounds = self.of(*metric, server)?;
                    let median = median(rounds.clone());
                    let ratio = self.ratio(*metric, server);
                    Some((server.clone(), json!({ "median": median, "ratio": ratio, "rounds": rounds })))
                })
                .collect();
            if !of_servers.is_empty() {
                figures.insert(metric.key.to_owned(), Value::Object(of_servers));
            }
        }
        json!({ "machine": self.machine, "versions": self.versions, "figures": figures })
    }
}

/// Prints rows in Markdown, with columns of one width.
fn say_table(rows: &[Vec<String>]) -> anyhow::Result<()> {
    let n_columns = rows[0].len();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    for (at, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(column, (cell, width))| {
                    if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        say(&format!("| {} |", cells.join(" | ")))?;
        if at == 0 {
            let rule = |(column, width): (usize, &usize)| {
                if column == 0 { "-".repeat(*width) } else { format!("{}:", "-".repeat(width - 1)) }
            };
            let rules: Vec<String> = widths.iter().enumerate().map(rule).collect();
            say(&format!("| {} |", rules.join(" | ")))?;
        }
    }
    Ok(())
}

/// A figure with its thousands apart.
fn thousands(figure: f64, decimals: usize) -> String {
    let text = format!("{figure:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

/// The figure below which a share of all are, of figures in order of size.
pub(crate) fn quantile(sorted: &[u32], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    f64::from(sorted.get(at).copied().unwrap_or_default())
}

/// What the benchmark runs on.
fn machine() -> anyhow::Result<Value> {
    let read = |path: &str| std::fs::read_to_string(path);
    let cpus = read("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    Ok(json!({
        "cpu": model,
        "cores": std::thread::available_parallelism()?.get(),
        "kernel": read("/proc/sys/kernel/osrelease")?.trim(),
    }))
}
