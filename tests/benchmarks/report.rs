//! Figures, gathered by metric and server: the table, the goals, JSON.

use std::collections::HashMap;

use roundhouse_tests::bench::{median, thousands};
use serde_json::{Value, json};

use crate::servers::Field;

/// A metric: its names, its decimals, and the server that it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Metric {
    /// The metric's name in JSON.
    pub(crate) key: &'static str,
    /// The metric's name in the table.
    pub(crate) title: &'static str,
    pub(crate) decimals: usize,
    /// The server with which others are compared.
    pub(crate) base: Option<&'static str>,
}

const fn metric(key: &'static str, title: &'static str, decimals: usize, base: Option<&'static str>) -> Metric {
    Metric { key, title, decimals, base }
}

const FLOOR: Option<&str> = Some("floor");
const MERGED: Option<&str> = Some("floor-merged");

pub(crate) const SINGLE: Metric = metric("single.deliveries_per_second", "(a) deliveries/s", 0, FLOOR);
pub(crate) const SINGLE_CPU: Metric = metric("single.server_ns_per_delivery", "(a) CPU ns each", 0, FLOOR);
pub(crate) const PIPELINED: Metric = metric("pipelined.deliveries_per_second", "(b) deliveries/s", 0, MERGED);
pub(crate) const PIPELINED_CPU: Metric = metric("pipelined.server_ns_per_delivery", "(b) CPU ns each", 0, MERGED);
pub(crate) const PIPELINED_GENERATOR: Metric =
    metric("pipelined.generator_ns_per_delivery", "(b) generator's", 0, None);
pub(crate) const LATENCY_P50: Metric = metric("latency.p50_ms", "(c) p50 ms", 2, FLOOR);
pub(crate) const LATENCY_P99: Metric = metric("latency.p99_ms", "(c) p99 ms", 2, FLOOR);
pub(crate) const LATENCY_P999: Metric = metric("latency.p999_ms", "(c) p99.9 ms", 2, FLOOR);
pub(crate) const ROOMS_RATE: Metric = metric("rooms.deliveries_per_second", "(d) deliveries/s", 0, None);
pub(crate) const ROOMS_P50: Metric = metric("rooms.p50_ms", "(d) p50 ms", 2, FLOOR);
pub(crate) const ROOMS_P99: Metric = metric("rooms.p99_ms", "(d) p99 ms", 2, FLOOR);
pub(crate) const ROOMS_CPU: Metric = metric("rooms.cpu_percent", "(d) CPU %", 1, FLOOR);
pub(crate) const IDLE_MEMORY: Metric = metric("idle.kib_per_connection", "(e) KiB each", 2, None);
pub(crate) const IDLE_CPU: Metric = metric("idle.cpu_percent", "(e) CPU % of 1,000", 3, None);
pub(crate) const STORM_RATE: Metric = metric("storm.handshakes_per_second", "(f) handshakes/s", 0, None);
pub(crate) const STORM_P99: Metric = metric("storm.p99_ms", "(f) p99 ms", 2, None);
pub(crate) const EVENTS_TYPING: Metric = metric("plugin.typing_per_second", "(g) typing/s", 0, None);
pub(crate) const EVENTS_VIEW: Metric = metric("plugin.view_and_leave_per_second", "(g) view, leave/s", 0, None);
pub(crate) const EVENT_CPU: Metric = metric("plugin.server_us_per_event", "(g) CPU µs each", 2, None);
pub(crate) const ECHO_P50: Metric = metric("plugin.echo_p50_us", "(g) echo p50 µs", 1, None);
pub(crate) const EVENT_P50: Metric = metric("plugin.typing_p50_us", "(g) typing p50 µs", 1, None);
pub(crate) const EVENT_P99: Metric = metric("plugin.typing_p99_us", "p99", 1, None);
pub(crate) const VIEW_P50: Metric = metric("plugin.view_p50_us", "(g) view p50 µs", 1, None);
pub(crate) const VIEW_P99: Metric = metric("plugin.view_p99_us", "p99", 1, None);
pub(crate) const EVENT_ADDED: Metric = metric("plugin.added_p50_us", "(g) typing over echo µs", 1, None);
pub(crate) const SHOWN_P50: Metric = metric("chat.shown_p50_ms", "(h) shown p50 ms", 2, None);
pub(crate) const SHOWN_P99: Metric = metric("chat.shown_p99_ms", "p99", 2, None);
pub(crate) const CONFIRMED_P50: Metric = metric("chat.confirmed_p50_ms", "(h) confirmed p50 ms", 2, None);
pub(crate) const CONFIRMED_P99: Metric = metric("chat.confirmed_p99_ms", "p99", 2, None);
pub(crate) const CHAT_CPU: Metric = metric("chat.server_us_per_message", "(h) CPU µs a message", 1, None);

