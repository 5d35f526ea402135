//! Chat through feature and store: 50 rooms of 20 people, 2,000 messages per second, each stored before it is
//! confirmed.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use roundhouse_tests::bench::{quantile, say};
use roundhouse_tests::chat::{PER_SECOND, Seen, Shared, Tally, frame, join_all, message, wait_for_the_end, write};
use tokio::task::LocalSet;

use crate::audience::Audience;
use crate::bench::Bench;
use crate::options::Workload;
use crate::report::{CHAT_CPU, CONFIRMED_P50, CONFIRMED_P99, SHOWN_P50, SHOWN_P99};
use crate::wire::Wire;

/// Measures each build of the host over the plain protocol.
pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    if !bench.options.wants(Workload::Chat) {
        return Ok(());
    }
    let seconds = if bench.options.quick { 2 } else { 10 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for at in 0..bench.field.specs.len() {
        if bench.field.specs[at].wire != Wire::Plain {
            continue;
        }
        let audience = Audience::start(bench, at, 0)?;
        let name = audience.server.spec.name.clone();
        say(&format!("chat: {PER_SECOND} messages a second for {seconds} s"))?;
        let messages = PER_SECOND * seconds;
        let (tally, cpu) = LocalSet::new().block_on(&runtime, talk(&audience, messages))?;
        let mut tally = tally.borrow_mut();
        let missing = tally.seen.iter().flatten().filter(|seen: &&Seen| seen.shown != 1 || seen.confirmed != 1).count();
        ensure!(missing == 0, "{name}: {missing} messages were not shown and confirmed once");
        tally.shown_after.sort_unstable();
        tally.ended_after.sort_unstable();
        for (metric, of, share) in [
            (SHOWN_P50, &tally.shown_after, 0.5),
            (SHOWN_P99, &tally.shown_after, 0.99),
            (CONFIRMED_P50, &tally.ended_after, 0.5),
            (CONFIRMED_P99, &tally.ended_after, 0.99),
        ] {
            bench.report.note(metric, &name, quantile(of, share) / 1000.0);
        }
        bench.report.note(CHAT_CPU, &name, cpu.as_secs_f64() / messages as f64 * 1e6);
        audience.end(bench);
    }
    Ok(())
}

/// Lets all members write `messages` messages, and waits for all outcomes. Also returns the host's CPU time.
async fn talk(audience: &Audience, messages: usize) -> anyhow::Result<(Shared, Duration)> {
    let (process, ws) = (&audience.server.process, format!("ws://{}", audience.server.address));
    let tally: Shared = Rc::new(RefCell::new(Tally::new(messages)));
    let members = join_all(&ws, &tally).await?;
    let (began, before) = (Instant::now(), process.cpu()?);
    tally.borrow_mut().began = began;
    for n in 0..messages {
        let due = Duration::from_secs(1) / PER_SECOND as u32 * n as u32;
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        let sent = began.elapsed().as_micros() as u32;
        write(&members[message(n).2].socket, &frame(n, sent)).await?;
    }
    wait_for_the_end(&tally).await?;
    Ok((tally, process.cpu()?.saturating_sub(before)))
}
