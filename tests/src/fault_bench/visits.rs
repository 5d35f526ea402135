//! The visits of a page: it connects again and again, until it is closed.

use std::time::Duration;

use super::connection::Connection;
use super::page::Page;

impl Page {
    /// Does what the page is told, until the run is over.
    pub(super) async fn run(mut self) {
        loop {
            if !self.is_open {
                let Some(command) = self.commands.recv().await else { return };
                self.apply(command);
                continue;
            }
            let wait = Duration::from_millis(100 + self.random.below(300) as u64);
            match self.connect().await {
                Ok((wire, node)) => {
                    if Connection::new(&mut self, wire, node).run().await.is_none() {
                        return;
                    }
                }
                Err(why) => self.is_waiting(format!("cannot connect: {why}")),
            }
            tokio::time::sleep(wait).await;
            while let Ok(command) = self.commands.try_recv() {
                self.apply(command);
            }
        }
    }
}
