//! Reads only the first bytes of a server's frames: attackers receive many.

/// The number of bytes of a frame that are read: an error's code comes before its message.
const SEEN: usize = 160;

/// The position in a stream of a server's frames.
#[derive(Debug, Default)]
pub(super) struct Glimpse {
    head: Vec<u8>,
    opcode: u8,
    rest: usize,
    seen: Vec<u8>,
    in_payload: bool,
}

impl Glimpse {
    /// Walks through `bytes`, and passes the opcode and the first bytes of each frame that ends in them to `take`.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(u8, &[u8])) {
        while !bytes.is_empty() {
            if !self.in_payload {
                self.head.push(bytes[0]);
                bytes = &bytes[1..];
                let Some(length) = length(&self.head) else { continue };
                (self.opcode, self.rest, self.in_payload) = (self.head[0] & 0x0f, length, true);
                self.head.clear();
            }
            let n = self.rest.min(bytes.len());
            let wanted = n.min(SEEN - self.seen.len());
            self.seen.extend_from_slice(&bytes[..wanted]);
            self.rest -= n;
            bytes = &bytes[n..];
            if self.rest == 0 {
                take(self.opcode, &self.seen);
                self.seen.clear();
                self.in_payload = false;
            }
        }
    }
}

/// The length of the payload; `None` if the head is incomplete.
fn length(head: &[u8]) -> Option<usize> {
    match *head {
        [_, n] if n <= 125 => Some(usize::from(n)),
        [_, 126, a, b] => Some(usize::from(u16::from_be_bytes([a, b]))),
        [_, 127, a, b, c, d, e, f, g, h] => Some(u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize),
        _ => None,
    }
}

/// The code of an error, from the first bytes of a frame.
pub(super) fn error_code(seen: &[u8]) -> Option<&str> {
    const CODE: &[u8] = b"\"code\":\"";
    const ERROR: &[u8] = b"error";
    let near = &seen[..seen.len().min(SEEN)];
    // Other events may have a `code` of their own; that of an error follows the word `error`.
    let error = near.windows(ERROR.len()).position(|window| window == ERROR)?;
    let code = near[error..].windows(CODE.len()).position(|window| window == CODE)? + error + CODE.len();
    let end = near[code..].iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&near[code..code + end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_across_any_split() {
        let mut stream = vec![0x89, 0, 0x81, 2, b'h', b'i', 0x81, 126, 1, 0];
        stream.extend([b'x'; 256]);
        stream.extend([0x88, 2, 0x0f, 0xa9]);
        for size in [1, 3, 7, 300] {
            let (mut glimpse, mut got) = (Glimpse::default(), Vec::new());
            for piece in stream.chunks(size) {
                glimpse.feed(piece, |opcode, seen| got.push((opcode, seen.len())));
            }
            assert_eq!(got, [(9, 0), (1, 2), (1, SEEN), (8, 2)], "in pieces of {size}");
        }
    }

    #[test]
    fn error_codes_are_found_in_each_protocol() {
        for (frame, code) in [
            (r#"{"id":7,"error":{"code":"rate_limited","message":"x"}}"#, Some("rate_limited")),
            (r#"{"event":"error","data":{"code":"internal","message":"x"}}"#, Some("internal")),
            (r#"437[{"error":{"code":"forbidden"}}]"#, Some("forbidden")),
            (r#"42["error",{"code":"bad_request"}]"#, Some("bad_request")),
            (r#"{"event":"news","data":{"code":"7"}}"#, None),
            (r#"{"id":7,"data":{}}"#, None),
        ] {
            assert_eq!(error_code(frame.as_bytes()), code, "{frame}");
        }
    }
}
