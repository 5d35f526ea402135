//! What a node asks of Redis about partitions, and how it is written.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use redis::{Cmd, Value};

use super::keys::Keys;
use super::partition::Partition;
use super::scripts::{self, call};
use crate::model::NodeId;

/// A field of a partition's data and its value, or its removal. The cluster does not look into either.
pub type Record = (Vec<u8>, Option<Vec<u8>>);

/// A message for a node, kept until that node has it.
pub type Output = (NodeId, Bytes);

/// An event that a node forwarded to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId {
    /// The node.
    pub origin: NodeId,
    /// The count of the events of that node for that partition.
    pub number: u64,
}

/// A batch of events of one partition, all or nothing.
#[derive(Debug)]
pub struct Commit {
    /// Which partition.
    pub partition: Partition,
    /// The epoch in which this node took it.
    pub epoch: u64,
    /// The number of the batch: one more than that of the batch before.
    pub sequence: u64,
    /// What has changed.
    pub records: Vec<Record>,
    /// The forwarded events that are done with.
    pub handled: Vec<EventId>,
    /// What other nodes get.
    pub outputs: Vec<Output>,
}

/// All of a partition, to be put again where Redis has lost something of it.
#[derive(Debug)]
pub struct Heal {
    /// Its records are all that there are, and it stands for all batches that were not answered.
    pub commit: Commit,
    /// The forwarded events that wait.
    pub waiting: Vec<(EventId, Bytes)>,
    /// The number of each node's last forwarded event.
    pub forwarded: HashMap<NodeId, u64>,
    /// The number of the last batch before the owner's epoch.
    pub taken_at: u64,
}

/// A partition at the moment in which it was taken.
#[derive(Debug)]
pub struct Snapshot {
    /// Which partition.
    pub partition: Partition,
    /// The epoch of its new owner.
    pub epoch: u64,
    /// The number of the last batch.
    pub sequence: u64,
    /// The number of each node's last forwarded event.
    pub forwarded: HashMap<NodeId, u64>,
    /// The forwarded events that no owner has handled, in the order of each origin.
    pub waiting: BTreeMap<EventId, Bytes>,
    /// All records.
    pub records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Snapshot {
    /// Puts the partition again as it was taken, with what has come since.
    pub fn heal(&mut self) -> Heal {
        let taken_at = self.sequence;
        self.sequence += 1;
        Heal {
            commit: Commit {
                partition: self.partition,
                epoch: self.epoch,
                sequence: self.sequence,
                records: self.records.iter().map(|(field, value)| (field.clone(), Some(value.clone()))).collect(),
                handled: Vec::new(),
                outputs: Vec::new(),
            },
            waiting: self.waiting.iter().map(|(id, event)| (*id, event.clone())).collect(),
            forwarded: self.forwarded.clone(),
            taken_at,
        }
    }
}

/// The answer to a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It is in Redis, and the other nodes are told.
    Done,
    /// Another node has taken the partition. Of the batches of this node, those up to `last` count.
    Fenced {
        /// The number of the last batch before the other node's epoch; none if that is not known any more.
        last: Option<u64>,
    },
    /// Redis does not hold what was committed before: all of it has to be put again.
    Lost,
}

/// The first bytes of a field of the partition's hash that holds a record.
const RECORD: u8 = b'r';

/// The kinds of messages on a node's channel.
pub(super) const OUTPUT: u8 = 0;
pub(super) const EVENT: u8 = 1;
pub(super) const QUESTION: u8 = 2;
pub(super) const ANSWER: u8 = 3;
pub(super) const TAKEN: u8 = 4;

pub(super) fn take(keys: &Keys, partition: Partition, me: NodeId, epoch: u64) -> Cmd {
    let mut cmd = call(&scripts::TAKE, &[keys.partition(partition), keys.waiting(partition)]);
    cmd.arg(me.0).arg(epoch).arg(keys.channel_prefix()).arg(&[TAKEN, partition.0][..]);
    cmd
}

