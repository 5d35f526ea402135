//! The frames that wait to be written to one client.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write as _};
use std::net::TcpStream;

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

use super::frame_queue::{FrameQueue, FrameRef};
use crate::net::TlsSession;

/// The most frames that are written in one system call. Linux takes 1,024; beyond some dozens the call costs less than
/// the copying.
const FRAMES_PER_WRITE: usize = 64;

/// Up to this number of bytes, frames are concatenated before they are written: that costs less than a vectored write,
/// and the next client often gets the same copy.
const MERGED_BYTES: usize = 64 * 1024;

/// The most bytes that are encrypted before the socket has accepted those before: four of TLS' longest records. The
/// encrypted bytes are beside the outbox's bound.
const SEALED_BYTES: usize = 64 * 1024;

/// Frames that wait to be written to one client, encoded for a WebSocket. A polling answer extracts the packets from
/// the frames.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Frames that the socket did not accept when the shard last wrote.
    waiting: VecDeque<Bytes>,
    /// Frames queued since the shard last wrote, as indices into its queue.
    fresh: SmallVec<[u32; 4]>,
    bytes: usize,
    /// Whether the first waiting frame was written in part, and must be finished before anything else.
    started: bool,
}

impl Outbox {
    /// Appends frames. Returns the bytes of all waiting frames.
    pub(crate) fn push(&mut self, frames: &[FrameRef]) -> usize {
        self.bytes += frames.iter().map(|frame| frame.length()).sum::<usize>();
        self.fresh.extend(frames.iter().map(|frame| frame.index));
        self.bytes
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.fresh.is_empty()
    }

    /// Drops every frame of which nothing was written.
    pub(crate) fn drop_unsent(&mut self) {
        self.fresh.clear();
        self.waiting.truncate(usize::from(self.started));
        self.bytes = self.waiting.iter().map(Bytes::len).sum();
    }

    /// Copies references to fresh frames out of the shard's queue, which is cleared next.
    pub(crate) fn keep(&mut self, queue: &FrameQueue) {
        // The capacity is freed as well: an idle client keeps none.
        let fresh = std::mem::take(&mut self.fresh);
        self.waiting.extend(fresh.iter().map(|index| queue.frame(*index).clone()));
    }

    /// Takes all frames.
    pub(crate) fn take(&mut self, queue: &FrameQueue) -> VecDeque<Bytes> {
        self.keep(queue);
        (self.bytes, self.started) = (0, false);
        std::mem::take(&mut self.waiting)
    }

    /// Puts back the rest of the frames that were taken. None may have been appended since.
    pub(crate) fn put_back(&mut self, frames: VecDeque<Bytes>) {
        self.bytes = frames.iter().map(Bytes::len).sum();
        self.waiting = frames;
    }

    /// Writes as many frames as the socket accepts. Returns whether all are written.
    pub(crate) fn write_to(&mut self, socket: &TcpStream, queue: &mut FrameQueue) -> io::Result<bool> {
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
        // Frees the capacity: a client that was slow once is usually fast again.
        self.waiting = VecDeque::new();
        Ok(true)
    }

    /// As [`Outbox::write_to`], by TLS. What is encrypted counts as written.
    pub(crate) fn write_tls(
        &mut self,
        socket: &TcpStream,
        tls: &mut TlsSession,
        queue: &mut FrameQueue,
    ) -> io::Result<bool> {
        loop {
            if !tls.flush_to(socket)? {
                self.keep(queue);
                return Ok(false);
            }
            if self.is_empty() {
                self.waiting = VecDeque::new();
                return Ok(true);
            }
            if self.waiting.is_empty() && self.bytes <= SEALED_BYTES {
                tls.write(queue.piece(&self.fresh)).map_err(io::Error::other)?;
                (self.fresh, self.bytes) = (SmallVec::new(), 0);
                continue;
            }
            self.keep(queue);
            let mut sealed = 0;
            while let Some(frame) = self.waiting.front()
                && sealed < SEALED_BYTES
            {
                let part = frame.len().min(SEALED_BYTES - sealed);
                tls.write(&frame[..part]).map_err(io::Error::other)?;
                sealed += part;
                self.advance(part);
            }
        }
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

    fn queue_of(frames: &[&'static str]) -> (FrameQueue, Outbox) {
        let (mut queue, mut outbox) = (FrameQueue::default(), Outbox::default());
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
    fn drop_unsent_keeps_a_partly_written_frame() {
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
    fn outboxes_sharing_a_queue_write_their_own_frames() {
        let (mut queue, mut first) = queue_of(&["one,", "two,"]);
        let mut second = Outbox::default();
        second.push(&[FrameRef { index: 1, length: 4 }]);
        second.push(&[queue.push(Bytes::from_static(b"three,"))]);
        let mut third = Outbox::default();
        third.push(&[FrameRef { index: 1, length: 4 }]);
        third.push(&[FrameRef { index: 2, length: 6 }]);
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
    fn slow_client_gets_all_frames_in_order() {
        let (socket, mut client) = sockets();
        let (mut queue, mut outbox) = (FrameQueue::default(), Outbox::default());
        let mut wanted = Vec::new();
        let mut is_written = true;
        for turn in 0_u32.. {
            // Small, large, and larger than is merged.
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
