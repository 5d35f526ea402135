//! New connections: accepted on a dedicated thread and handed to the shard with the fewest.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::net::TcpStream;
use tokio::sync::watch;

use super::overload::{Overload, OverloadAnswers};
use crate::hub::{Hub, ShardCommand};
use crate::metrics::Metrics;
use crate::model::LogLimit;
use crate::net::{Descriptors, accept_failed};

/// The thread that accepts connections.
#[derive(Debug)]
pub struct Acceptor {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Acceptor {
    /// Starts accepting from `listener`.
    ///
    /// # Errors
    /// Where the thread or its runtime cannot be created.
    pub fn start(listener: TcpListener, hub: Arc<Hub>, metrics: Metrics, answers: OverloadAnswers) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (stop, mut stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("accept".to_owned()).spawn(move || {
            runtime.block_on(async {
                let listener = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => return tracing::error!(%error, "cannot listen for clients"),
                };
                let descriptors = Descriptors::of_process();
                let mut overload = Overload::new(metrics, answers);
                let mut failures = LogLimit::default();
                loop {
                    tokio::select! {
                        accepted = listener.accept() => match accepted {
                            Ok((socket, _)) if descriptors.is_reserve(&socket) => overload.answer(socket),
                            Ok((socket, _)) => hand_over(&hub, socket),
                            Err(error) => accept_failed(&error, "a client", &mut failures).await,
                        },
                        _ = stopped.changed() => return,
                    }
                }
            });
        })?;
        Ok(Self { stop, thread })
    }

    /// Stops accepting, and closes the listener.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the accepting thread panicked");
        }
    }
}

fn hand_over(hub: &Hub, socket: TcpStream) {
    let socket = match socket.into_std() {
        Ok(socket) => socket,
        Err(error) => return tracing::debug!(%error, "a connection was gone before it was handed over"),
    };
    if let Some(shard) = hub.shards().iter().min_by_key(|shard| shard.connections()) {
        shard.count(1);
        shard.push(ShardCommand::Accept(socket));
    }
}
