//! Blocks: users, sessions and tokens that operators keep out until a time.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;

use super::block_changes::BlockChange;
use super::body::{self, MAX_BODY_BYTES, Object, given, given_integer, parse};
use super::directory::{MAX_LIMIT, PageQuery};
use super::route::OperatorCall;
use super::schema::{BlockId, Id, MAX_REASON_CHARS, MAX_TIME_MS, MIN_TIME_MS, Reason, Time};
use super::state::Api;
use crate::auth::{Block, BlockSubject};
use crate::hub::ShardCommand;
use crate::model::{ErrorCode, Failure, is_valid_id};
use crate::net::response::{Answer, json};

/// How long a call waits for the shards to close connections.
const SHARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Ten years, in seconds.
pub(super) const MAX_SECONDS: u64 = 10 * 366 * 24 * 3600;

/// A block, as an operator asks for it: one of `user`, `sessionId` and `tokenId`, and one of `until` and `forSeconds`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("allOf" = [
    { "oneOf": [{ "required": ["user"] }, { "required": ["sessionId"] }, { "required": ["tokenId"] }] },
    { "oneOf": [{ "required": ["until"] }, { "required": ["forSeconds"] }] },
    { "anyOf": [{ "required": ["user"] }, { "not": { "required": ["issuedBefore"] } }] },
]))]
pub(super) struct NewBlock {
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Id")]
    user: Option<String>,
    /// The `sid` of tokens, or the id that the session endpoint gives.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Id")]
    session_id: Option<String>,
    /// The `jti` of a token.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Id")]
    token_id: Option<String>,
    /// Only the user's credentials that were issued before this time (`iat`) are kept out, and those that do not say when
    /// they were issued; in epoch milliseconds.
    #[serde(deserialize_with = "given_integer")]
    #[schemars(with = "Time")]
    issued_before: Option<u64>,
    /// The end of the block, in epoch milliseconds.
    #[serde(deserialize_with = "given_integer")]
    #[schemars(with = "Time")]
    until: Option<u64>,
    /// The end of the block, in seconds from now.
    #[serde(deserialize_with = "given_integer")]
    #[schemars(with = "u64", range(min = 1, max = MAX_SECONDS))]
    for_seconds: Option<u64>,
    /// For operators: clients do not get it.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Reason")]
    reason: Option<String>,
}

/// A block, as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BlockView {
    #[schemars(with = "BlockId")]
    id: String,
    user: Option<String>,
    session_id: Option<String>,
    token_id: Option<String>,
    /// In epoch milliseconds, as all times.
    issued_before: Option<u64>,
    until: u64,
    reason: Option<String>,
    /// The name of the API key that it was created with.
    created_by: String,
    created: u64,
}

/// A new block, and how many connections it closed.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Blocked {
    #[serde(flatten)]
    block: BlockView,
    disconnected: usize,
}

/// Some of the blocks in force, the oldest first.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Blocks")]
pub(super) struct BlockPage {
    #[schemars(length(max = MAX_LIMIT))]
    blocks: Vec<BlockView>,
    /// Where there are more: what to give as `after` to get them.
    next: Option<String>,
}

/// The id of a block that was lifted.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Lifted {
    lifted: String,
}

impl BlockView {
    fn of(block: &Block) -> Self {
        let (user, session_id, token_id) = match block.subject.clone() {
            BlockSubject::User(id) => (Some(id), None, None),
            BlockSubject::SessionId(id) => (None, Some(id), None),
            BlockSubject::TokenId(id) => (None, None, Some(id)),
        };
        Self {
            id: block.id.clone(),
            user,
            session_id,
            token_id,
            issued_before: block.issued_before_ms,
            until: block.until_ms,
            reason: block.reason.clone(),
            created_by: block.created_by.clone(),
            created: block.created_ms,
        }
    }
}

