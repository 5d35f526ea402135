//! Messages of other nodes, which Redis publishes and keeps, and the search for those that went astray.

use anyhow::bail;
use bytes::Bytes;
use redis::{PushInfo, PushKind};

use super::super::inbox::Arrival;
use super::super::listener::Responder;
use super::super::ops::{self, EventId, MessageId};
use super::super::partition::Partition;
use super::{Link, Op};
use crate::model::NodeId;

/// How many partitions are checked with each beat: all of them within half a minute.
const CHECKED_AT_ONCE: usize = 4;

impl Link {
    /// Takes in what Redis publishes.
    pub(super) fn pushed(&mut self, push: &PushInfo) -> anyhow::Result<()> {
        match (&push.kind, &push.data[..]) {
            (PushKind::Disconnection, _) => bail!("the connection has ended"),
            (PushKind::Message, [channel, message]) => {
                let message = Bytes::copy_from_slice(ops::octets(message)?);
                match ops::octets(channel)? == self.keys.news().as_bytes() {
                    true => self.is_beat_due = true,
                    false => drop(self.received(&message)),
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes in a message on this node's channel. `None` if it is cut short.
    pub(super) fn received(&mut self, message: &Bytes) -> Option<()> {
        let number = |at: usize| Some(u64::from_be_bytes(message.get(at..at + 8)?.try_into().ok()?));
        match *message.first()? {
            ops::OUTPUT => {
                let (partition, ids) = (Partition(*message.get(1)?), message.get(2..)?);
                let id = MessageId::from_bytes(ids)?;
                let before = MessageId::from_bytes(ids.get(MessageId::BYTES..)?)?;
                let output = message.slice(2 + 2 * MessageId::BYTES..);
                match self.outputs.receive(partition, id, before, output) {
                    Arrival::Next(output) => self.tell(|listener| listener.output(partition, output)),
                    Arrival::Missing(_) => self.read_outputs(partition),
                    Arrival::Nothing => {}
                }
            }
            // Without an event of its own the owner would not notice.
            ops::TAKEN => self.check(Partition(*message.get(1)?)),
            ops::EVENT => {
                let partition = Partition(*message.get(1)?);
                let origin = NodeId(u16::from_be_bytes(message.get(2..4)?.try_into().ok()?));
                let id = EventId { origin, number: number(4)? };
                let owned = self.owned.get_mut(&partition)?;
                let (event, is_missing) = owned.forwarded.receive(id, number(12)?, message.slice(20..));
                self.deliver(partition, event.map(|event| (id, event)).into_iter().collect());
                if is_missing {
                    self.check(partition);
                }
            }
            kind @ (ops::QUESTION | ops::ANSWER) => {
                let from = NodeId(u16::from_be_bytes(message.get(1..3)?.try_into().ok()?));
                let (id, body) = (number(3)?, message.slice(11..));
                if kind == ops::ANSWER {
                    self.peers.answered(id, from, body);
                } else if let Some(listener) = &self.listener {
                    listener.ask(&body, Responder { commands: self.commands.clone(), node: from, id });
                }
            }
            _ => {}
        }
        Some(())
    }

    pub(super) fn publish(&mut self, node: NodeId, kind: u8, id: u64, body: &[u8]) {
        let mut message = vec![kind];
        message.extend_from_slice(&self.me.0.to_be_bytes());
        message.extend_from_slice(&id.to_be_bytes());
        message.extend_from_slice(body);
        let mut cmd = redis::cmd("PUBLISH");
        cmd.arg(self.keys.channel(node)).arg(message);
        self.outgoing.push_back((Op::Other, cmd));
    }

    pub(super) fn read_outputs(&mut self, partition: Partition) {
        let last = self.outputs.begin_reading(partition);
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(self.keys.outputs(partition, self.me)).arg(format!("({}", last.to_text())).arg("+");
        self.outgoing.push_back((Op::ReadOutputs(partition), cmd));
    }

    pub(super) fn check(&mut self, partition: Partition) {
        let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.epoch > 0) else { return };
        owned.forwarded.begin_reading();
        let cmd = ops::check(&self.keys, partition, self.me, owned.epoch, owned.answered);
        self.outgoing.push_back((Op::Check(partition), cmd));
    }

    /// Checks some of the partitions, each in its turn, in case that a message went astray.
    pub(super) fn check_next(&mut self) {
        for _ in 0..CHECKED_AT_ONCE {
            self.checked = self.checked.wrapping_add(1);
            self.check(Partition(self.checked));
        }
    }

    /// Removes the messages that came from Redis.
    pub(super) fn trim(&mut self) {
        for (partition, last) in self.outputs.take_grown() {
            let mut cmd = redis::cmd("XTRIM");
            let after = MessageId { sequence: last.sequence + 1, ..last };
            cmd.arg(self.keys.outputs(partition, self.me)).arg("MINID").arg(after.to_text());
            self.outgoing.push_back((Op::Other, cmd));
        }
    }
}
