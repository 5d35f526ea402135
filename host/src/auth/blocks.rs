//! Blocks: users, sessions and tokens that operators keep out until a time.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use prometheus::IntGauge;
use serde::{Deserialize, Serialize};

use super::session::Session;

/// The most blocks in force: some dozens of megabytes.
pub const MAX_BLOCKS: usize = 100_000;

/// Whom a block keeps out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BlockSubject {
    /// A user, by id.
    User(String),
    /// A session, by the token's `sid`, or by the id that the session endpoint gives.
    SessionId(String),
    /// A token, by its `jti`.
    TokenId(String),
}

/// A block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The block's id. Ids are in the order of creation.
    pub id: String,
    /// Whom it keeps out.
    pub subject: BlockSubject,
    /// Only credentials issued before this time are kept out, and those that do not say when they were issued; in
    /// milliseconds since 1970.
    pub issued_before_ms: Option<u64>,
    /// Its end, in milliseconds since 1970.
    pub until_ms: u64,
    /// The reason, for operators.
    pub reason: Option<String>,
    /// The name of the API key that created it.
    pub created_by: String,
    /// Its creation, in milliseconds since 1970.
    pub created_ms: u64,
}

impl Block {
    /// Whether the block keeps this session out at a time in milliseconds since 1970.
    pub fn applies_to(&self, session: &Session, now_ms: u64) -> bool {
        let ids = session.credential.as_deref();
        let is_subject = match &self.subject {
            BlockSubject::User(user) => **user == *session.identity.user,
            BlockSubject::SessionId(id) => ids.and_then(|ids| ids.session_id.as_deref()) == Some(id),
            BlockSubject::TokenId(id) => ids.and_then(|ids| ids.token_id.as_deref()) == Some(id),
        };
        let issued_ms = ids.and_then(|ids| ids.issued_ms);
        let is_issued_before =
            self.issued_before_ms.is_none_or(|before| issued_ms.is_none_or(|issued_ms| issued_ms < before));
        is_subject && is_issued_before && now_ms < self.until_ms
    }

    /// The refusal of a client, which names neither the reason nor the operator.
    pub fn refusal(&self) -> String {
        let what = match &self.subject {
            BlockSubject::User(_) if self.issued_before_ms.is_some() => "the user's older sign-ins are",
            BlockSubject::User(_) => "the user is",
            BlockSubject::SessionId(_) => "the session is",
            BlockSubject::TokenId(_) => "the token is",
        };
        let until = std::time::UNIX_EPOCH + std::time::Duration::from_millis(self.until_ms);
        format!("{what} blocked until {}", humantime::format_rfc3339_seconds(until))
    }
}

/// All blocks in force. Clones share them.
#[derive(Debug, Clone)]
pub struct Blocks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Locked for lookups at authentication, and for changes.
    state: RwLock<State>,
    in_force: IntGauge,
}

#[derive(Debug, Default)]
struct State {
    by_id: BTreeMap<String, Arc<Block>>,
    by_subject: HashMap<BlockSubject, Vec<Arc<Block>>>,
}

/// There are [`MAX_BLOCKS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {MAX_BLOCKS} blocks, which is the limit: lift some")]
pub struct TooManyBlocks;

impl Blocks {
    /// No blocks. `in_force` shows their number.
    pub fn new(in_force: IntGauge) -> Self {
        Self(Arc::new(Inner { state: RwLock::default(), in_force }))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a block in force. Where there are too many, expired ones are dropped first.
    ///
    /// # Errors
    /// Where there are [`MAX_BLOCKS`] in force.
    pub fn insert(&self, block: Block, now_ms: u64) -> Result<Arc<Block>, TooManyBlocks> {
        let block = Arc::new(block);
        let state = &mut *self.write();
        if state.by_id.len() >= MAX_BLOCKS {
            state.drop_expired(now_ms);
        }
        if state.by_id.len() >= MAX_BLOCKS {
            return Err(TooManyBlocks);
        }
        state.by_subject.entry(block.subject.clone()).or_default().push(block.clone());
        state.by_id.insert(block.id.clone(), block.clone());
        self.0.in_force.set(state.by_id.len() as i64);
        Ok(block)
    }

    /// Whether a block of this id is in force or has only just expired.
    pub fn has(&self, id: &str) -> bool {
        self.read().by_id.contains_key(id)
    }

    /// Lifts a block. Returns it, if it was in force.
    pub fn remove(&self, id: &str, now_ms: u64) -> Option<Arc<Block>> {
        let state = &mut *self.write();
        let block = state.remove(id);
        self.0.in_force.set(state.by_id.len() as i64);
        block.filter(|block| now_ms < block.until_ms)
    }

    /// At most `limit` blocks in force after the id `after`, in the order of creation.
    pub fn page(&self, after: Option<&str>, limit: usize, now_ms: u64) -> Vec<Arc<Block>> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.read();
        let blocks = state.by_id.range::<str, _>((after, Bound::Unbounded)).map(|(_, block)| block);
        blocks.filter(|block| now_ms < block.until_ms).take(limit).cloned().collect()
    }