/// `before`: the number of the event before it that is not answered; 0 if there is none.
pub(super) fn forward(keys: &Keys, partition: Partition, id: EventId, before: u64, event: &Bytes) -> Cmd {
    let mut head = vec![EVENT, partition.0];
    head.extend_from_slice(&id.origin.0.to_be_bytes());
    head.extend_from_slice(&id.number.to_be_bytes());
    head.extend_from_slice(&before.to_be_bytes());
    let mut cmd = call(&scripts::FORWARD, &[keys.partition(partition), keys.waiting(partition)]);
    cmd.arg(id.origin.0).arg(id.number).arg(before).arg(&event[..]).arg(keys.channel_prefix()).arg(head);
    cmd
}

pub(super) fn check(keys: &Keys, partition: Partition, me: NodeId, epoch: u64, sequence: u64) -> Cmd {
    let mut cmd = call(&scripts::CHECK, &[keys.partition(partition), keys.waiting(partition)]);
    cmd.arg(epoch).arg(me.0).arg(sequence);
    cmd
}

pub(super) fn forget(keys: &Keys, partition: Partition, me: NodeId, epoch: u64, gone: &[NodeId]) -> Cmd {
    let streams = gone.iter().map(|node| keys.outputs(partition, *node));
    let all: Vec<_> = [keys.partition(partition), keys.waiting(partition)].into_iter().chain(streams).collect();
    let mut cmd = call(&scripts::FORGET, &all);
    cmd.arg(epoch).arg(me.0).arg(gone.iter().map(|node| node.0).collect::<Vec<_>>());
    cmd
}

pub(super) fn commit(keys: &Keys, me: NodeId, commit: &Commit) -> Cmd {
    let Commit { sequence, records, handled, .. } = commit;
    let (mut set, mut removed) = (vec![b"sequence".to_vec(), number_text(*sequence)], Vec::new());
    for (field, value) in records {
        match value {
            Some(value) => set.extend([record_field(field), value.clone()]),
            None => removed.push(record_field(field)),
        }
    }
    let handled: Vec<_> = handled.iter().map(|id| waiting_field(*id)).collect();
    with_outputs(keys, (&scripts::COMMIT, me), commit, [&set, &removed, &handled])
}

pub(super) fn heal(keys: &Keys, me: NodeId, heal: &Heal) -> Cmd {
    let Commit { epoch, sequence, records, .. } = &heal.commit;
    let mut set = vec![b"sequence".to_vec(), number_text(*sequence), b"epoch".to_vec(), number_text(*epoch)];
    let begin = format!("b{epoch}").into_bytes();
    set.extend([b"owner".to_vec(), number_text(me.0.into()), begin, number_text(heal.taken_at)]);
    for (field, value) in records {
        set.extend(value.iter().flat_map(|value| [record_field(field), value.clone()]));
    }
    let known = heal.forwarded.iter().flat_map(|(node, last)| [number_text(node.0.into()), number_text(*last)]);
    let waiting = heal.waiting.iter().flat_map(|(id, event)| [waiting_field(*id), event.to_vec()]);
    let (known, waiting): (Vec<_>, Vec<_>) = (known.collect(), waiting.collect());
    with_outputs(keys, (&scripts::HEAL, me), &heal.commit, [&set, &known, &waiting])
}

/// The call of a script that changes a partition and has messages for nodes.
fn with_outputs(
    keys: &Keys,
    (script, me): (&redis::Script, NodeId),
    commit: &Commit,
    arguments: [&Vec<Vec<u8>>; 3],
) -> Cmd {
    let Commit { partition, epoch, sequence, outputs, .. } = commit;
    let streams = outputs.iter().map(|(node, _)| keys.outputs(*partition, *node));
    let all: Vec<String> = [keys.partition(*partition), keys.waiting(*partition)].into_iter().chain(streams).collect();
    let mut cmd = call(script, &all);
    cmd.arg(epoch).arg(me.0).arg(sequence).arg(arguments.map(Vec::len).as_slice());
    for arguments in arguments {
        cmd.arg(arguments);
    }
    let id = MessageId { epoch: *epoch, sequence: *sequence };
    for (node, message) in outputs {
        cmd.arg(format!("o{}", node.0)).arg(keys.channel(*node)).arg(&[OUTPUT, partition.0][..]);
        cmd.arg(id.to_text()).arg(&id.to_bytes()[..]).arg(&message[..]);
    }
    cmd
}

