//! Frames that wait to be written: a shard's, each of them once, and for each client which of them it gets.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write as _};
use std::net::TcpStream;

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

/// Frames that leave in one system call at most. Linux takes 1,024; beyond some dozens the call costs less than the copying.
const FRAMES_PER_WRITE: usize = 64;

/// Frames of no more bytes together are copied behind each other before they are written: that costs less than to have
/// the kernel gather them, and the next client often gets just the same.
const MERGED_BYTES: usize = 64 * 1024;

/// Slots for frames that an empty queue keeps.
const KEPT_SLOTS: usize = 4096;

/// A frame's place in its shard's queue, until that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::conn) struct Place {
    index: u32,
    length: u32,
}

impl Place {
    pub(in crate::conn) fn length(self) -> usize {
        self.length as usize
    }
}

/// What was queued on a shard since it last wrote: each frame once, however many clients get it.
#[derive(Debug, Default)]
pub(in crate::conn) struct Queue {
    frames: Vec<Bytes>,
    /// Some of the frames, one behind the other, as the last client got them.
    merged: Vec<u8>,
    /// Which frames those are.
    merged_of: Vec<u32>,
}

impl Queue {
    pub(in crate::conn) fn push(&mut self, frame: Bytes) -> Place {
        let place = Place { index: self.frames.len() as u32, length: frame.len() as u32 };
        self.frames.push(frame);
        place
    }

    pub(in crate::conn) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Forgets all frames. No outbox may have one of them any more.
    pub(in crate::conn) fn clear(&mut self) {
        self.frames.clear();
        self.frames.shrink_to(KEPT_SLOTS);
        self.merged_of.clear();
    }

    fn frame(&self, index: u32) -> &Bytes {
        &self.frames[index as usize]
    }

    /// Frames as one piece of memory.
    fn piece(&mut self, indices: &[u32]) -> &[u8] {
        if let [one] = indices {
            return self.frame(*one);
        }
        if self.merged_of != indices {
            self.merged.clear();
            for index in indices {
                self.merged.extend_from_slice(&self.frames[*index as usize]);
            }
            self.merged_of.clear();
            self.merged_of.extend_from_slice(indices);
        }
        &self.merged
    }
}

/// Frames that wait to be written to one client, ready for a WebSocket. A polling session takes them out of their frames
/// again.
#[derive(Debug, Default)]
pub(in crate::conn) struct Outbox {
    /// What was queued before the shard last wrote, and the client did not take then.
    waiting: VecDeque<Bytes>,
    /// What was queued since, by its place in the shard's queue.
    fresh: SmallVec<[u32; 4]>,
    bytes: usize,
    /// Whether the first frame that waits was written in part: it must be finished before anything else.
    started: bool,
}

impl Outbox {
    /// Puts frames behind what waits. Gives the bytes of all of it.
    pub(in crate::conn) fn push(&mut self, places: &[Place]) -> usize {
        self.bytes += places.iter().map(|place| place.length()).sum::<usize>();
        self.fresh.extend(places.iter().map(|place| place.index));
        self.bytes
    }

