//! WebSocket frames (RFC 6455), the server's side, without a socket.
//!
//! A connection keeps bytes only while a frame or a fragmented message is incomplete: whatever arrives whole is read
//! in place, in the buffer that its shard shares among all of its connections. Outgoing frames are not masked, so that
//! one encoded frame serves every connection.

use std::ops::Range;

use bytes::Bytes;

use crate::model::CloseCode;

const OP_CONTINUATION: u8 = 0x0;
const OP_TEXT: u8 = 0x1;
const OP_BINARY: u8 = 0x2;
const OP_CLOSE: u8 = 0x8;
const OP_PING: u8 = 0x9;
const OP_PONG: u8 = 0xa;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// The most that a control frame may carry (RFC 6455, section 5.5).
const MAX_CONTROL_BYTES: usize = 125;

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping, to be answered with a pong of the same content.
    Ping(&'a [u8]),
    /// The answer to a ping, or a sign of life.
    Pong,
    /// The client closes, or answers our close. The code is absent where it gave none.
    Close(Option<u16>),
}

/// Why a connection must be closed: the client broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// The close code that says so.
    pub code: CloseCode,
    /// The rule that was broken.
    pub reason: &'static str,
}

const fn protocol_error(reason: &'static str) -> Violation {
    Violation { code: CloseCode::ProtocolError, reason }
}

/// Reads a client's frames.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a frame of which the rest has not come.
    incomplete: Vec<u8>,
    /// The fragments of a message so far.
    fragments: Option<Box<Fragments>>,
}

#[derive(Debug)]
struct Fragments {
    is_text: bool,
    bytes: Vec<u8>,
}

struct Header {
    opcode: u8,
    is_final: bool,
    mask: [u8; 4],
    payload: Range<usize>,
}

impl Decoder {
    /// Reads what has arrived and gives `sink` each message. Stops early where `sink` returns `false`.
    /// The bytes in `input` are unmasked in place.
    ///
    /// # Errors
    /// Where the client breaks a rule of RFC 6455, or sends a message of more than `max_bytes` (asked for each frame,
    /// since a message may change what its sender may send).
    /// Nothing may be read from it after that.
    pub fn feed(
        &mut self,
        input: &mut [u8],
        max_bytes: impl Fn() -> usize,
        mut sink: impl FnMut(Message<'_>) -> bool,
    ) -> Result<(), Violation> {
        if self.incomplete.is_empty() {
            let read = self.read_frames(input, &max_bytes, &mut sink)?;
            self.incomplete.extend_from_slice(&input[read..]);
        } else {
            let mut bytes = std::mem::take(&mut self.incomplete);
            bytes.extend_from_slice(input);
            let read = self.read_frames(&mut bytes, &max_bytes, &mut sink)?;
            if read < bytes.len() {
                bytes.drain(..read);
                self.incomplete = bytes;
            }
        }
        Ok(())
    }

    /// Reads the whole frames at the start of `bytes`, and says how many bytes that was.
    fn read_frames(
        &mut self,
        bytes: &mut [u8],
        max_bytes: &impl Fn() -> usize,
        sink: &mut impl FnMut(Message<'_>) -> bool,
    ) -> Result<usize, Violation> {
        let mut read = 0;
        while let Some(header) = parse_header(&bytes[read..], max_bytes())? {
            let start = read + header.payload.start;
            let end = read + header.payload.end;
            let Some(payload) = bytes.get_mut(start..end) else { break };
            unmask(payload, header.mask);
            read = end;
            if !self.read_frame(&header, payload, max_bytes(), sink)? {
                // Whoever stopped us will not read on, so that what is left is of no use.
                return Ok(bytes.len());
            }
        }
        Ok(read)
    }

    fn read_frame(
        &mut self,
        header: &Header,
        payload: &[u8],
        max_bytes: usize,
        sink: &mut impl FnMut(Message<'_>) -> bool,
    ) -> Result<bool, Violation> {
        Ok(match header.opcode {
            OP_PING => sink(Message::Ping(payload)),
            OP_PONG => sink(Message::Pong),
            OP_CLOSE => sink(Message::Close(parse_close(payload)?)),
            OP_CONTINUATION => {
                let Some(fragments) = &mut self.fragments else {
                    return Err(protocol_error("a continuation of nothing"));
                };
                if fragments.bytes.len() + payload.len() > max_bytes {
                    return Err(TOO_LARGE);
                }
                fragments.bytes.extend_from_slice(payload);
                match header.is_final.then(|| self.fragments.take()).flatten() {
                    Some(whole) => sink(whole_message(whole.is_text, &whole.bytes)?),
                    None => true,
                }
            }
            opcode => {
                let is_text = opcode == OP_TEXT;
                if self.fragments.is_some() {
                    return Err(protocol_error("a new message within a fragmented one"));
                }
                if header.is_final {
                    sink(whole_message(is_text, payload)?)
                } else {
                    self.fragments = Some(Box::new(Fragments { is_text, bytes: payload.to_vec() }));
                    true
                }
            }
        })
    }

    /// Bytes kept for what is incomplete.
    #[cfg(test)]
    fn buffered(&self) -> usize {
        self.incomplete.capacity() + self.fragments.as_ref().map_or(0, |fragments| fragments.bytes.capacity())
    }
}

const TOO_LARGE: Violation = Violation { code: CloseCode::TooLarge, reason: "the message is over the size limit" };

/// Reads a frame's header; `None` where it is not all there.
fn parse_header(bytes: &[u8], max_bytes: usize) -> Result<Option<Header>, Violation> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    let opcode = first & 0x0f;
    let is_final = first & FINAL != 0;
    let is_control = opcode & 0x8 != 0;
    if first & RESERVED != 0 {
        return Err(protocol_error("a reserved bit is set, but no extension was agreed on"));
    }
    if !matches!(opcode, OP_CONTINUATION | OP_TEXT | OP_BINARY | OP_CLOSE | OP_PING | OP_PONG) {
        return Err(protocol_error("a reserved opcode"));
    }
    if second & MASKED == 0 {
        return Err(protocol_error("a client's frame must be masked"));
    }
    let short = usize::from(second & !MASKED);
    if is_control && (!is_final || short > MAX_CONTROL_BYTES) {
        return Err(protocol_error("a control frame is whole and at most 125 bytes long"));
    }
    let (length, mask_at) = match short {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|length| length.try_into().ok()) {
            Some(length) => (u64::from_be_bytes(length), 10),
            None => return Ok(None),
        },
        length => (length as u64, 2),
    };
    // Before anything of that length is kept.
    if length > max_bytes as u64 && !is_control {
        return Err(TOO_LARGE);
    }
    let start = mask_at + 4;
    let mask = bytes.get(mask_at..start).and_then(|mask| mask.try_into().ok());
    Ok(mask.map(|mask| Header { opcode, is_final, mask, payload: start..start + length as usize }))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let mask8 = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ mask8).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

fn whole_message(is_text: bool, bytes: &[u8]) -> Result<Message<'_>, Violation> {
    if !is_text {
        return Ok(Message::Binary(bytes));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Message::Text(text)),
        Err(_) => Err(Violation { code: CloseCode::InvalidPayload, reason: "text that is not UTF-8" }),
    }
}