impl NewBlock {
    /// The block, checked.
    ///
    /// # Errors
    /// `bad_request` with the field and what it must be.
    fn check(self, created_by: &str, now_ms: u64) -> Result<Block, Failure> {
        let bad = |message: String| Failure::new(ErrorCode::BadRequest, message);
        let Self { user, session_id, token_id, issued_before, until, for_seconds, reason } = self;
        let subject = match (user, session_id, token_id) {
            (Some(id), None, None) => BlockSubject::User(id),
            (None, Some(id), None) => BlockSubject::SessionId(id),
            (None, None, Some(id)) => BlockSubject::TokenId(id),
            _ => return Err(bad("a block keeps out one of user, sessionId and tokenId".to_owned())),
        };
        let (BlockSubject::User(id) | BlockSubject::SessionId(id) | BlockSubject::TokenId(id)) = &subject;
        if !is_valid_id(id) {
            return Err(bad("the id must be 1 to 128 printable characters without whitespace".to_owned()));
        }
        if issued_before.is_some() && !matches!(subject, BlockSubject::User(_)) {
            return Err(bad("issuedBefore goes with user: a session or token has one time of issue".to_owned()));
        }
        for (time, field) in [(issued_before, "issuedBefore"), (until, "until")] {
            if time.is_some_and(|time| !(MIN_TIME_MS..=MAX_TIME_MS).contains(&time)) {
                return Err(bad(format!(
                    "{field} must be a time in milliseconds since 1970, of the years 2000 to 2999"
                )));
            }
        }
        let until_ms = match (until, for_seconds) {
            (Some(until), None) => until,
            (None, Some(seconds)) if (1..=MAX_SECONDS).contains(&seconds) => now_ms + seconds * 1000,
            (None, Some(_)) => return Err(bad(format!("forSeconds must be 1 to {MAX_SECONDS}"))),
            _ => return Err(bad("the end of a block is one of until and forSeconds".to_owned())),
        };
        if reason.as_ref().is_some_and(|reason| {
            reason.is_empty() || reason.chars().count() > MAX_REASON_CHARS || reason.chars().any(char::is_control)
        }) {
            return Err(bad(format!("reason must be 1 to {MAX_REASON_CHARS} characters, without control characters")));
        }
        let (id, created_by) = (new_id(now_ms)?, created_by.to_owned());
        Ok(Block { id, subject, issued_before_ms: issued_before, until_ms, reason, created_by, created_ms: now_ms })
    }
}

/// An id in the order of time (UUID version 7, RFC 9562).
fn new_id(now_ms: u64) -> Result<String, Failure> {
    let mut random = [0; 10];
    getrandom::fill(&mut random)
        .map_err(|_| Failure::new(ErrorCode::FeatureUnavailable, "the host has no randomness: try again later"))?;
    Ok(uuid::Builder::from_unix_timestamp_millis(now_ms, &random).into_uuid().to_string())
}

impl Api {
    pub(super) async fn block(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        if let Some(refused) = body::refuse_type(call.request.headers()) {
            return Ok(refused);
        }
        let body = body::read_json(call.request, MAX_BODY_BYTES).await?;
        let now_ms = self.clock.wall_ms();
        let block = parse::<Object<NewBlock>>(&body)?.0.check(call.caller.name, now_ms)?;
        // In force before it is written: a client that it keeps out must not sign in meanwhile.
        let block =
            self.blocks.insert(block, now_ms).map_err(|full| Failure::new(ErrorCode::Conflict, full.to_string()))?;
        tracing::info!(
            key = call.caller.name, id = block.id, subject = ?block.subject, issued_before = block.issued_before_ms,
            until = block.until_ms, reason = block.reason, "blocked"
        );
        let ended = self.end_blocked(&block);
        self.write_block(&block.id, Some(&block)).await?;
        let elsewhere = self.tell_nodes(BlockChange::Insert((*block).clone())).await?;
        let disconnected = ended.await + elsewhere;
        Ok(json(StatusCode::OK, &Blocked { block: BlockView::of(&block), disconnected }))
    }

    pub(super) async fn list_blocks(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let PageQuery { after, limit, .. } = PageQuery::read_by(call.query, false, block_id)?;
        let mut blocks = self.blocks.page(after.as_deref(), limit + 1, self.clock.wall_ms());
        let has_more = blocks.len() > limit;
        blocks.truncate(limit);
        let next = blocks.last().filter(|_| has_more).map(|block| block.id.clone());
        let blocks = blocks.iter().map(|block| BlockView::of(block)).collect();
        Ok(json(StatusCode::OK, &BlockPage { blocks, next }))
    }

    pub(super) async fn lift_block(&self, call: OperatorCall<'_>) -> Result<Answer, Failure> {
        let id = call.name()?.into_owned();
        if self.blocks.remove(&id, self.clock.wall_ms()).is_none() {
            return Err(Failure::new(ErrorCode::NotFound, format!("there is no block {id:?}")));
        }
        tracing::info!(key = call.caller.name, id, "lifted a block");
        self.write_block(&id, None).await?;
        self.tell_nodes(BlockChange::Lift(id.clone())).await?;
        Ok(json(StatusCode::OK, &Lifted { lifted: id }))
    }

    /// Has the shards close the connections that a block keeps out. The future counts them.
    pub(super) fn end_blocked(&self, block: &Arc<Block>) -> impl Future<Output = usize> + Send + use<> {
        let (ended, mut counts) = mpsc::unbounded_channel();
        for shard in self.hub.shards() {
            shard.push(ShardCommand::EndBlocked { block: block.clone(), ended: ended.clone() });
        }
        async move {
            let mut disconnected = 0;
            let count = async {
                while let Some(more) = counts.recv().await {
                    disconnected += more;
                }
            };
            // A shard that is overloaded closes the connections later.
            let _ = timeout(SHARD_TIMEOUT, count).await;
            disconnected
        }
    }
}

/// A block's id, as [`new_id`] writes it.
fn block_id(text: &str) -> Option<String> {
    Uuid::try_parse(text).ok().map(|id| id.to_string()).filter(|id| id == text)
}
