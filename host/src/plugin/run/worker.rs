//! A plugin thread: jobs from its inbox wait their turn, and the time of each turn is charged to the job's flow and
//! scope.
//!
//! The thread handles the events of its scopes strictly one after another. Its loop is here; `admit`, `invoke` and
//! `commit` handle an event.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::deadlines::{BUSY_MS, Due};
use super::job::{Envelope, Job};
use super::shared::Shared;
use super::state::{RollBack, ThreadState};
use super::turns::MAX_TURN;
use crate::model::{Mailbox, spawn_essential, thread_cpu_time};
use crate::plugin::event::{AckMissing, Event, Flow, ReplyTo};

/// Jobs performed in a row before shards are woken for their effects, and the thread checks the clock and the shards'
/// queues. Enough that a wake-up and the change of threads are a small part of each, and that a shard writes the
/// deliveries to one room in few pieces; few enough that no client waits for long.
const EVENTS_IN_A_ROW: usize = 64;

/// A plugin thread.
#[derive(Debug)]
pub(crate) struct Worker {
    state: ThreadState,
}

impl Worker {
    /// Starts the thread of this index.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start(
        index: usize,
        shared: Arc<Shared>,
        inbox: Arc<Mailbox<Job>>,
        roll_back: RollBack,
    ) -> io::Result<JoinHandle<()>> {
        shared.clock.on_move({
            let inbox = inbox.clone();
            move || inbox.interrupt()
        });
        let mut worker = Self { state: ThreadState::new(index, shared, inbox, roll_back) };
        // Ample room for the host's own frames around a component's stack.
        let thread = thread::Builder::new().name(format!("plugin-{index}")).stack_size(4 * 1024 * 1024);
        spawn_essential(thread, move || worker.run())
    }

    fn run(&mut self) {
        let inbox = self.state.inbox.clone();
        let mut jobs = VecDeque::new();
        while !self.is_stopping() {
            let timeout = match self.state.turns.is_empty() {
                true => self.state.deadlines.next().and_then(|next| self.state.shared.clock.wait_for(next)),
                false => Some(Duration::ZERO),
            };
            inbox.wait(&mut jobs, timeout);
            match jobs.pop_front() {
                // A single job needs no queue.
                Some(job) if jobs.is_empty() && self.state.turns.is_empty() => self.perform(job),
                first => first.into_iter().chain(jobs.drain(..)).for_each(|job| self.queue(job)),
            }
            self.serve();
            // The shards are woken now, because this thread may wait for its next job for long.
            self.state.flush();
            self.state.wakes.wake();
            if !self.is_stopping() {
                self.run_due();
                self.state.flush();
                self.state.wakes.wake();
            }
        }
        // Drops the queued jobs: callers that wait for an answer from this thread learn that none will come.
        inbox.close();
    }

    fn is_stopping(&self) -> bool {
        self.state.shared.stopping.load(Ordering::Relaxed)
    }

    /// Performs jobs in their turns, until it is time to check the inbox, the shards and the deadlines.
    fn serve(&mut self) {
        if self.state.turns.is_empty() {
            return;
        }
        let (mut now, mut served) = (thread_cpu_time(), Duration::ZERO);
        for _ in 0..EVENTS_IN_A_ROW {
            // A job in the inbox may have the next turn.
            if self.is_stopping() || served > MAX_TURN {
                return;
            }
            let Some((turn, job)) = self.state.turns.next() else { return };
            let timer_of = if let Job::Timer { plugin, .. } = &job { Some(*plugin) } else { None };
            self.perform(job);
            let took = std::mem::replace(&mut now, thread_cpu_time());
            let took = now.saturating_sub(took);
            served += took;
            if let Some(plugin) = timer_of {
                self.state.charge_timer(plugin, took);
            }
            self.state.turns.charge(turn, took);
        }
    }

    /// Queues a job for its turn. Jobs that call no feature are performed at once: an operator does not wait behind
    /// events.
    fn queue(&mut self, job: Job) {
        match &job {
            // The outcome of a promise of the previous process: a client that comes back and asks for the outcome must
            // find it.
            Job::Event(Envelope { event: Event::Saved { promise, .. }, .. }) if promise.restored => self.perform(job),
            Job::Event(Envelope { plugin, address, event, .. }) => {
                let (number, scope) = (plugin.number, address.key.clone());
                self.state.turns.push(number, event.flow(&scope), scope, job);
            }
            Job::Acknowledged { id, .. } => {
                // An answer that is no longer pending is dropped.
                if let Some(ack) = self.state.acks.get(*id) {
                    let (plugin, flow, scope) = (ack.plugin.number, ack.flow.clone(), ack.address.key.clone());
                    self.state.turns.push(plugin, flow, scope, job);
                }
            }
            Job::Gather(gather) => self.state.turns.push(gather.plugin.number, Flow::Queries, "".into(), job),
            _ => self.perform(job),
        }
    }

    fn perform(&mut self, job: Job) {
        let state = &mut self.state;
        match job {
            // The caller of this query has gone.
            Job::Event(Envelope { reply: ReplyTo::Caller { caller, .. }, event: Event::Query { .. }, .. })
                if caller.is_closed() => {}
            Job::Flush(done) => {
                // A thread that is to stop serves nothing.
                while !self.state.turns.is_empty() && !self.is_stopping() {
                    self.serve();
                }
                self.state.flush();
                // The caller waits for a second at most.
                let _ = done.send(());
            }
            Job::News(news) => state.hear(news),
            Job::Event(envelope) => state.handle(envelope),
            Job::Acknowledged { id, connection, answer, place } => state.acknowledged(id, connection, answer, place),
            Job::Timer { plugin, scope, name, deadline } => {
                if let Some(envelope) = state.take_timer(plugin, &scope, &name, deadline) {
                    state.handle(envelope);
                }
            }
            Job::Deferred { plugin, address } => {
                if let Some(scope) = state.scopes.get_mut(plugin.number, &address.key) {
                    scope.has_turn = false;
                    if scope.has_deferred() {
                        state.handle_deferred(&plugin, &address);
                    }
                }
            }
            Job::AfterLoad { plugin, key } => state.handle_awaiting_load(plugin, &key),
            Job::Gather(gather) => state.gather(gather),
            Job::FindStates { plugin, by, reply } => {
                // The request may have ended, for this job and the next.
                let _ = reply.send(state.states_to_migrate(plugin, &by));
            }
            Job::GiveUp { plugin, reply } => {
                let _ = reply.send(state.give_up_states(plugin));
            }
            Job::Recent { plugin, scope, reply } => {
                let recent = state.recent.get(&plugin).map(|recent| recent.calls(scope.as_deref()));
                let _ = reply.send(recent.unwrap_or_default());
            }
            Job::View { plugin, key, reply } => {
                let _ = reply.send(state.view_scope(plugin, &key));
            }
            Job::ScopeRead { plugin, key, result } => state.scope_read(plugin, &key, result),
            Job::Restore { plugin, records } => state.restore(&plugin, records),
            Job::Resume { plugin } => {
                // They may be of generations that are not needed any more.
                state.instances.drop_others(plugin);
                state.adopt_orphans();
                state.resume(plugin, state.shared.clock.uptime_ms());
                state.queue_migration(plugin);
            }
            Job::Migrate(migration) => state.migrate_rest(migration),
            Job::Forget { plugin, sets_aside } => {
                if sets_aside {
                    state.flush();
                    state.set_aside(plugin);
                }
                // Each of these jobs is answered, because the plugin is unloaded.
                state.turns.take(plugin).for_each(|job| self.perform(job));
                self.state.forget(plugin);
            }
        }
    }

    /// Performs the work that is due, and waits until the shards keep up.
    fn run_due(&mut self) {
        self.state.wait_for_shards();
        let now = self.state.shared.clock.uptime_ms();
        while let Some(due) = self.state.deadlines.pop_due(now) {
            match due {
                Due::Timer { plugin, scope, name } => self.state.queue_timer(plugin, scope, name, now),
                Due::Idle { plugin, scope } => self.state.expire(plugin, &scope, now),
                Due::Acknowledgement(id) if !self.state.is_ready_for_ack(id) => {
                    self.state.put_off_ack(id, now + BUSY_MS);
                }
                Due::Acknowledgement(id) => {
                    if let Some(connection) = self.state.acks.get(id).map(|ack| ack.connection) {
                        let answer = Err(AckMissing::Timeout);
                        self.queue(Job::Acknowledged { id, connection, answer, place: None });
                    }
                }
                Due::Resume { plugin } => self.state.resume(plugin, now),
                Due::Migrate { plugin } => self.state.go_on_migrating(plugin),
                Due::Waiting => self.state.refuse_waiting(),
                Due::Load { plugin, scope } => self.state.load_again(plugin, &scope),
            }
            self.state.wait_for_shards();
        }
    }
}