    pub(in crate::conn) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(in crate::conn) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.fresh.is_empty()
    }

    /// Drops every frame of which nothing was written yet.
    pub(in crate::conn) fn drop_unsent(&mut self) {
        self.fresh.clear();
        self.waiting.truncate(usize::from(self.started));
        self.bytes = self.waiting.iter().map(Bytes::len).sum();
    }

    /// Makes what is queued outlive the shard's queue.
    pub(in crate::conn) fn keep(&mut self, queue: &Queue) {
        // An idle client keeps no memory for frames.
        let fresh = std::mem::take(&mut self.fresh);
        self.waiting.extend(fresh.iter().map(|index| queue.frame(*index).clone()));
    }

    /// Gives everything away that waits.
    pub(in crate::conn) fn take(&mut self, queue: &Queue) -> VecDeque<Bytes> {
        self.keep(queue);
        (self.bytes, self.started) = (0, false);
        std::mem::take(&mut self.waiting)
    }

    /// Takes back the end of what was given away, to which nothing was added.
    pub(in crate::conn) fn put_back(&mut self, frames: VecDeque<Bytes>) {
        self.bytes = frames.iter().map(Bytes::len).sum();
        self.waiting = frames;
    }

    /// Writes what waits, as far as the socket takes it. Says whether all of it is written.
    pub(in crate::conn) fn write_to(&mut self, socket: &TcpStream, queue: &mut Queue) -> io::Result<bool> {
        if self.waiting.is_empty() && (self.fresh.len() == 1 || self.bytes <= MERGED_BYTES) {
            if self.fresh.is_empty() {
                return Ok(true);
            }
            let piece = queue.piece(&self.fresh);
            let written = match (&mut &*socket).write(piece) {
                Ok(written) if written == piece.len() => {
                    (self.fresh, self.bytes) = (SmallVec::new(), 0);
                    return Ok(true);
                }
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            self.keep(queue);
            self.advance(written);
        } else {
            self.keep(queue);
        }
        while !self.waiting.is_empty() {
            let mut slices = [IoSlice::new(&[]); FRAMES_PER_WRITE];
            let n_slices =
                slices.iter_mut().zip(&self.waiting).map(|(slice, frame)| *slice = IoSlice::new(frame)).count();
            match (&mut &*socket).write_vectored(&slices[..n_slices]) {
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        // A client that was slow once is not one that will be again.
        self.waiting = VecDeque::new();
        Ok(true)
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(frame) = self.waiting.front_mut() {
            if written < frame.len() {
                self.started |= written > 0;
                frame.advance(written);
                return;
            }
            written -= frame.len();
            self.waiting.pop_front();
            self.started = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;

    fn queue_of(frames: &[&'static str]) -> (Queue, Outbox) {
        let (mut queue, mut outbox) = (Queue::default(), Outbox::default());
        for frame in frames {
            outbox.push(&[queue.push(Bytes::from_static(frame.as_bytes()))]);
        }
        (queue, outbox)
    }

    fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        (socket, client)
    }

    #[test]
    fn a_frame_that_was_begun_is_finished_though_the_rest_is_dropped() {
        let (mut queue, mut outbox) = queue_of(&["abc", "def", "ghi"]);
        outbox.keep(&queue);
        outbox.advance(4);
        assert_eq!(outbox.bytes(), 5);
        outbox.push(&[queue.push(Bytes::from_static(b"jkl"))]);
        outbox.drop_unsent();
        assert_eq!((outbox.bytes(), outbox.waiting.len()), (2, 1));
        outbox.advance(2);
        assert!(outbox.is_empty());
        outbox.push(&[queue.push(Bytes::from_static(b"x"))]);
        outbox.drop_unsent();
        assert!(outbox.is_empty());
    }

    #[test]
    fn clients_that_get_different_frames_get_their_own() {
        let (mut queue, mut first) = queue_of(&["one,", "two,"]);
        let mut second = Outbox::default();
        second.push(&[Place { index: 1, length: 4 }]);
        second.push(&[queue.push(Bytes::from_static(b"three,"))]);
        let mut third = Outbox::default();
        third.push(&[Place { index: 1, length: 4 }]);
        third.push(&[Place { index: 2, length: 6 }]);
        for (outbox, wanted) in [(&mut first, "one,two,"), (&mut second, "two,three,"), (&mut third, "two,three,")] {
            let (socket, mut client) = sockets();
            assert!(outbox.write_to(&socket, &mut queue).unwrap() && outbox.is_empty() && outbox.bytes() == 0);
            drop(socket);
            let mut got = String::new();
            client.read_to_string(&mut got).unwrap();
            assert_eq!(got, wanted);
        }
    }

    #[test]
    fn a_client_that_does_not_read_gets_everything_in_order_when_it_does() {
        let (socket, mut client) = sockets();
        let (mut queue, mut outbox) = (Queue::default(), Outbox::default());
        let mut wanted = Vec::new();
        let mut is_written = true;
        for turn in 0_u32.. {
            // Of some bytes, of many, and of more than are merged.
            for length in [10, 1000, 100_000] {
                let frame = vec![turn as u8; length];
                wanted.extend_from_slice(&frame);
                outbox.push(&[queue.push(frame.into())]);
                if turn % 2 == 0 {
                    is_written = outbox.write_to(&socket, &mut queue).unwrap();
                }
            }
            is_written &= outbox.write_to(&socket, &mut queue).unwrap();
            queue.clear();
            if !is_written && turn % 2 == 1 {
                break;
            }
        }
        assert!(!is_written && outbox.bytes() > 0);
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            client.read_to_end(&mut got).map(|_| got)
        });
        while !outbox.write_to(&socket, &mut queue).unwrap() {
            std::thread::yield_now();
        }
        assert_eq!((outbox.bytes(), outbox.is_empty()), (0, true));
        drop(socket);
        assert!(reader.join().unwrap().unwrap() == wanted);
    }
}
