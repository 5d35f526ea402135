//! Messages from Redis, each once and in order.
//!
//! Redis publishes what it also keeps. A message that came twice is passed over, and one before which another is missing
//! waits until the missing ones were read. After a connection was lost, all that was missed is read.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::ops::{EventId, MessageId};
use super::partition::Partition;
use crate::model::NodeId;

/// What the partitions have for this node.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    streams: HashMap<Partition, Stream>,
}

#[derive(Debug, Default)]
struct Stream {
    last: MessageId,
    /// The last message that was removed from Redis.
    trimmed: MessageId,
    /// Messages that came while earlier ones are read.
    stashed: Option<Vec<(MessageId, Bytes)>>,
}

/// What to do about a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is the next: here it is.
    Next(Bytes),
    /// Messages after this one have to be read first.
    Missing(MessageId),
    /// It came before, or waits for others that are read already.
    Nothing,
}

impl Outputs {
    /// Takes a message in. `before` is the one that the owner knows as the last.
    pub(super) fn receive(
        &mut self,
        partition: Partition,
        id: MessageId,
        before: MessageId,
        message: Bytes,
    ) -> Arrival {
        let stream = self.streams.entry(partition).or_default();
        if let Some(stashed) = &mut stream.stashed {
            stashed.push((id, message));
            return Arrival::Nothing;
        }
        if id <= stream.last {
            return Arrival::Nothing;
        }
        if before > stream.last {
            stream.stashed = Some(vec![(id, message)]);
            return Arrival::Missing(stream.last);
        }
        stream.last = id;
        Arrival::Next(message)
    }

    /// Begins to read what was missed. Returns the last message that came.
    pub(super) fn begin_reading(&mut self, partition: Partition) -> MessageId {
        let stream = self.streams.entry(partition).or_default();
        stream.stashed.get_or_insert_default();
        stream.last
    }

    /// Takes in what was read, and returns it with the messages that waited for it, in order.
    pub(super) fn read(&mut self, partition: Partition, read: Vec<(MessageId, Bytes)>) -> Vec<Bytes> {
        let stream = self.streams.entry(partition).or_default();
        let mut all = read;
        all.extend(stream.stashed.take().unwrap_or_default());
        let mut next = Vec::new();
        for (id, message) in all {
            if id > stream.last {
                stream.last = id;
                next.push(message);
            }
        }
        next
    }

    /// The streams that can be trimmed, each with the last message to remove.
    pub(super) fn take_grown(&mut self) -> Vec<(Partition, MessageId)> {
        let grown = self.streams.iter_mut().filter(|(_, stream)| stream.last > stream.trimmed);
        let grown = grown.map(|(partition, stream)| {
            stream.trimmed = stream.last;
            (*partition, stream.last)
        });
        grown.collect()
    }

    pub(super) fn clear(&mut self) {
        self.streams.clear();
    }
}

/// The events that were forwarded to a partition that this node owns.
#[derive(Debug)]
pub(super) struct Forwarded {
    /// The number of each node's last event that came.
    last: HashMap<NodeId, u64>,
    /// Events that came while earlier ones are read; also while the partition is being taken.
    stashed: Option<Vec<(EventId, Bytes)>>,
}

impl Forwarded {
    /// Of a partition that is being taken.
    pub(super) fn taking() -> Self {
        Self { last: HashMap::new(), stashed: Some(Vec::new()) }
    }

    /// The partition was taken, with the events up to these. Returns the events since.
    pub(super) fn taken(&mut self, last: &HashMap<NodeId, u64>) -> Vec<(EventId, Bytes)> {
        self.last.clone_from(last);
        self.read(BTreeMap::new())
    }

    /// Takes an event in. Returns it if it is the next, and whether earlier ones have to be read. `before` is the number of
    /// the event before it that its origin has no answer to.
    pub(super) fn receive(&mut self, id: EventId, before: u64, event: Bytes) -> (Option<Bytes>, bool) {
        if let Some(stashed) = &mut self.stashed {
            stashed.push((id, event));
            return (None, false);
        }
        let last = self.last.entry(id.origin).or_default();
        if id.number <= *last {
            return (None, false);
        }
        if before > *last {
            self.stashed = Some(vec![(id, event)]);
            return (None, true);
        }
        *last = id.number;
        (Some(event), false)
    }

    /// Begins to read the events that wait in Redis.
    pub(super) fn begin_reading(&mut self) {
        self.stashed.get_or_insert_default();
    }

    /// Takes in the events that wait in Redis, and returns those that had not come, with the ones that came meanwhile.
    pub(super) fn read(&mut self, mut waiting: BTreeMap<EventId, Bytes>) -> Vec<(EventId, Bytes)> {
        waiting.extend(self.stashed.take().unwrap_or_default());
        let mut next = Vec::new();
        for (id, event) in waiting {
            let last = self.last.entry(id.origin).or_default();
            if id.number > *last {
                *last = id.number;
                next.push((id, event));
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(sequence: u64) -> MessageId {
        MessageId { epoch: 1, sequence }
    }

    #[test]
    fn output_comes_once_and_in_order() {
        let (mut outputs, p) = (Outputs::default(), Partition(7));
        let message = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(outputs.receive(p, id(1), MessageId::default(), message("a")), Arrival::Next(message("a")));
        assert_eq!(outputs.receive(p, id(1), MessageId::default(), message("a")), Arrival::Nothing);
        assert_eq!(outputs.receive(p, id(5), id(3), message("d")), Arrival::Missing(id(1)));
        assert_eq!(outputs.receive(p, id(6), id(5), message("e")), Arrival::Nothing);
        let read = vec![(id(2), message("b")), (id(3), message("c")), (id(5), message("d"))];
        assert_eq!(outputs.read(p, read), ["b", "c", "d", "e"].map(message));
        assert_eq!(outputs.receive(p, id(9), id(6), message("f")), Arrival::Next(message("f")));
        assert_eq!(outputs.take_grown(), [(p, id(9))]);
        assert_eq!(outputs.take_grown(), []);
    }

    #[test]
    fn forwarded_event_comes_once_and_in_order() {
        let mut forwarded = Forwarded::taking();
        let of = |number| EventId { origin: NodeId(3), number };
        let event = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(forwarded.receive(of(4), 3, event("x")), (None, false));
        assert_eq!(forwarded.receive(of(5), 4, event("a")), (None, false));
        assert_eq!(forwarded.taken(&HashMap::from([(NodeId(3), 4)])), [(of(5), event("a"))]);
        assert_eq!(forwarded.receive(of(6), 0, event("b")), (Some(event("b")), false));
        assert_eq!(forwarded.receive(of(6), 0, event("b")), (None, false));
        assert_eq!(forwarded.receive(of(8), 7, event("d")), (None, true));
        let read = forwarded.read(BTreeMap::from([(of(7), event("c")), (of(8), event("d"))]));
        assert_eq!(read, [(of(7), event("c")), (of(8), event("d"))]);
    }
}