fn number_text(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn record_field(field: &[u8]) -> Vec<u8> {
    [&[RECORD], field].concat()
}

fn waiting_field(id: EventId) -> Vec<u8> {
    format!("{}:{}", id.origin.0, id.number).into_bytes()
}

/// The event whose field this is.
fn event_of_field(field: &[u8]) -> Option<EventId> {
    let (origin, number) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some(EventId { origin: NodeId(origin.parse().ok()?), number: number.parse().ok()? })
}

/// The place of a message in the stream of what a partition has for a node: it only ever ascends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MessageId {
    pub(super) epoch: u64,
    pub(super) sequence: u64,
}

impl MessageId {
    /// The length of its bytes.
    pub(super) const BYTES: usize = 16;

    /// As an id in a stream of Redis.
    pub(super) fn to_text(self) -> String {
        format!("{}-{}", self.epoch, self.sequence)
    }

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        Some(Self { epoch: number(0)?, sequence: number(8)? })
    }

    pub(super) fn from_text(text: &[u8]) -> Option<Self> {
        let (epoch, sequence) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { epoch: epoch.parse().ok()?, sequence: sequence.parse().ok()? })
    }
}

/// The answer of a commit, a heal or a check.
pub(super) fn committed(answer: &Value) -> anyhow::Result<Committed> {
    let items = items(answer)?;
    Ok(match items.first().map(octets).transpose()? {
        Some(b"done") => Committed::Done,
        Some(b"lost") => Committed::Lost,
        Some(b"fenced") => Committed::Fenced { last: items.get(1).and_then(|last| number(last).ok()) },
        _ => bail!("Redis answers {answer:?}"),
    })
}

/// The state of a partition that was taken.
pub(super) fn snapshot(partition: Partition, answer: &Value) -> anyhow::Result<Snapshot> {
    let (forwarded, waiting, records) = (HashMap::new(), BTreeMap::new(), Vec::new());
    let mut snapshot = Snapshot { partition, epoch: 0, sequence: 0, forwarded, waiting, records };
    let [fields, events] = items(answer)? else { bail!("Redis answers {answer:?}") };
    for (field, value) in pairs(items(fields)?)? {
        match field {
            b"epoch" => snapshot.epoch = text_number(value)?,
            b"sequence" => snapshot.sequence = text_number(value)?,
            [RECORD, field @ ..] => snapshot.records.push((field.to_vec(), value.to_vec())),
            [b'f', origin @ ..] => {
                snapshot.forwarded.insert(NodeId(text_number(origin)?), text_number(value)?);
            }
            _ => {}
        }
    }
    snapshot.waiting = self::waiting(events)?;
    Ok(snapshot)
}

/// Events that wait, by their fields.
pub(super) fn waiting(fields: &Value) -> anyhow::Result<BTreeMap<EventId, Bytes>> {
    let events = pairs(items(fields)?)?.into_iter();
    let events = events.filter_map(|(field, event)| Some((event_of_field(field)?, Bytes::copy_from_slice(event))));
    Ok(events.collect())
}

pub(super) fn items(value: &Value) -> anyhow::Result<&[Value]> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Nil => Ok(&[]),
        other => bail!("Redis answers {other:?}"),
    }
}

/// How many connections are subscribed to each channel.
pub(super) fn subscribers(answer: &Value) -> anyhow::Result<HashMap<Vec<u8>, u64>> {
    let flat: Vec<_> = match answer {
        Value::Map(pairs) => pairs.iter().flat_map(|(channel, n)| [channel, n]).collect(),
        answer => items(answer)?.iter().collect(),
    };
    flat.chunks_exact(2).map(|pair| Ok((octets(pair[0])?.to_vec(), number(pair[1])?))).collect()
}

pub(super) fn octets(value: &Value) -> anyhow::Result<&[u8]> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.as_bytes()),
        other => bail!("Redis answers {other:?}"),
    }
}

pub(super) fn number(value: &Value) -> anyhow::Result<u64> {
    match value {
        Value::Int(number) => Ok(u64::try_from(*number)?),
        other => text_number(octets(other)?),
    }
}

pub(super) fn text_number<N: std::str::FromStr>(text: &[u8]) -> anyhow::Result<N> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).context("Redis answers no number")
}

/// Fields and values that follow each other.
pub(super) fn pairs(items: &[Value]) -> anyhow::Result<Vec<(&[u8], &[u8])>> {
    items.chunks_exact(2).map(|pair| Ok((octets(&pair[0])?, octets(&pair[1])?))).collect()
}