/// The metrics of each table, under its heading.
const TABLES: &[(&str, &[Metric])] = &[
    (
        "(a), (b), (c): one room of 1,000",
        &[SINGLE, SINGLE_CPU, PIPELINED, PIPELINED_CPU, PIPELINED_GENERATOR, LATENCY_P50, LATENCY_P99, LATENCY_P999],
    ),
    ("(d): 100 rooms of 10", &[ROOMS_RATE, ROOMS_P50, ROOMS_P99, ROOMS_CPU]),
    ("(e), (f): idle connections, and a storm of them", &[IDLE_MEMORY, IDLE_CPU, STORM_RATE, STORM_P99]),
    (
        "(g): a feature",
        &[EVENTS_TYPING, EVENTS_VIEW, EVENT_CPU, ECHO_P50, EVENT_P50, EVENT_P99, EVENT_ADDED, VIEW_P50, VIEW_P99],
    ),
    ("(h): chat", &[SHOWN_P50, SHOWN_P99, CONFIRMED_P50, CONFIRMED_P99, CHAT_CPU]),
];

/// The curves, each with its heading.
const CURVES: [(&str, &str); 3] = [
    ("connections", "(i): many connections"),
    ("reckoned", "(i): what more of them would take, reckoned"),
    ("growth", "Growth: members of one room, and rooms"),
];

/// One point of a curve: the figures at one value of its abscissa.
#[derive(Debug)]
pub(crate) struct Curve {
    /// The curve's name.
    pub(crate) curve: &'static str,
    pub(crate) server: String,
    /// The abscissa, in words and as a number.
    pub(crate) at: String,
    pub(crate) n: usize,
    pub(crate) figures: Vec<(&'static str, f64)>,
}

impl Curve {
    /// The figure with this name; NaN if there is none.
    pub(crate) fn figure(&self, wanted: &str) -> f64 {
        self.figures.iter().find(|(name, _)| *name == wanted).map_or(f64::NAN, |(_, figure)| *figure)
    }
}

/// All figures of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) servers: Vec<String>,
    versions: Value,
    machine: Value,
    /// The figures of all rounds.
    figures: HashMap<(Metric, String), Vec<f64>>,
    pub(crate) curves: Vec<Curve>,
}

/// A goal and its result.
#[derive(Debug)]
pub(crate) struct Goal {
    pub(crate) server: String,
    pub(crate) text: &'static str,
    pub(crate) measured: f64,
    pub(crate) decimals: usize,
    pub(crate) is_met: bool,
}

impl Report {
    pub(crate) fn new(field: &Field) -> anyhow::Result<Self> {
        let servers = field.specs.iter().map(|spec| spec.name.clone()).collect();
        Ok(Self {
            servers,
            versions: field.versions.clone(),
            machine: machine()?,
            figures: HashMap::new(),
            curves: Vec::new(),
        })
    }

    /// Adds the figure of one round.
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

    /// The median of the rounds' ratios to the metric's base.
    pub(crate) fn ratio(&self, metric: Metric, server: &str) -> Option<f64> {
        let base = self.of(metric, metric.base.filter(|base| *base != server)?)?;
        let ratios: Vec<f64> = self.of(metric, server)?.iter().zip(base).map(|(figure, base)| figure / base).collect();
        (!ratios.is_empty()).then(|| median(ratios))
    }

    /// All tables with their headings, as Markdown.
    pub(crate) fn to_markdown(&self) -> String {
        let mut page = self.described();
        for (heading, metrics) in TABLES {
            add_table(&mut page, heading, &self.rows(metrics));
        }
        for (curve, heading) in CURVES {
            add_table(&mut page, heading, &self.curve_rows(curve));
        }
        add_table(&mut page, "Goals", &self.goal_rows());
        page
    }

    /// The servers and the machine, and how to read the tables.
    fn described(&self) -> String {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let [cpu, cores, kernel] = ["cpu", "cores", "kernel"].map(|key| text(&self.machine[key]));
        // Some servers print their own name before the version.
        let named = |(name, version): (&String, &Value)| match text(version) {
            version if version.starts_with(name) => version,
            version => format!("{name} {version}"),
        };
        let versions: Vec<String> = self.versions.as_object().into_iter().flatten().map(named).collect();
        let versions = versions.join(", ");
        format!(
            "{cpu}, {cores} cores, Linux {kernel}. {versions}.\n\nIn brackets: the ratio to the floor, for (b) to the \
             merging one; the median of the rounds' ratios.\n"
        )
    }

