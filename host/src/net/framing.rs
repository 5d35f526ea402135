//! HTTP/1's message framing (RFC 9112, section 6): the boundaries of requests in the bytes of a connection.
//!
//! Where a request has both `Transfer-Encoding` and `Content-Length`, the HTTP library uses the former and hides the
//! latter. A proxy that uses the latter sees other requests than the host: request smuggling. So heads are parsed here
//! before the library parses them.

/// The body's length by its head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Lengths {
    content_length: Option<u64>,
    is_chunked: bool,
}

/// The part of a request that the next bytes belong to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    /// A request's head, or more of it.
    #[default]
    Head,
    /// A body with this many bytes left.
    Body(u64),
    /// The size of a chunk, as far as read.
    ChunkSize(u64),
    /// The rest of the line with a chunk's size.
    ChunkExtension(u64),
    /// A chunk and its line break, with this many bytes left.
    Chunk(u64),
    /// The trailers; whether the line is empty so far.
    Trailers { is_empty: bool },
    /// No further HTTP: after an upgrade, or malformed, which the library refuses.
    Anything,
}

/// Follows the requests of a connection.
#[derive(Debug, Default)]
pub(super) struct Framing {
    at: At,
    /// The incomplete head.
    head: Vec<u8>,
    /// The number of complete heads so far.
    n_requests: u64,
    ambiguous: Option<u64>,
}

impl Framing {
    /// The index of the first request with two lengths. Nothing behind it is parsed.
    pub(super) fn ambiguous(&self) -> Option<u64> {
        self.ambiguous
    }

    /// The bytes of the incomplete head.
    pub(super) fn incomplete(&self) -> usize {
        self.head.len()
    }

    /// Parses the next bytes.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.at {
                At::Head => self.read_head(bytes),
                At::Anything => return,
                at => {
                    let (at, rest) = read_body(at, bytes);
                    self.at = at;
                    rest
                }
            };
        }
    }

    fn read_head<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        if self.head.is_empty() {
            // Empty lines before a request are skipped.
            bytes = &bytes[bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()..];
        }
        let before = self.head.len();
        // Most heads arrive in one piece, and need no copy.
        let end = if before == 0 { end_of_head(bytes, 0) } else { self.end_within(bytes) };
        let Some(end) = end else {
            self.head.extend_from_slice(bytes);
            return &[];
        };
        let (part, rest) = bytes.split_at(end - before);
        let lengths = if before == 0 {
            read_lengths(part)
        } else {
            self.head.extend_from_slice(part);
            read_lengths(&std::mem::take(&mut self.head))
        };
        let number = self.n_requests;
        self.n_requests += 1;
        self.at = match lengths {
            Lengths { content_length: Some(_), is_chunked: true } => {
                self.ambiguous = Some(number);
                At::Anything
            }
            Lengths { is_chunked: true, .. } => At::ChunkSize(0),
            Lengths { content_length: Some(length @ 1..), .. } => At::Body(length),
            Lengths { .. } => At::Head,
        };
        rest
    }

    /// The end of a head that began in earlier bytes.
    fn end_within(&self, bytes: &[u8]) -> Option<usize> {
        // The empty line may have begun in earlier bytes.
        let kept = self.head.len().saturating_sub(3);
        let overlap = [&self.head[kept..], &bytes[..bytes.len().min(3)]].concat();
        let at_seam = end_of_head(&overlap, 0).map(|end| kept + end);
        at_seam.or_else(|| end_of_head(bytes, 0).map(|end| self.head.len() + end))
    }
}

/// The end of a head: behind its first empty line.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', &bytes[from..]).find_map(|at| match &bytes[from + at + 1..] {
        [b'\n', ..] => Some(from + at + 2),
        [b'\r', b'\n', ..] => Some(from + at + 3),
        _ => None,
    })
}

fn read_lengths(head: &[u8]) -> Lengths {
    let mut lengths = Lengths::default();
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        // Most lines are other headers.
        if !matches!(line.first(), Some(b'c' | b'C' | b't' | b'T')) {
            continue;
        }
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            lengths.is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            // The library refuses a length that is not a number.
            let number = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            lengths.content_length = Some(number.unwrap_or(0));
        }
    }
    lengths
}

