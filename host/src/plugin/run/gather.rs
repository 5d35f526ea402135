//! Queries to all scopes of a plugin: each turn asks some scopes, so that no other event waits for all of them.

use std::time::Instant;

use super::commit::Done;
use super::invoke::Handled;
use super::job::{Envelope, Gather, Job, Progress};
use super::state::{ThreadState, Visit};
use super::turns::MAX_TURN;
use crate::model::Payload;
use crate::plugin::event::{Event, Flow};

/// The most bytes of one thread's answers: as much as one call can read within its deadline.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

impl ThreadState {
    /// Asks scopes for at most a turn, and the others in later turns.
    pub(super) fn gather(&mut self, mut gather: Gather) {
        if gather.reply.is_closed() {
            return;
        }
        let mut progress = gather.progress.take().unwrap_or_else(|| self.begin_gathering(&gather));
        let (plugin, started) = (gather.plugin.clone(), Instant::now());
        while let Some(address) = progress.left.pop_front() {
            let is_paused = plugin.health.paused_until(self.shared.clock.uptime_ms()).is_some();
            if plugin.is_unloaded() || is_paused || progress.bytes >= MAX_ANSWER_BYTES {
                break;
            }
            let (name, data) = (gather.name.clone(), gather.data.clone());
            let event = Event::Query { name, data, place: gather.place.clone() };
            let place = self.scopes.find(plugin.number, &address.key);
            let envelope = Envelope::without_reply(plugin.clone(), address, event);
            if let Handled::Done(Done { reply, .. }) = self.invoke(&mut Visit::new(&envelope, place)) {
                let answer = reply.unwrap_or_else(Payload::empty);
                progress.bytes += answer.first().len();
                progress.answers.push(answer.first().into());
            }
            if gather.reply.is_closed() {
                return;
            }
            if started.elapsed() >= MAX_TURN && !progress.left.is_empty() {
                gather.progress = Some(progress);
                return self.turns.push(plugin.number, Flow::Queries, "".into(), Job::Gather(gather));
            }
        }
        let omitted = progress.n_scopes - progress.answers.len();
        // The caller may have gone.
        let _ = gather.reply.send((progress.answers, omitted as u32));
    }

    fn begin_gathering(&self, gather: &Gather) -> Progress {
        let number = gather.plugin.number;
        let loaded = || self.scopes.of(number).filter(|scope| scope.loading.is_none());
        // If not all scopes can be asked, those in use come first: their answers matter more.
        let (used, others) = (loaded().filter(|scope| scope.is_used()), loaded().filter(|scope| !scope.is_used()));
        let left = used.chain(others).take(gather.limit).map(|scope| scope.address.clone()).collect();
        Progress { left, answers: Vec::new(), bytes: 0, n_scopes: self.scopes.of(number).count() }
    }
}
