//! A plugin thread of a host that is a node of a cluster.
//!
//! Each thread has the partitions whose number is its own modulo the threads. An event of a partition that this node owns is
//! handled here: the scope changes in memory at once, and the **batch** of such events is committed in Redis. What they send,
//! and the answers to their senders, leave when the commit is answered. If it is refused, another node owns the partition:
//! nothing of it was said, and the events are handed on. An event of another partition is **forwarded**.
//!
//! - `partitions`: which partitions are owned; `route`: the way of an event
//! - `gate`, `batch`: what a batch changes and sends, its commit, and its end
//! - `later`: answers that wait for more than the commit
//! - `effects`, `members`: effects on connections of all nodes
//! - `documents`: documents that are being stored
//! - `output`: what commits have a node do
//! - `take`, `records`: partitions that come and go
//! - `pending`: this node's forwarded events
//! - `node`, `hands`, `news`, `questions`: news and questions of the cluster
//! - `transfer`, `transfers`: connections that go on at other nodes
//! - `operators`: builds of plugins and blocks, which are of all nodes
//! - `wire`: the bytes of all that

mod batch;
mod documents;
mod effects;
mod gate;
pub(crate) mod hands;
mod later;
mod members;
pub(crate) mod news;
pub(crate) mod node;
pub(crate) mod operators;
mod output;
pub(crate) mod partitions;
mod pending;
pub(crate) mod questions;
mod records;
pub(crate) mod roster;
mod route;
mod take;
mod transfer;
pub(crate) mod transfers;
mod wire;
