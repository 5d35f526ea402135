//! The answers of Redis.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use redis::Value;

use super::super::command::Lasting;
use super::super::ops::{self, Commit, Committed, EventId, MessageId};
use super::super::partition::Partition;
use super::{Link, Op};

impl Link {
    /// Takes an answer in. Returns whether the node has left.
    pub(super) async fn answered(&mut self, op: Op, answer: &Value) -> anyhow::Result<bool> {
        if let Value::ServerError(error) = answer {
            bail!("Redis refuses {op:?}: {}", error.details().unwrap_or(error.code()));
        }
        match op {
            Op::Lasting => {
                let Some(command) = self.lasting.pop_front() else { return Ok(false) };
                self.done(command, answer)?;
            }
            Op::Beat => self.beaten(answer).await?,
            Op::Look(nodes) => {
                let now = self.now();
                let heard = ops::subscribers(answer)?;
                for node in nodes {
                    let is_heard = heard.get(self.keys.presence(node).as_bytes()).is_some_and(|n| *n > 0);
                    self.observer.note_connection(now, node, is_heard);
                }
                self.give_up_gone();
            }
            Op::GiveUp(node) => {
                if ops::number(answer)? > 0 {
                    tracing::warn!(node = node.0, "a node of the cluster has gone");
                    self.metrics.gone.inc();
                }
                self.beat();
            }
            Op::ReadOutputs(partition) => {
                let read = ops::items(answer)?.iter().map(read_message).collect::<anyhow::Result<Vec<_>>>()?;
                for output in self.outputs.read(partition, read) {
                    self.tell(|listener| listener.output(partition, output));
                }
            }
            Op::Check(partition) => self.checked(partition, answer)?,
            Op::Revive => {
                self.run = ops::octets(answer)?.to_vec();
                self.beat();
            }
            Op::Leave => return Ok(true),
            Op::Other => {}
        }
        Ok(false)
    }

    pub(super) fn done(&mut self, command: Lasting, answer: &Value) -> anyhow::Result<()> {
        match command {
            Lasting::Take(partition) => {
                let snapshot = ops::snapshot(partition, answer)?;
                self.epoch = self.epoch.max(snapshot.epoch);
                let Some(owned) = self.owned.get_mut(&partition) else { return Ok(()) };
                (owned.epoch, owned.answered) = (snapshot.epoch, snapshot.sequence);
                let since = owned.forwarded.taken(&snapshot.forwarded);
                self.metrics.takeovers.inc();
                let now = self.now();
                let view = self.status.view.load();
                let unknown = snapshot.forwarded.keys().filter(|node| !view.nodes.contains_key(node));
                for node in unknown {
                    self.gone.entry(*node).or_insert(now);
                }
                // Members may be of nodes that have gone, or of ones that are newer than the view.
                self.is_beat_due = true;
                self.tell(|listener| listener.taken(snapshot));
                self.deliver(partition, since);
            }
            Lasting::Commit(commit) => self.committed(&commit, ops::committed(answer)?),
            Lasting::Heal(heal) => {
                let answer = ops::committed(answer)?;
                self.committed(&heal.commit, answer);
                if answer == Committed::Done {
                    self.metrics.healed.inc();
                    // Events that came meanwhile are read now.
                    self.check(heal.commit.partition);
                }
            }
            Lasting::Forward { partition, .. } => match ops::items(answer)?.first().map(ops::octets).transpose()? {
                Some(b"gap") => {
                    let last = ops::items(answer)?.get(1).map_or(Ok(0), ops::number)?;
                    self.tell(|listener| listener.missing(partition, last));
                }
                _ => self.metrics.forwarded.inc(),
            },
        }
        Ok(())
    }

    pub(super) fn committed(&mut self, commit: &Commit, answer: Committed) {
        let Commit { partition, epoch, sequence, .. } = *commit;
        match answer {
            Committed::Done => {
                self.metrics.commits.inc();
                if let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.epoch == epoch) {
                    owned.answered = owned.answered.max(sequence);
                }
            }
            Committed::Fenced { .. } => self.fenced(partition, epoch),
            Committed::Lost => {}
        }
        self.tell(|listener| listener.committed(partition, epoch, sequence, answer));
    }

    pub(super) fn fenced(&mut self, partition: Partition, epoch: u64) {
        if self.owned.get(&partition).is_some_and(|owned| owned.epoch == epoch) {
            self.owned.remove(&partition);
            self.metrics.fenced.inc();
            // The view that made another node take it may be news.
            self.is_beat_due = true;
        }
    }

    pub(super) fn checked(&mut self, partition: Partition, answer: &Value) -> anyhow::Result<()> {
        let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.epoch > 0) else { return Ok(()) };
        let (epoch, answered) = (owned.epoch, owned.answered);
        match ops::committed(answer)? {
            Committed::Done => {
                let waiting = ops::items(answer)?.get(1).map_or_else(|| Ok(BTreeMap::new()), ops::waiting)?;
                let events = owned.forwarded.read(waiting);
                self.deliver(partition, events);
            }
            other => {
                if other != Committed::Lost {
                    self.fenced(partition, epoch);
                }
                self.tell(|listener| listener.committed(partition, epoch, answered, other));
            }
        }
        Ok(())
    }

    pub(super) fn deliver(&self, partition: Partition, events: Vec<(EventId, Bytes)>) {
        for (id, event) in events {
            self.tell(|listener| listener.event(partition, id, event));
        }
    }
}

/// A message as XRANGE returns it.
fn read_message(entry: &Value) -> anyhow::Result<(MessageId, Bytes)> {
    let [id, fields] = ops::items(entry)? else { bail!("Redis answers {entry:?}") };
    let id = MessageId::from_text(ops::octets(id)?).context("Redis answers no id")?;
    let message = ops::items(fields)?.get(1).context("Redis answers no message")?;
    Ok((id, Bytes::copy_from_slice(ops::octets(message)?)))
}
