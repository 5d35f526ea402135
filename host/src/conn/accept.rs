//! New connections: accepted on a thread of their own and handed to the shard that has the fewest.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::watch;

use crate::hub::{Hub, ShardCommand};

/// How long to leave a listener alone that fails to accept, as it does when the process is out of file descriptors.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

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
    /// Where the thread or its runtime cannot be made.
    pub fn start(listener: TcpListener, hub: Arc<Hub>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (stop, mut stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("accept".to_owned()).spawn(move || {
            runtime.block_on(async {
                let listener = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => return tracing::error!(%error, "cannot listen for clients"),
                };
                loop {
                    tokio::select! {
                        accepted = listener.accept() => match accepted.and_then(|(socket, _)| socket.into_std()) {
                            Ok(socket) => hand_over(&hub, socket),
                            Err(error) => {
                                tracing::warn!(%error, "cannot accept a connection");
                                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                            }
                        },
                        _ = stopped.changed() => return,
                    }
                }
            });
        })?;
        Ok(Self { stop, thread })
    }

    /// Accepts no more, and closes the listener.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the accepting thread panicked");
        }
    }
}

fn hand_over(hub: &Hub, socket: std::net::TcpStream) {
    if let Some(shard) = hub.shards().iter().min_by_key(|shard| shard.connections()) {
        shard.count(1);
        shard.push(ShardCommand::Accept(socket));
    }
}
