//! Shared by the benchmarks: tokens, lines of output, medians and other quantiles.

use std::io::Write as _;

use anyhow::Context as _;
use roundhouse::auth::{Claims, sign};

/// The JWT secret of the benchmarks' hosts.
pub const SECRET: &str = "figures";

/// A line of the hosts' configuration. A benchmark's publisher is one client, and sends more than clients may by
/// default. The limits are on but higher than any rate here, so that each connection has its limiter and each event is
/// checked.
pub const LIMITS: &str = "limits = { events_per_second = 1_000_000, event_burst = 1_000_000, \
    user = { scopes = 1_000_000, rooms = 1_000_000 } }\n";

/// Prints a line.
///
/// # Errors
/// If standard output is closed.
pub fn say(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// A token for a user of the benchmarks' hosts.
///
/// # Errors
/// If the token cannot be signed.
pub fn token(user: &str) -> anyhow::Result<String> {
    Ok(sign(&Claims { sub: user.to_owned(), ..Claims::default() }, SECRET)?)
}

/// The median, which varies less than the mean on a noisy machine.
///
/// # Panics
/// If `figures` is empty.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The quantile at `share` of sorted figures; 0 if there are none.
pub fn quantile<T: Copy + Default + Into<f64>>(sorted: &[T], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default().into()
}

/// The resident memory of a process, in bytes.
///
/// # Errors
/// If there is no such process.
pub fn resident_bytes(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}

/// A figure with separators of thousands.
pub fn thousands(figure: f64, decimals: usize) -> String {
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
