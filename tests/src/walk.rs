//! Goes from frame to frame through a server's bytes, reading little but their lengths.

/// The greatest payload whose length fits into the second byte of a frame. Events of benchmarks are longer, all other
/// frames shorter.
const SHORT: usize = 125;

/// The position in a stream of a server's frames. Only incomplete heads and short frames are kept.
#[derive(Debug, Default)]
pub struct Walk {
    head: [u8; 10],
    n_head: usize,
    opcode: u8,
    rest: usize,
    is_short: bool,
    short: Vec<u8>,
}

/// The long frames in one piece of the stream.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Long {
    /// The number of long frames that ended in these bytes.
    pub frames: usize,
    /// The bytes of their payloads, those of unfinished frames included.
    pub bytes: usize,
}

impl Walk {
    /// Goes through `bytes`, and passes opcode and payload of each short frame that ends in them to `take`.
    pub fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(u8, &[u8])) -> Long {
        let mut long = Long::default();
        while !bytes.is_empty() {
            if self.rest == 0 {
                let Some(n) = self.begin(bytes) else { return long };
                bytes = &bytes[n..];
            }
            let n = self.rest.min(bytes.len());
            self.rest -= n;
            let ended = self.rest == 0;
            if !self.is_short {
                long.bytes += n;
                long.frames += usize::from(ended);
            } else if ended && self.short.is_empty() {
                take(self.opcode, &bytes[..n]);
            } else {
                self.short.extend_from_slice(&bytes[..n]);
                if ended {
                    take(self.opcode, &self.short);
                    self.short.clear();
                }
            }
            bytes = &bytes[n..];
        }
        long
    }

    /// Begins the next frame. Returns the length of its head in these bytes; `None` if the head is incomplete.
    fn begin(&mut self, bytes: &[u8]) -> Option<usize> {
        let (n, (opcode, length)) = if self.n_head == 0
            && let Some((n, head)) = head(bytes)
        {
            (n, head)
        } else {
            let mut n = 0;
            loop {
                self.head[self.n_head] = *bytes.get(n)?;
                self.n_head += 1;
                n += 1;
                if let Some((_, head)) = head(&self.head[..self.n_head]) {
                    self.n_head = 0;
                    break (n, head);
                }
            }
        };
        (self.opcode, self.rest, self.is_short) = (opcode, length, length <= SHORT);
        Some(n)
    }
}

/// The length of a frame's head, the opcode and the length of the payload; `None` if the head is incomplete.
fn head(bytes: &[u8]) -> Option<(usize, (u8, usize))> {
    let (n, length) = match *bytes {
        [_, n, ..] if usize::from(n) <= SHORT => (2, usize::from(n)),
        [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
        [_, 127, a, b, c, d, e, f, g, h, ..] => (10, u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize),
        _ => return None,
    };
    Some((n, (bytes[0] & 0x0f, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of each kind of length, and empty ones.
    fn stream() -> Vec<u8> {
        let mut stream = vec![0x89, 0, 0x81, 2, b'h', b'i', 0x81, 126, 0, 200];
        stream.extend([b'x'; 200]);
        stream.extend([0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        stream.extend([b'y'; 65_536]);
        stream.extend([0x8a, 1, b'p', 0x81, 0]);
        stream
    }

    #[test]
    fn frames_are_found_across_any_split() {
        let stream = stream();
        for size in [1, 2, 3, 7, 199, 4096, stream.len()] {
            let (mut walk, mut short, mut sum) = (Walk::default(), Vec::new(), Long::default());
            for piece in stream.chunks(size) {
                let long = walk.feed(piece, |opcode, payload| short.push((opcode, payload.to_vec())));
                sum = Long { frames: sum.frames + long.frames, bytes: sum.bytes + long.bytes };
            }
            assert_eq!(sum, Long { frames: 2, bytes: 200 + 65_536 }, "in pieces of {size}");
            let expected = [(9, vec![]), (1, b"hi".to_vec()), (10, b"p".to_vec()), (1, vec![])];
            assert_eq!(short, expected, "in pieces of {size}");
        }
    }
}
