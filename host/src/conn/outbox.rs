//! Frames that wait to be written to one client.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Frames that wait to be written, ready for a WebSocket. A polling session takes them out of their frames again.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) frames: VecDeque<Bytes>,
    bytes: usize,
    /// Whether the first frame was written in part: it must be finished before anything else.
    started: bool,
}

impl Outbox {
    /// An idle connection keeps no more slots than this for frames.
    const IDLE_SLOTS: usize = 4;

    pub(super) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Drops every frame of which nothing was written yet.
    pub(super) fn drop_unsent(&mut self) {
        self.frames.truncate(usize::from(self.started));
        self.bytes = self.frames.iter().map(Bytes::len).sum();
    }

    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        slices.iter_mut().zip(&self.frames).map(|(slice, frame)| *slice = IoSlice::new(frame)).count()
    }

    pub(super) fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(frame) = self.frames.front_mut() {
            if written < frame.len() {
                self.started |= written > 0;
                frame.advance(written);
                return;
            }
            written -= frame.len();
            self.frames.pop_front();
            self.started = false;
        }
    }

    pub(super) fn shrink(&mut self) {
        if self.frames.capacity() > Self::IDLE_SLOTS {
            self.frames.shrink_to(Self::IDLE_SLOTS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_was_begun_is_finished_though_the_rest_is_dropped() {
        let mut outbox = Outbox::default();
        for frame in ["abc", "def", "ghi"] {
            outbox.push(Bytes::from_static(frame.as_bytes()));
        }
        outbox.advance(4);
        assert_eq!(outbox.bytes(), 5);
        outbox.drop_unsent();
        assert_eq!((outbox.bytes(), outbox.frames.len()), (2, 1));
        outbox.advance(2);
        assert!(outbox.is_empty());
        outbox.push(Bytes::from_static(b"x"));
        outbox.drop_unsent();
        assert!(outbox.is_empty());
    }
}
