//! Questions to all scopes of a plugin: some are asked in each turn, so that nothing else waits for all of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use roundhouse_contract::ScopeAddress;
use tokio::sync::oneshot;

use super::invoke::{Done, Handled};
use super::turns::TURN;
use super::worker::{Job, Worker};
use crate::model::Payload;
use crate::plugin::event::Event;
use crate::plugin::event::Flow;
use crate::plugin::event::senders::Reservation;
use crate::plugin::load::catalogue::Plugin;

/// Answers of one thread, in bytes, at most: what one call can read within its deadline.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// What was answered, and how many scopes were not asked.
pub(crate) type Answers = (Vec<Box<str>>, u32);

/// A question to every scope of a plugin.
#[derive(Debug)]
pub(crate) struct Gather {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) name: Box<str>,
    pub(crate) data: Box<str>,
    /// How many are asked, at most.
    pub(crate) limit: usize,
    pub(crate) reply: oneshot::Sender<Answers>,
    pub(crate) progress: Option<Progress>,
    /// Its place among what waits for the plugin, which it has until it is answered.
    pub(crate) place: Arc<Reservation>,
}

/// How far it has come.
#[derive(Debug)]
pub(crate) struct Progress {
    left: VecDeque<ScopeAddress>,
    answers: Vec<Box<str>>,
    bytes: usize,
    n_scopes: usize,
}

impl Worker {
    /// Asks some scopes, and the others in later turns.
    pub(crate) fn gather(&mut self, mut gather: Gather) {
        if gather.reply.is_closed() {
            // Nobody waits for it any more.
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
            if let Handled::Done(Done { reply, .. }) = self.handle_now(&plugin, &address, &event) {
                let answer = reply.unwrap_or_else(Payload::empty);
                progress.bytes += answer.first().len();
                progress.answers.push(answer.first().into());
            }
            if gather.reply.is_closed() {
                return;
            }
            if started.elapsed() >= TURN && !progress.left.is_empty() {
                gather.progress = Some(progress);
                return self.turns.push(plugin.number, Flow::Queries, "".into(), Job::Gather(gather));
            }
        }
        let omitted = progress.n_scopes - progress.answers.len();
        // Whoever asked may have gone.
        let _ = gather.reply.send((progress.answers, omitted as u32));
    }

    fn begin_gathering(&self, gather: &Gather) -> Progress {
        let number = gather.plugin.number;
        let loaded = || self.scopes.of(number).filter(|scope| scope.loading.is_none());
        // Where not all can be asked, those that somebody takes part in say more than those that are only remembered.
        let (used, others) = (loaded().filter(|scope| scope.is_used()), loaded().filter(|scope| !scope.is_used()));
        let left = used.chain(others).take(gather.limit).map(|scope| scope.address.clone()).collect();
        Progress { left, answers: Vec::new(), bytes: 0, n_scopes: self.scopes.of(number).count() }
    }
}
