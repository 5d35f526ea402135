//! Standard error: log lines, failures of commands, and panics, all in one format.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal as _, Write as _};
use std::panic::{Location, PanicHookInfo};
use std::time::SystemTime;

use serde_json::{Map, Value, json};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt as _, FilterFn, LevelFilter};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use crate::config::LogFormat;

/// Libraries that log the parameters of statements, and a server's notices about them. Parameters contain users'
/// messages, which must not be logged, whatever RUST_LOG is.
const TELLTALES: [&str; 2] = ["tokio_postgres", "postgres"];

/// The log of this process.
#[derive(Debug)]
pub(super) struct Log {
    format: LogFormat,
}

impl Log {
    /// Starts the log, with `level` where RUST_LOG is not set, and reports panics in its format. To be called once in a
    /// process.
    pub(super) fn start(format: LogFormat, level: &str) -> Self {
        // An empty variable counts as unset.
        let wanted = std::env::var("RUST_LOG").ok().filter(|wanted| !wanted.trim().is_empty());
        let (filter, mistake) = match wanted.as_deref().map(str::parse::<EnvFilter>) {
            Some(Ok(filter)) => (filter, None),
            Some(Err(error)) => (EnvFilter::new(level), Some(error)),
            None => (EnvFilter::new(level), None),
        };
        let logs = fmt::layer::<Registry>()
            .with_ansi(std::io::stderr().is_terminal())
            // The library would report a failed write to standard error itself, which panics where that cannot be
            // written.
            .log_internal_errors(false)
            .with_writer(std::io::stderr);
        let logs = match format {
            LogFormat::Text => logs.boxed(),
            LogFormat::Json => logs.json().boxed(),
        };
        tracing_subscriber::registry().with(logs.with_filter(filter.and(discreet()))).init();
        if let Some(error) = mistake {
            tracing::warn!("RUST_LOG is not understood, and so taken for {level}: {error}");
        }
        std::panic::set_hook(Box::new(move |panic| report_panic(panic, format)));
        Self { format }
    }

    /// Writes the failure of a command, whatever RUST_LOG is.
    pub(super) fn failed(&self, message: &str) {
        match self.format {
            LogFormat::Text => write_line(&format!("roundhouse: {message}")),
            LogFormat::Json => write_line(&json_line(json!({ "message": message }))),
        }
    }
}

fn discreet() -> FilterFn {
    let is_discreet = |metadata: &Metadata<'_>| {
        let root = metadata.target().split("::").next().unwrap_or_default();
        *metadata.level() <= Level::WARN || !TELLTALES.contains(&root)
    };
    // Without a level hint the filter would be evaluated for every event, also those of libraries on hot paths.
    FilterFn::new(is_discreet as fn(&Metadata<'_>) -> bool).with_max_level_hint(LevelFilter::TRACE)
}

/// Writes a mistake in the command line, before the log is started.
pub(super) fn misused(error: &clap::Error, format: LogFormat) {
    match format {
        LogFormat::Json if error.use_stderr() => write_line(&json_line(json!({ "message": error.to_string().trim() }))),
        // A failed write is ignored: standard error is the only place for it.
        _ => drop(error.print()),
    }
}

fn write_line(line: &str) {
    // A failed write is ignored: standard error is the only place for it.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// A line of JSON in the format of the log.
fn json_line(fields: Value) -> String {
    let timestamp = humantime::format_rfc3339_micros(SystemTime::now());
    format!(r#"{{"timestamp":"{timestamp}","level":"ERROR","fields":{fields},"target":"roundhouse"}}"#)
}

fn report_panic(panic: &PanicHookInfo<'_>, format: LogFormat) {
    // Captured with RUST_BACKTRACE=1.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    write_line(&panic_report(format, panic.payload(), panic.location(), thread, backtrace));
}

/// A panic's message.
pub(super) fn reason_of(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a text")
}

fn panic_report(
    format: LogFormat,
    payload: &(dyn Any + Send),
    location: Option<&Location<'_>>,
    thread: &str,
    backtrace: Option<String>,
) -> String {
    let reason = reason_of(payload);
    let place = location.map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    match format {
        LogFormat::Text => {
            let backtrace = backtrace.map_or_else(String::new, |backtrace| format!("\n{backtrace}"));
            format!("thread '{thread}' panicked at {place}:\n{reason}{backtrace}")
        }
        LogFormat::Json => {
            let mut fields = Map::new();
            fields.insert("message".to_owned(), format!("panicked: {reason}").into());
            fields.insert("location".to_owned(), place.into());
            fields.insert("thread".to_owned(), thread.into());
            fields.extend(backtrace.map(|backtrace| ("backtrace".to_owned(), backtrace.into())));
            json_line(fields.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_in_json_are_one_line() {
        let here = Location::caller();
        let backtrace = Some("frame 1\nframe 2".to_owned());
        let line = panic_report(LogFormat::Json, &"out of \"luck\"\n", Some(here), "shard-0", backtrace);
        assert!(!line.contains('\n'), "{line}");
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["level"], "ERROR");
        assert_eq!(line["fields"]["message"], "panicked: out of \"luck\"\n");
        assert_eq!(line["fields"]["thread"], "shard-0");
        assert!(line["fields"]["location"].as_str().unwrap().contains("logs.rs"), "{line}");
        assert_eq!(line["fields"]["backtrace"], "frame 1\nframe 2");
        let text = panic_report(LogFormat::Text, &"no luck".to_owned(), Some(here), "api", None);
        assert!(text.contains("'api' panicked at") && text.ends_with("no luck"), "{text}");
    }

    /// Set in the child process whose log is tested.
    const CHILD: &str = "LOGS_TEST_CHILD";

    #[test]
    fn panicking_process_writes_json_lines() {
        if std::env::var_os(CHILD).is_some() {
            let _log = Log::start(LogFormat::Json, "info");
            let thread = std::thread::Builder::new().name("shard-0".to_owned()).spawn(|| panic!("no {}", "luck"));
            return assert!(thread.unwrap().join().is_err());
        }
        let name = "cli::logs::tests::panicking_process_writes_json_lines";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").env("RUST_LOG", "off").env("RUST_BACKTRACE", "1");
        let output = child.output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{log}");
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert_eq!(lines[0]["fields"]["message"], "panicked: no luck");
        assert_eq!(lines[0]["fields"]["thread"], "shard-0");
        assert!(lines[0]["fields"]["backtrace"].as_str().unwrap().contains("logs::tests"), "{log}");
    }

    #[test]
    fn parameters_of_statements_are_never_logged() {
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let keep = fmt::layer().with_writer({
            let seen = seen.clone();
            move || Kept(seen.clone())
        });
        let filter: EnvFilter = "trace,tokio_postgres::query=trace".parse().unwrap();
        let subscriber = tracing_subscriber::registry().with(keep.with_filter(filter.and(discreet())));
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "tokio_postgres::query", "executing with parameters: [\"a secret\"]");
            tracing::trace!(target: "tokio_postgres", "a secret");
            tracing::debug!(target: "roundhouse::store", "shown");
            tracing::warn!(target: "tokio_postgres", "a notice");
        });
        let seen = String::from_utf8(seen.lock().unwrap().clone()).unwrap();
        assert!(seen.contains("shown") && seen.contains("a notice") && !seen.contains("a secret"), "{seen}");
    }

    struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
