//! Blocks in the store, so that a restart finds them.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::state::Api;
use crate::auth::Block;
use crate::ledger::Charge;
use crate::model::{ErrorCode, Failure};
use crate::store::{ScopeRecord, Store, StoredScopes as _};

/// Blocks are stored as durable scopes of this name, which no plugin can have.
const STORED_AS: &str = "~blocks";

/// How long a call waits for the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

impl Api {
    /// Writes a block to the store, or deletes it there.
    ///
    /// # Errors
    /// Where that is not done in time. It may be done later.
    pub(super) async fn write_block(&self, id: &str, block: Option<&Block>) -> Result<(), Failure> {
        let Some(store) = self.runtime.store() else { return Ok(()) };
        let (done, written) = oneshot::channel();
        let acknowledge = Box::new(move |outcome| {
            // An error means that the caller no longer waits.
            let _ = done.send(outcome);
        });
        match block {
            Some(block) => store.put_scope(record(block), Charge::default(), Some(acknowledge), None),
            None => store.drop_scope(STORED_AS, id, 0, Some(acknowledge), None),
        }
        match timeout(STORE_TIMEOUT, written).await {
            Ok(Ok(outcome)) => Ok(outcome?),
            _ => Err(Failure::new(
                ErrorCode::FeatureUnavailable,
                "this is in force, but the store does not answer: it is written when the store can be written again, and \
                 is lost if the host ends before",
            )),
        }
    }

    /// Puts the stored blocks in force. Waits for the database.
    ///
    /// # Errors
    /// Where the database cannot be read: the host must not let blocked clients in.
    pub fn restore_blocks(&self, store: &Store) -> anyhow::Result<()> {
        for block in stored_blocks(store)? {
            drop(self.blocks.insert(block, self.clock.wall_ms()));
        }
        Ok(())
    }
}

/// All blocks that are stored.
///
/// # Errors
/// Where the database cannot be read.
pub(super) fn stored_blocks(store: &Store) -> anyhow::Result<Vec<Block>> {
    let (mut blocks, mut broken) = (Vec::new(), None);
    store
        .scopes(STORED_AS, &mut |page| {
            for record in page {
                match serde_json::from_slice(record.state.as_deref().unwrap_or_default()) {
                    Ok(block) => blocks.push(block),
                    Err(error) => broken = Some(anyhow::anyhow!("the stored block {}: {error}", record.key)),
                }
            }
            ControlFlow::Continue(())
        })
        .map_err(|failure| anyhow::anyhow!("the blocks cannot be read: {}", failure.message))?;
    broken.map_or(Ok(blocks), Err)
}

fn record(block: &Block) -> ScopeRecord {
    ScopeRecord {
        plugin: STORED_AS.to_owned(),
        key: block.id.clone(),
        version: 1,
        // A block has no map with keys that are not text, so this cannot fail.
        state: serde_json::to_vec(block).ok(),
        before: None,
        sequence: 1,
        timers: Vec::new(),
        expires_ms: block.until_ms,
        epoch: 0,
    }
}