/// Skips bytes of a body. Returns the next state and the remaining bytes.
fn read_body(at: At, bytes: &[u8]) -> (At, &[u8]) {
    let (first, rest) = (bytes[0], &bytes[1..]);
    let take = |left: u64| {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        (left - n as u64, &bytes[n..])
    };
    match at {
        At::Body(left) => {
            let (left, rest) = take(left);
            (if left == 0 { At::Head } else { At::Body(left) }, rest)
        }
        At::ChunkSize(size) => match char::from(first).to_digit(16) {
            Some(digit) => (At::ChunkSize(size.saturating_mul(16).saturating_add(digit.into())), rest),
            None if first == b'\n' => (after_size(size), rest),
            None => (At::ChunkExtension(size), rest),
        },
        At::ChunkExtension(size) if first == b'\n' => (after_size(size), rest),
        At::ChunkExtension(_) => (at, rest),
        At::Chunk(left) => {
            let (left, rest) = take(left);
            (if left == 0 { At::ChunkSize(0) } else { At::Chunk(left) }, rest)
        }
        At::Trailers { is_empty: true } if first == b'\n' => (At::Head, rest),
        At::Trailers { .. } if first == b'\n' => (At::Trailers { is_empty: true }, rest),
        At::Trailers { is_empty } => (At::Trailers { is_empty: is_empty && first == b'\r' }, rest),
        At::Head | At::Anything => (at, rest),
    }
}

fn after_size(size: u64) -> At {
    match size {
        0 => At::Trailers { is_empty: true },
        size => At::Chunk(size.saturating_add(b"\r\n".len() as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Xorshift;

    /// Parses bytes in pieces of a size. Returns the number of requests, and the index of the ambiguous one.
    fn read(bytes: &str, piece: usize) -> (u64, Option<u64>) {
        let mut framing = Framing::default();
        bytes.as_bytes().chunks(piece).for_each(|piece| framing.read(piece));
        (framing.n_requests, framing.ambiguous())
    }

    #[test]
    fn requests_are_framed_across_any_split() {
        let get = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let sized = "POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\nPOST / HTTP/1.1\r\na: b\r\n\r\n01234";
        let chunked = "POST / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\n\r\n1a;ext=\"x\"\r\nGET / HTTP/1.1\r\na: b\r\n\r\nxx\r\n\
                       0\r\ntrailer: x\r\n\r\n";
        let bare = "GET / HTTP/1.1\nhost: x\n\n";
        let both =
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        let other_way = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n";
        for (bytes, requests, ambiguous) in [
            (get.repeat(3), 3, None),
            (["\r\n\r\n", get].concat(), 1, None),
            ([sized, get].concat(), 2, None),
            ([chunked, get, chunked, sized, bare, get].concat(), 6, None),
            ([get, both].concat(), 2, Some(1)),
            ([chunked, other_way, get].concat(), 2, Some(1)),
            // A similar name, and a similar value.
            ("GET / HTTP/1.1\r\ncontent-lengths: 5\r\nx: transfer-encoding: chunked\r\n\r\n".to_owned(), 1, None),
        ] {
            for piece in [1, 2, 3, 7, 64, usize::MAX] {
                assert_eq!(read(&bytes, piece), (requests, ambiguous), "{piece}: {bytes}");
            }
        }
    }

    #[test]
    fn incomplete_head_bytes_are_counted() {
        let mut framing = Framing::default();
        framing.read(b"GET / HTTP/1.1\r\nhost: x\r\n");
        assert_eq!(framing.incomplete(), 25);
        framing.read(b"\r\n");
        assert_eq!(framing.incomplete(), 0);
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let mut random = Xorshift::default();
        let mut next = || random.next();
        let words = [
            "GET / HTTP/1.1",
            "\r\n",
            "\n",
            "content-length:",
            "transfer-encoding: chunked",
            "ffffffffffffffffff",
            "0",
            ";",
            "7",
        ];
        for _ in 0..2000 {
            let mut framing = Framing::default();
            for _ in 0..next() % 32 {
                framing.read(words[next() as usize % words.len()].as_bytes());
            }
        }
    }
}
