//! Blocks on all nodes of a cluster: each node tells the others, and all read them again from the database they share, in case
//! that one was away.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::block_store::stored_blocks;
use super::state::Api;
use crate::auth::Block;
use crate::model::{ErrorCode, Failure};
use crate::plugin::Blocking;

/// How often the blocks are read again.
const READ_EVERY: Duration = Duration::from_secs(30);

/// A change of the blocks, for other nodes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum BlockChange {
    Insert(Block),
    Lift(String),
}

/// Makes the changes of other nodes.
#[derive(Debug)]
struct Changes(Weak<Api>);

impl Blocking for Changes {
    fn change(&self, change: String) -> BoxFuture<'static, usize> {
        let (Some(api), Ok(change)) = (self.0.upgrade(), serde_json::from_str(&change)) else {
            return Box::pin(std::future::ready(0));
        };
        Box::pin(async move { api.make(change).await })
    }
}

impl Api {
    /// Makes the block changes of other nodes from now on.
    pub fn follow_blocks(self: &Arc<Self>) {
        let Some(cluster) = &self.cluster else { return };
        self.runtime.set_blocking(Box::new(Changes(Arc::downgrade(self))));
        let api = Arc::downgrade(self);
        cluster.spawn(async move {
            let mut seen = HashSet::new();
            loop {
                let Some(api) = api.upgrade() else { return };
                api.read_again(&mut seen).await;
                tokio::time::sleep(READ_EVERY).await;
            }
        });
    }

    /// Has the other nodes make a change. Returns how many connections that has closed there.
    ///
    /// # Errors
    /// Where a node does not answer: it makes the change when it reads the database again.
    pub(super) async fn tell_nodes(&self, change: BlockChange) -> Result<usize, Failure> {
        // A change has no map with keys that are not text, so this cannot fail.
        let change = serde_json::to_string(&change).unwrap_or_default();
        self.runtime.block_on_others(change).await.map_err(|silent| {
            let seconds = READ_EVERY.as_secs();
            let message = format!("this is done here, and on each other node within {seconds} s: {}", silent.message);
            Failure::new(ErrorCode::FeatureUnavailable, message)
        })
    }

    async fn make(&self, change: BlockChange) -> usize {
        let now_ms = self.clock.wall_ms();
        match change {
            BlockChange::Insert(block) if self.blocks.has(&block.id) => 0,
            BlockChange::Insert(block) => match self.blocks.insert(block, now_ms) {
                Ok(block) => self.end_blocked(&block).await,
                Err(full) => {
                    tracing::error!("a block of another node is not in force here: {full}");
                    0
                }
            },
            BlockChange::Lift(id) => {
                self.blocks.remove(&id, now_ms);
                0
            }
        }
    }

    /// Reads the blocks again. `seen` are those that were there before: what is gone of them was lifted.
    async fn read_again(self: Arc<Self>, seen: &mut HashSet<String>) {
        let api = self.clone();
        let begun_ms = self.clock.wall_ms();
        let read = move || api.runtime.store().map(stored_blocks).transpose();
        let stored = match tokio::task::spawn_blocking(read).await {
            Ok(Ok(Some(stored))) => stored,
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(error)) => return tracing::warn!("the blocks of other nodes cannot be read: {error:#}"),
        };
        let ids: HashSet<_> = stored.iter().map(|block| block.id.clone()).collect();
        for gone in seen.difference(&ids).cloned().collect::<Vec<_>>() {
            self.make(BlockChange::Lift(gone)).await;
        }
        for block in stored.into_iter().filter(|block| begun_ms < block.until_ms) {
            // One that was lifted while they were read would come back: it is not new, and not in force.
            if !seen.contains(&block.id) {
                self.make(BlockChange::Insert(block)).await;
            }
        }
        *seen = ids;
    }
}