    /// The rows of one table, beginning with the titles of its columns.
    fn rows(&self, metrics: &[Metric]) -> Vec<Vec<String>> {
        let is_there = |metric: &Metric| self.servers.iter().any(|server| self.of(*metric, server).is_some());
        let metrics: Vec<Metric> = metrics.iter().copied().filter(is_there).collect();
        let titles = metrics.iter().map(|metric| metric.title.to_owned());
        let mut rows = vec![std::iter::once("server".to_owned()).chain(titles).collect::<Vec<_>>()];
        for server in
            self.servers.iter().filter(|server| metrics.iter().any(|metric| self.of(*metric, server).is_some()))
        {
            let cell = |metric: &Metric| {
                let Some(figure) = self.median(*metric, server) else { return String::new() };
                let figure = thousands(figure, metric.decimals);
                self.ratio(*metric, server).map_or(figure.clone(), |ratio| format!("{figure} ({ratio:.2})"))
            };
            rows.push(std::iter::once(server.clone()).chain(metrics.iter().map(cell)).collect());
        }
        rows
    }

    /// The points of a curve, beginning with the titles of its columns.
    fn curve_rows(&self, curve: &str) -> Vec<Vec<String>> {
        let mut rows: Vec<Vec<String>> = Vec::new();
        for point in self.curves.iter().filter(|point| point.curve == curve) {
            let mut row = vec![format!("{}: {}", point.server, point.at)];
            let decimals = |figure: f64| if figure < 10.0 { 2 } else { usize::from(figure < 1_000.0) };
            row.extend(point.figures.iter().map(|(_, figure)| thousands(*figure, decimals(*figure))));
            if rows.is_empty() {
                rows.push(std::iter::once(curve.to_owned()).collect());
                rows[0].extend(point.figures.iter().map(|(name, _)| (*name).to_owned()));
            }
            row.resize(rows[0].len(), String::new());
            rows.push(row);
        }
        rows
    }

    /// The goals, and whether each is met.
    fn goal_rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![["server", "goal", "measured", "met"].map(str::to_owned).to_vec()];
        for goal in self.goals() {
            let met = if goal.is_met { "yes" } else { "no" };
            rows.push(vec![goal.server, goal.text.to_owned(), thousands(goal.measured, goal.decimals), met.to_owned()]);
        }
        rows
    }

    /// All figures, with those of each round.
    pub(crate) fn to_json(&self) -> Value {
        let mut figures = serde_json::Map::new();
        for metric in TABLES.iter().flat_map(|(_, metrics)| metrics.iter()) {
            let mut of_servers = serde_json::Map::new();
            for server in &self.servers {
                let Some(rounds) = self.of(*metric, server) else { continue };
                let (median, ratio) = (median(rounds.clone()), self.ratio(*metric, server));
                of_servers.insert(server.clone(), json!({ "median": median, "ratio": ratio, "rounds": rounds }));
            }
            if !of_servers.is_empty() {
                figures.insert(metric.key.to_owned(), Value::Object(of_servers));
            }
        }
        let point = |point: &Curve| {
            let figures: serde_json::Map<String, Value> =
                point.figures.iter().map(|(name, figure)| ((*name).to_owned(), json!(figure))).collect();
            json!({ "curve": point.curve, "server": point.server, "at": point.at, "n": point.n, "figures": figures })
        };
        let curves: Vec<Value> = self.curves.iter().map(point).collect();
        let goal = |goal: Goal| json!({ "server": goal.server, "goal": goal.text, "measured": goal.measured, "met": goal.is_met });
        let goals: Vec<Value> = self.goals().into_iter().map(goal).collect();
        json!({
            "machine": self.machine, "versions": self.versions, "figures": figures, "curves": curves, "goals": goals
        })
    }
}

/// Adds a table in Markdown with aligned columns, under a heading. A table without rows below its titles is left out.
fn add_table(page: &mut String, heading: &str, rows: &[Vec<String>]) {
    let [titles, figures @ ..] = rows else { return };
    if figures.is_empty() {
        return;
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let rules = widths.iter().enumerate().map(|(column, width)| match column {
        0 => "-".repeat(*width),
        _ => format!("{}:", "-".repeat(width - 1)),
    });
    let rules: Vec<String> = rules.collect();
    *page += &format!("\n### {heading}\n\n{}", line(titles));
    *page += &line(&rules);
    for row in figures {
        *page += &line(row);
    }
}

/// The machine of the benchmark.
fn machine() -> anyhow::Result<Value> {
    let read = |path: &str| std::fs::read_to_string(path);
    let cpus = read("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    Ok(json!({
        "cpu": model,
        // All cores of the machine, and not only those that the generator may use.
        "cores": cpus.lines().filter(|line| line.starts_with("processor")).count(),
        "kernel": read("/proc/sys/kernel/osrelease")?.trim(),
    }))
}