    /// The block that keeps a session out, if any.
    pub fn find(&self, session: &Session, now_ms: u64) -> Option<Arc<Block>> {
        let state = self.read();
        if state.by_id.is_empty() {
            return None;
        }
        let ids = session.credential.as_deref();
        let subjects = [
            Some(BlockSubject::User(session.identity.user.to_string())),
            ids.and_then(|ids| ids.session_id.as_deref()).map(|id| BlockSubject::SessionId(id.to_owned())),
            ids.and_then(|ids| ids.token_id.as_deref()).map(|id| BlockSubject::TokenId(id.to_owned())),
        ];
        let mut blocks = subjects.iter().flatten().filter_map(|subject| state.by_subject.get(subject)).flatten();
        blocks.find(|block| block.applies_to(session, now_ms)).cloned()
    }
}

impl State {
    fn remove(&mut self, id: &str) -> Option<Arc<Block>> {
        let block = self.by_id.remove(id)?;
        if let Some(blocks) = self.by_subject.get_mut(&block.subject) {
            blocks.retain(|other| other.id != id);
            if blocks.is_empty() {
                self.by_subject.remove(&block.subject);
            }
        }
        Some(block)
    }

    fn drop_expired(&mut self, now_ms: u64) {
        let expired: Vec<String> =
            self.by_id.values().filter(|block| block.until_ms <= now_ms).map(|block| block.id.clone()).collect();
        for id in expired {
            self.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::session::CredentialIds;
    use super::*;
    use crate::model::Identity;

    fn blocks() -> Blocks {
        Blocks::new(IntGauge::new("a", "a").unwrap())
    }

    fn block(id: &str, subject: BlockSubject) -> Block {
        let (reason, created_by) = (None, "ops".to_owned());
        Block { id: id.to_owned(), subject, issued_before_ms: None, until_ms: 1000, reason, created_by, created_ms: 0 }
    }

    fn session(user: &str, issued_ms: Option<u64>) -> Session {
        let ids =
            CredentialIds { issued_ms, token_id: Some("t".into()), session_id: Some("s".into()), cookie_session: None };
        let identity = Arc::new(Identity::of_user(user));
        Session { identity, expires_ms: None, credential: Some(Arc::new(ids)), is_anonymous: false }
    }

    #[test]
    fn subject_is_kept_out_until_the_end() {
        for subject in
            [BlockSubject::User("ana".into()), BlockSubject::SessionId("s".into()), BlockSubject::TokenId("t".into())]
        {
            let blocks = blocks();
            blocks.insert(block("1", subject.clone()), 0).unwrap();
            assert!(blocks.find(&session("ana", None), 999).is_some(), "{subject:?}");
            assert!(blocks.find(&session("ana", None), 1000).is_none(), "{subject:?}");
        }
        let blocks = blocks();
        for subject in
            [BlockSubject::User("s".into()), BlockSubject::SessionId("t".into()), BlockSubject::TokenId("ana".into())]
        {
            blocks.insert(block("1", subject), 0).unwrap();
        }
        assert!(blocks.find(&session("ana", None), 0).is_none(), "ids of different kinds are not mixed up");
    }

    #[test]
    fn only_earlier_credentials_are_kept_out() {
        let blocks = blocks();
        let subject = BlockSubject::User("ana".into());
        blocks.insert(Block { issued_before_ms: Some(500), ..block("1", subject) }, 0).unwrap();
        assert!(blocks.find(&session("ana", Some(499)), 0).is_some());
        assert!(blocks.find(&session("ana", None), 0).is_some(), "it may be older");
        assert!(blocks.find(&session("ana", Some(500)), 0).is_none());
    }

    #[test]
    fn lifted_block_leaves_others_of_its_subject() {
        let blocks = blocks();
        let subject = BlockSubject::User("ana".into());
        blocks.insert(block("1", subject.clone()), 0).unwrap();
        blocks.insert(Block { until_ms: 2000, ..block("2", subject) }, 0).unwrap();
        assert!(blocks.remove("1", 0).is_some() && blocks.remove("1", 0).is_none());
        assert!(blocks.find(&session("ana", None), 1500).is_some());
        assert!(blocks.remove("2", 2000).is_none(), "it had expired");
        assert_eq!(blocks.0.in_force.get(), 0);
    }

    #[test]
    fn pages_are_in_order_and_without_expired_blocks() {
        let blocks = blocks();
        for (id, until_ms) in [("3", 1000), ("1", 1000), ("2", 10), ("4", 1000)] {
            blocks.insert(Block { until_ms, ..block(id, BlockSubject::TokenId(id.into())) }, 0).unwrap();
        }
        let page = |after, limit| -> Vec<String> {
            blocks.page(after, limit, 10).iter().map(|block| block.id.clone()).collect()
        };
        assert_eq!(page(None, 2), ["1", "3"]);
        assert_eq!(page(Some("3"), 2), ["4"]);
    }

    #[test]
    fn expired_blocks_make_room() {
        let blocks = blocks();
        for id in 0..MAX_BLOCKS {
            blocks.insert(block(&id.to_string(), BlockSubject::User(id.to_string())), 0).unwrap();
        }
        let one_more = || block("more", BlockSubject::User("more".into()));
        assert_eq!(blocks.insert(one_more(), 0), Err(TooManyBlocks));
        assert!(blocks.insert(one_more(), 1000).is_ok());
        assert_eq!(blocks.0.in_force.get(), 1);
    }
}
