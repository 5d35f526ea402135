//! The thread of a shard, and its loop.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc;
use tokio::task::{LocalSet, yield_now};

use super::parts::Shard;
use crate::conn::shared::Shared;
use crate::conn::state::ReadySockets;
use crate::hub::{ShardCommand, ShardQueue};
use crate::model::spawn_essential;

/// The thread of a shard.
#[derive(Debug)]
pub struct ShardThread {
    queue: ShardQueue,
    thread: JoinHandle<()>,
}

impl ShardThread {
    /// Starts the shard of this index in `shared.hub`.
    ///
    /// # Errors
    /// Where the thread or its runtime cannot be created.
    pub fn start(index: usize, shared: Shared) -> io::Result<Self> {
        let queue = shared.hub.shards()[index].clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sockets, registry) = {
            let _entered = runtime.enter();
            ReadySockets::new()?
        };
        let thread = spawn_essential(thread::Builder::new().name(format!("shard-{index}")), move || {
            let shard = Rc::new(Shard::new(index, shared, registry));
            LocalSet::new().block_on(&runtime, shard.run(sockets));
        })?;
        Ok(Self { queue, thread })
    }

    /// Begins to close the connections of the shard, spread evenly over a range of time in milliseconds of uptime.
    /// `working` is dropped when all are closed.
    pub fn begin_drain(&self, over: Range<u64>, working: mpsc::Sender<Infallible>) {
        self.queue.push(ShardCommand::Drain { over, working });
    }

    /// Begins to close all connections of the shard, and to end it.
    pub fn begin_shutdown(&self) {
        self.queue.push(ShardCommand::Shutdown);
    }

    /// Waits until the shard has ended, within [`crate::conn::ConnConfig::shutdown_timeout`] of
    /// [`ShardThread::begin_shutdown`].
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("a shard thread panicked");
        }
    }
}

impl Shard {
    async fn run(self: Rc<Self>, mut sockets: ReadySockets) {
        let (mut commands, mut eio_commands) = (VecDeque::new(), VecDeque::new());
        let queue = self.queue().clone();
        let eio_sessions = self.shared().eio_sessions.clone();
        let clock = self.shared().clock.clone();
        let mut timer = pin!(self.timers().due(&clock));
        while !(self.is_stopping() && self.transports().is_empty() && !self.shutdown().has_http()) {
            self.sign_ins().begin_turn();
            tokio::select! {
                () = queue.receive(&mut commands), if commands.is_empty() => {}
                () = eio_sessions.inbox(self.index()).receive(&mut eio_commands) => {
                    for command in eio_commands.drain(..) {
                        self.run_eio_command(command);
                        // A request may bring many packets.
                        self.flush_dirty();
                        yield_now().await;
                    }
                }
                ready = sockets.ready() => match ready {
                    Ok(ready) => self.serve_ready(ready),
                    Err(error) => tracing::error!(%error, "the kernel does not say which sockets are ready"),
                },
                () = yield_now(), if !commands.is_empty() || self.poller().has_unread() => {}
                () = &mut timer => {
                    timer.set(self.timers().due(&clock));
                    if self.run_due_timers() {
                        yield_now().await;
                    }
                }
            }
            if self.poller().has_unread() {
                self.serve_unread();
            }
            if !commands.is_empty() {
                self.run_commands(&mut commands);
            }
        }
        queue.close();
        eio_sessions.inbox(self.index()).close();
    }
}
