//! The frames that a shard is about to write, each stored once, however many clients get it.

use bytes::Bytes;

/// Slots that an empty queue keeps allocated.
const KEPT_SLOTS: usize = 4096;

/// A frame in its shard's queue. It is valid until the queue is cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameRef {
    pub(super) index: u32,
    pub(super) length: u32,
}

impl FrameRef {
    pub(crate) fn length(self) -> usize {
        self.length as usize
    }
}

/// The frames that were queued on a shard since it last wrote.
#[derive(Debug, Default)]
pub(crate) struct FrameQueue {
    frames: Vec<Bytes>,
    /// A concatenation of some frames, as last written to a client; the next client often gets the same.
    merged: Vec<u8>,
    /// The indices of the frames in `merged`.
    merged_of: Vec<u32>,
}

impl FrameQueue {
    pub(crate) fn push(&mut self, frame: Bytes) -> FrameRef {
        let frame_ref = FrameRef { index: self.frames.len() as u32, length: frame.len() as u32 };
        self.frames.push(frame);
        frame_ref
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Drops all frames. No outbox may refer to any of them.
    pub(crate) fn clear(&mut self) {
        self.frames.clear();
        self.frames.shrink_to(KEPT_SLOTS);
        self.merged_of.clear();
    }

    pub(super) fn frame(&self, index: u32) -> &Bytes {
        &self.frames[index as usize]
    }

    /// Some frames as one contiguous slice.
    pub(super) fn piece(&mut self, indices: &[u32]) -> &[u8] {
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
