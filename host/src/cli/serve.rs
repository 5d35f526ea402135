//! `roundhouse serve` and `roundhouse check`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::load_config::load_config;
use super::logs::reason_of;
use super::memory;
use super::output::{print, print_json};
use super::signals::Signals;
use crate::config::{Budgets, Config, Overrides, PRIVATE_DIR};
use crate::hub::Hub;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::model::{Clock, is_essential};
use crate::net::raise_limit;
use crate::plugin::{PluginState, Runtime};
use crate::server::{Server, load_plugins, load_tls, room_policy, start_outbound};
use crate::store::StatesOnly;

/// Serves until SIGTERM, SIGINT or SIGHUP, then shuts down in order. A second signal ends the process at once, unless
/// it is a duplicate of the first ([`Signals::second`]).
pub(super) fn serve(file: Option<&Path>, overrides: Overrides) -> anyhow::Result<()> {
    memory::give_back();
    let config = load_config(file, overrides)?;
    let development = config.development;
    end_with_essential_threads();
    raise_limit();
    let started = Instant::now();
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // From here on a signal does not end the process.
    let mut signals = {
        let _entered = tokio.enter();
        Signals::listen()?
    };
    let Some(server) = start(config, &tokio, &mut signals)? else { return Ok(()) };
    let (listening, api) = (server.listening, server.api);
    let (ws, http) = if server.has_tls.0 { ("wss", "https") } else { ("ws", "http") };
    let api_scheme = if server.has_tls.1 { "https" } else { "http" };
    tracing::info!(%listening, %api, took = ?started.elapsed(), "serving");
    if development {
        tracing::warn!(
            "development mode: for this machine alone, with generated secrets in {PRIVATE_DIR}; the demo is at {http}://{listening}/"
        );
    }
    let first_line = json!({
        "listening": format!("{ws}://{listening}"),
        "api": format!("{api_scheme}://{api}"),
        "pid": std::process::id(),
    });
    print(&format!("{first_line}\n"))?;
    let signal = tokio.block_on(signals.first());
    tracing::info!(signal, "shutting down");
    let shutting_down = Instant::now();
    std::thread::spawn(move || {
        let signal = tokio.block_on(signals.second());
        tracing::warn!(signal, "a second signal: ending at once");
        std::process::exit(1);
    });
    server.shut_down();
    tracing::info!(took = ?shutting_down.elapsed(), "ended");
    Ok(())
}

/// Starts the host. `None` where a signal interrupts the start, which may wait for a database that another host owns,
/// or compile for seconds. An interrupted start leaves files as a kill does, from which the next start recovers.
fn start(config: Config, tokio: &tokio::runtime::Runtime, signals: &mut Signals) -> anyhow::Result<Option<Server>> {
    let (report, started) = tokio::sync::oneshot::channel();
    let start = move || drop(report.send(Server::start(config, Clock::system())));
    std::thread::Builder::new().name("start".to_owned()).spawn(start).context("cannot start a thread")?;
    tokio.block_on(async {
        tokio::select! {
            started = started => started.context("the start panicked")?.map(Some),
            signal = signals.first() => {
                tracing::info!(signal, "told to end before the start was over: ending at once");
                Ok(None)
            }
        }
    })
}

/// Ends the process when an essential thread panics: its connections, scopes or promises would be left unserved, and a
/// supervisor restarts the process. The process ends before the thread unwinds, so that unwinding acknowledges nothing.
/// A panic of another thread ends its task alone.
fn end_with_essential_threads() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        if is_essential() {
            let (thread, reason) = (std::thread::current(), reason_of(panic.payload()));
            tracing::error!(thread = thread.name(), reason, "an essential thread panicked: the host ends at once");
            std::process::exit(1);
        }
    }));
}

/// Loads everything as `serve` would, without serving, and prints what would run. It writes no files, because `check`
/// often runs as another user than `serve`.
pub(super) fn check(file: Option<&Path>, overrides: Overrides) -> anyhow::Result<()> {
    let mut config = load_config(file, overrides)?;
    config.check_files()?;
    config.plugins.is_read_only = true;
    let (clock, metrics) = (Clock::system(), Metrics::new()?);
    load_tls(&config, &metrics)?;
    let outbound = start_outbound(&config, &clock)?;
    config.plugins.rooms = room_policy(&config, &metrics, outbound.as_ref().map(|outbound| (outbound, &clock)))?;
    let Budgets { user, service } = config.budgets;
    let ledger = Ledger::new(user, service, clock.clone(), metrics.clone());
    let hub = Arc::new(Hub::new(Vec::new(), config.rooms_per_connection, ledger));
    let runtime = Runtime::start(config.plugins.clone(), None, None, hub, clock, metrics)?;
    runtime.lifecycle().look_at(Box::new(StatesOnly::new(config.store.url.clone())));
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let folder = tokio.block_on(load_plugins(&runtime, &config));
    let plugins = runtime.lifecycle().reports();
    runtime.shut_down();
    print_json(&json!({
        "listen": config.listen,
        "api": config.api,
        "shards": config.shards,
        "development": config.development,
        "jwt": config.keys_in_force(),
        "plugins": plugins.iter().map(|plugin| json!({
            "name": plugin.id.name,
            "version": plugin.id.version,
            "digest": plugin.id.digest,
            "source": plugin.source,
            "state": plugin.state,
        })).collect::<Vec<_>>(),
    }))?;
    let failed =
        plugins.iter().filter(|plugin| plugin.state == PluginState::Failed).map(|plugin| plugin.id.name.clone());
    let refused = folder.refused().into_iter().map(|path| path.display().to_string());
    let wrong: Vec<String> = failed.chain(refused).collect();
    if !wrong.is_empty() {
        bail!("refused, for the reasons above: {}", wrong.join(", "));
    }
    Ok(())
}
