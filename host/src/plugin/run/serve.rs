//! The loop of a plugin thread: what comes in waits its turn, and each turn is charged to whom it was for.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::turns::TURN;
use super::worker::{Job, Worker};
use crate::plugin::event::Flow;
use crate::plugin::event::{Event, ReplyTo};
use crate::plugin::guest::sandbox::thread_cpu_time;

/// Events handled in a row before shards are woken for what came of them, and the thread looks at the clock and at whether
/// the shards keep up. Enough that a wake-up and the change of threads are a small part of each, and that a shard writes what
/// one room is sent in few pieces; few enough that nobody waits for long.
const EVENTS_IN_A_ROW: usize = 64;

impl Worker {
    pub(crate) fn run(&mut self) {
        let inbox = self.inbox.clone();
        let mut jobs = VecDeque::new();
        while !self.is_stopping() {
            let timeout = match self.turns.is_empty() {
                true => self.deadlines.next().and_then(|next| self.shared.clock.wait_for(next)),
                false => Some(Duration::ZERO),
            };
            inbox.wait(&mut jobs, timeout);
            match jobs.pop_front() {
                // Nobody waits who would have to be asked whose turn it is.
                Some(job) if jobs.is_empty() && self.turns.is_empty() => self.perform(job),
                first => first.into_iter().chain(jobs.drain(..)).for_each(|job| self.queue(job)),
            }
            self.serve();
            // Before anything else, for nobody may come to wait for what is queued.
            self.wakes.wake();
            if !self.is_stopping() {
                self.meet_deadlines();
                self.wakes.wake();
            }
        }
        // Whoever still waits for something of this thread is told that it will not come.
        inbox.close();
    }

    fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Relaxed)
    }

    /// Does what is whose turn it is, for as long as nothing else need be looked at.
    fn serve(&mut self) {
        if self.turns.is_empty() {
            return;
        }
        let (mut now, mut served) = (thread_cpu_time(), Duration::ZERO);
        for _ in 0..EVENTS_IN_A_ROW {
            // What has come in meanwhile may be whose turn it is.
            if self.is_stopping() || served > TURN {
                return;
            }
            let Some((turn, job)) = self.turns.next() else { return };
            let timer_of = if let Job::Timer { plugin, .. } = &job { Some(*plugin) } else { None };
            self.perform(job);
            let took = std::mem::replace(&mut now, thread_cpu_time());
            let took = now.saturating_sub(took);
            served += took;
            if let Some(plugin) = timer_of {
                self.charge_timer(plugin, took);
            }
            self.turns.charge(turn, took);
        }
    }

    /// Has a job wait its turn. What is no feature's work is done at once: an operator waits for nobody's backlog.
    pub(crate) fn queue(&mut self, job: Job) {
        match &job {
            // Of the process before: who comes back and asks for what became of it must find that told.
            Job::Event { event: Event::Saved { promise, .. }, .. } if promise.restored => self.perform(job),
            Job::Event { plugin, address, event, .. } => {
                let (number, scope) = (plugin.number, address.key.clone());
                self.turns.push(number, event.flow(&scope), scope, job);
            }
            Job::Acknowledged { id, .. } => {
                // An answer that nobody waits for any more is none.
                if let Some(owed) = self.owed.get(id) {
                    let (plugin, flow, scope) = (owed.plugin.number, owed.flow.clone(), owed.address.key.clone());
                    self.turns.push(plugin, flow, scope, job);
                }
            }
            Job::Gather(gather) => self.turns.push(gather.plugin.number, Flow::Queries, "".into(), job),
            _ => self.perform(job),
        }
    }

    fn perform(&mut self, job: Job) {
        match job {
            // Nobody waits for the answer to such a question any more.
            Job::Event { reply: ReplyTo::Caller { caller, .. }, event: Event::Query { .. }, .. }
                if caller.is_closed() => {}
            Job::Event { plugin, address, event, reply } => self.handle(&plugin, &address, event, reply),
            Job::Acknowledged { id, connection, answer, place } => self.acknowledged(id, connection, answer, place),
            Job::Timer { plugin, scope, name, deadline } => self.fire(plugin, &scope, &name, deadline),
            Job::Deferred { plugin, address } => self.handle_deferred(&plugin, &address),
            Job::Held { plugin, key } => self.handle_held(plugin, &key),
            Job::Gather(gather) => self.gather(gather),
            Job::Inherit { plugin, by, reply } => {
                // Whoever asked may have gone, here and below.
                let _ = reply.send(self.inheritance(plugin, &by));
            }
            Job::GiveUp { plugin, reply } => {
                let _ = reply.send(self.give_up(plugin));
            }
            Job::Loaded { plugin, key, result } => self.loaded(plugin, &key, result),
            Job::Restore { plugin, records } => self.restore(&plugin, records),
            Job::Resume { plugin } => self.resume(plugin, self.shared.clock.uptime_ms()),
            Job::Forget { plugin } => {
                // Whoever waits for what comes of these is told that it was unloaded.
                self.turns.take(plugin).for_each(|job| self.perform(job));
                self.forget(plugin);
            }
        }
    }
}