fn parse_close(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(protocol_error("half a close code")),
        [a, b, reason @ ..] => {
            let code = u16::from_be_bytes([*a, *b]);
            // RFC 6455, section 7.4, and the registry that it opens: others must not be on the wire.
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(protocol_error("a close code that must not be sent"));
            }
            if std::str::from_utf8(reason).is_err() {
                return Err(Violation { code: CloseCode::InvalidPayload, reason: "a close reason that is not UTF-8" });
            }
            Ok(Some(code))
        }
    }
}

fn frame(opcode: u8, parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut frame = Vec::with_capacity(length + 10);
    frame.push(FINAL | opcode);
    match length {
        0..=125 => frame.push(length as u8),
        126..=0xffff => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    for part in parts {
        frame.extend_from_slice(part);
    }
    frame.into()
}

/// A text message.
pub fn text_frame(text: &str) -> Bytes {
    frame(OP_TEXT, &[text.as_bytes()])
}

/// A ping without content.
pub fn ping_frame() -> Bytes {
    Bytes::from_static(&[FINAL | OP_PING, 0])
}

/// The answer to a ping.
pub fn pong_frame(content: &[u8]) -> Bytes {
    frame(OP_PONG, &[content])
}

/// A close, with a reason of at most 123 bytes; what is longer is cut.
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(MAX_CONTROL_BYTES - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    frame(OP_CLOSE, &[&code.to_be_bytes(), &reason.as_bytes()[..end]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// A client's frame, masked with the example mask of RFC 6455, section 5.7.
    fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame(0, &[payload]).to_vec();
        bytes[0] = first;
        bytes[1] |= MASKED;
        let header = bytes.len() - payload.len();
        let mut masked = payload.to_vec();
        unmask(&mut masked, MASK);
        bytes.truncate(header);
        bytes.extend(MASK);
        bytes.extend(masked);
        bytes
    }

    fn text(payload: &str) -> Vec<u8> {
        client_frame(FINAL | OP_TEXT, payload.as_bytes())
    }

    /// Feeds `bytes` in pieces of `piece`, and tells what came out and how it ended.
    fn decode(bytes: &[u8], piece: usize, max_bytes: usize) -> (Vec<String>, Result<(), Violation>) {
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        let mut end = Ok(());
        for chunk in bytes.chunks(piece) {
            end = decoder.feed(
                &mut chunk.to_vec(),
                || max_bytes,
                |message| {
                    seen.push(format!("{message:?}"));
                    true
                },
            );
            if end.is_err() {
                break;
            }
        }
        if end.is_ok() {
            assert_eq!(decoder.buffered(), 0, "an idle connection keeps no bytes");
        }
        (seen, end)
    }

    #[test]
    fn the_example_of_the_rfc_is_read() {
        let bytes = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(decode(&bytes, 64, 100), (vec!["Text(\"Hello\")".to_owned()], Ok(())));
    }

    #[test]
    fn frames_are_read_wherever_they_are_cut() {
        let mut bytes = text("one");
        bytes.extend(client_frame(OP_TEXT, "frag".as_bytes()));
        bytes.extend(client_frame(FINAL | OP_PING, b"p"));
        bytes.extend(client_frame(FINAL, "ments é".as_bytes()));
        bytes.extend(client_frame(FINAL | OP_BINARY, &[7; 300]));
        bytes.extend(text(&"x".repeat(70_000)));
        bytes.extend(client_frame(FINAL | OP_PONG, b""));
        bytes.extend(client_frame(FINAL | OP_CLOSE, &1000u16.to_be_bytes()));
        let (whole, end) = decode(&bytes, usize::MAX, 100_000);
        assert_eq!(end, Ok(()));
        assert_eq!(whole[0], "Text(\"one\")");
        assert_eq!(whole[1], "Ping([112])");
        assert_eq!(whole[2], "Text(\"fragments é\")");
        assert_eq!(whole[5..], ["Pong", "Close(Some(1000))"]);
        for piece in [1, 2, 3, 7, 64, 1000, 65_536] {
            assert_eq!(decode(&bytes, piece, 100_000).0, whole, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_the_rfc_forbids_closes_the_connection_with_its_code() {
        let close = |payload: &[u8]| client_frame(FINAL | OP_CLOSE, payload);
        let mut nested = client_frame(OP_TEXT, b"a");
        nested.extend(text("b"));
        let mut unmasked = text("a");
        unmasked[1] &= !MASKED;
        for (bytes, code) in [
            (client_frame(FINAL | 0x40 | OP_TEXT, b"a"), CloseCode::ProtocolError),
            (client_frame(FINAL | 0x3, b"a"), CloseCode::ProtocolError),
            (client_frame(FINAL | 0xb, b"a"), CloseCode::ProtocolError),
            (client_frame(OP_PING, b"a"), CloseCode::ProtocolError),
            (client_frame(FINAL | OP_PING, &[0; 126]), CloseCode::ProtocolError),
            (client_frame(FINAL, b"a"), CloseCode::ProtocolError),
            (nested, CloseCode::ProtocolError),
            (unmasked, CloseCode::ProtocolError),
            (close(b"x"), CloseCode::ProtocolError),
            (close(&1005u16.to_be_bytes()), CloseCode::ProtocolError),
            (close(&999u16.to_be_bytes()), CloseCode::ProtocolError),
            (close(&[3, 0xe8, 0xff]), CloseCode::InvalidPayload),
            (client_frame(FINAL | OP_TEXT, &[0xc3, 0x28]), CloseCode::InvalidPayload),
            (text(&"x".repeat(101)), CloseCode::TooLarge),
            (client_frame(FINAL | OP_BINARY, &[0; 200]), CloseCode::TooLarge),
        ] {
            let (_, end) = decode(&bytes, 64, 100);
            assert_eq!(end.map_err(|violation| violation.code), Err(code), "{bytes:?}");
        }
    }

    #[test]
    fn fragments_are_bounded_together_and_checked_together() {
        let mut bytes = client_frame(OP_TEXT, &[b'x'; 60]);
        bytes.extend(client_frame(FINAL, &[b'x'; 60]));
        assert_eq!(decode(&bytes, 64, 100).1, Err(TOO_LARGE));
        let mut split = client_frame(OP_TEXT, &[0xc3]);
        split.extend(client_frame(FINAL, &[0xa9]));
        assert_eq!(decode(&split, 64, 100).0, ["Text(\"é\")"]);
    }

    #[test]
    fn a_length_that_nobody_could_mean_is_refused_before_anything_is_kept() {
        let mut bytes = vec![FINAL | OP_BINARY, MASKED | 127];
        bytes.extend(u64::MAX.to_be_bytes());
        assert_eq!(decode(&bytes, 64, 100).1, Err(TOO_LARGE));
    }

    #[test]
    fn a_close_reason_is_cut_between_characters() {
        let frame = close_frame(4010, &"é".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
