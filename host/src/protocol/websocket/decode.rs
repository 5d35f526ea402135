//! The decoder of client frames (RFC 6455), for input in arbitrary pieces.

use std::ops::Range;

use super::utf8::Utf8;
use super::{
    FINAL, MASKED, MAX_CONTROL_BYTES, OP_BINARY, OP_CLOSE, OP_CONTINUATION, OP_PING, OP_PONG, OP_TEXT, parse_length,
};
use crate::model::CloseCode;

const RESERVED: u8 = 0x70;

/// The largest ratio of a buffer's capacity to its content: growing leaves at most twice the content.
const SPARE: usize = 4;
/// A capacity, in bytes, that is not worth shrinking.
const LEAST_SPARE: usize = 256;

/// A message of a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A complete text message.
    Text(&'a str),
    /// A complete binary message.
    Binary(&'a [u8]),
    /// A ping, to be answered with a pong of the same content.
    Ping(&'a [u8]),
    /// A pong, whether it answers a ping or not.
    Pong,
    /// The client's close, or its answer to the host's close. The code is optional.
    Close(Option<u16>),
}

/// A protocol violation, for which the connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// The close code for it.
    pub code: CloseCode,
    /// The rule that was broken.
    pub reason: &'static str,
}

const fn protocol_error(reason: &'static str) -> Violation {
    Violation { code: CloseCode::ProtocolError, reason }
}

const TOO_LARGE: Violation = Violation { code: CloseCode::TooLarge, reason: "the message is over the size limit" };
const NOT_UTF8: Violation = Violation { code: CloseCode::InvalidPayload, reason: "text that is not UTF-8" };

/// Decodes a client's frames.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of an incomplete frame.
    incomplete: Vec<u8>,
    /// The length of the incomplete frame's payload that is unmasked and checked.
    ready: usize,
    /// The fragments of a message so far.
    fragments: Option<Box<Fragments>>,
    /// The UTF-8 state of the incomplete text, so that invalid text is refused at once.
    utf8: Utf8,
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
    /// Decodes received bytes, and passes each message to `sink`. Stops early if `sink` returns `false`. The bytes in
    /// `input` are unmasked in place.
    ///
    /// # Errors
    /// Where the client violates RFC 6455, or sends a message of more than `max_bytes` (called for each frame, because
    /// a message may change the limit). Nothing may be decoded after that.
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
                if bytes.capacity() / SPARE > bytes.len().max(LEAST_SPARE) {
                    // The buffer of a large message is not kept for the beginning of a small one.
                    bytes.shrink_to_fit();
                }
                self.incomplete = bytes;
            }
        }
        Ok(())
    }

    /// Bytes kept of incomplete frames and messages.
    pub fn buffered(&self) -> usize {
        self.incomplete.capacity() + self.fragments.as_ref().map_or(0, |fragments| fragments.bytes.capacity())
    }

    /// Decodes the complete frames at the start of `bytes`. Returns their length.
    fn read_frames(
        &mut self,
        bytes: &mut [u8],
        max_bytes: &impl Fn() -> usize,
        sink: &mut impl FnMut(Message<'_>) -> bool,
    ) -> Result<usize, Violation> {
        let mut read = 0;
        while let Some(header) = parse_header(&bytes[read..], self.room(max_bytes()))? {
            self.check_order(&header)?;
            let frame = &mut bytes[read..];
            let end = header.payload.end.min(frame.len());
            let arrived = &mut frame[header.payload.start..end];
            let ready = std::mem::take(&mut self.ready);
            unmask(&mut arrived[ready..], header.mask, ready);
            if end < header.payload.end {
                self.check_text(&header, &arrived[ready..])?;
                self.ready = arrived.len();
                break;
            }
            read += end;
            if !self.read_frame(&header, arrived, ready, sink)? {
                // A caller that stops reads no further, so the rest is not needed.
                return Ok(bytes.len());
            }
        }
        Ok(read)
    }

    /// The limit of a frame: the limit of a message less its fragments so far.
    fn room(&self, max_bytes: usize) -> usize {
        max_bytes.saturating_sub(self.fragments.as_ref().map_or(0, |fragments| fragments.bytes.len()))
    }

    /// Checks that a frame begins a message where none is open, and continues the open one otherwise.
    fn check_order(&self, header: &Header) -> Result<(), Violation> {
        match (header.opcode, &self.fragments) {
            (OP_CONTINUATION, None) => Err(protocol_error("a continuation of nothing")),
            (OP_TEXT | OP_BINARY, Some(_)) => Err(protocol_error("a new message within a fragmented one")),
            _ => Ok(()),
        }
    }

    /// Checks the part of an incomplete text that has arrived.
    fn check_text(&mut self, header: &Header, new: &[u8]) -> Result<(), Violation> {
        let is_text = match header.opcode {
            OP_CONTINUATION => self.fragments.as_ref().is_some_and(|fragments| fragments.is_text),
            opcode => opcode == OP_TEXT,
        };
        if is_text && !self.utf8.accepts(new) { Err(NOT_UTF8) } else { Ok(()) }
    }

    fn read_frame(
        &mut self,
        header: &Header,
        payload: &[u8],
        ready: usize,
        sink: &mut impl FnMut(Message<'_>) -> bool,
    ) -> Result<bool, Violation> {
        Ok(match header.opcode {
            OP_PING => sink(Message::Ping(payload)),
            OP_PONG => sink(Message::Pong),
            OP_CLOSE => sink(Message::Close(parse_close(payload)?)),
            opcode => {
                if !header.is_final {
                    self.check_text(header, &payload[ready..])?;
                }
                match self.fragments.take() {
                    None if header.is_final => self.finish(opcode == OP_TEXT, payload, sink)?,
                    None => {
                        let begun = Fragments { is_text: opcode == OP_TEXT, bytes: payload.to_vec() };
                        self.fragments = Some(Box::new(begun));
                        true
                    }
                    Some(mut fragments) => {
                        fragments.bytes.extend_from_slice(payload);
                        if header.is_final {
                            return self.finish(fragments.is_text, &fragments.bytes, sink);
                        }
                        self.fragments = Some(fragments);
                        true
                    }
                }
            }
        })
    }

    /// Passes a complete message to the sink.
    fn finish(
        &mut self,
        is_text: bool,
        bytes: &[u8],
        sink: &mut impl FnMut(Message<'_>) -> bool,
    ) -> Result<bool, Violation> {
        self.utf8 = Utf8::default();
        Ok(if is_text {
            sink(Message::Text(std::str::from_utf8(bytes).map_err(|_| NOT_UTF8)?))
        } else {
            sink(Message::Binary(bytes))
        })
    }
}

/// Decodes a frame's header; `None` if it is incomplete. The frame of a message has at most `room` bytes.
fn parse_header(bytes: &[u8], room: usize) -> Result<Option<Header>, Violation> {
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
    if is_control && (!is_final || usize::from(second & !MASKED) > MAX_CONTROL_BYTES) {
        return Err(protocol_error("a control frame is whole and at most 125 bytes long"));
    }
    let Some((length, mask_at)) = parse_length(bytes) else { return Ok(None) };
    // Refused before anything of that length is buffered.
    if length > room as u64 && !is_control {
        return Err(TOO_LARGE);
    }
    let start = mask_at + 4;
    let mask = bytes.get(mask_at..start).and_then(|mask| mask.try_into().ok());
    Ok(mask.map(|mask| Header { opcode, is_final, mask, payload: start..start + length as usize }))
}

/// Unmasks bytes that are `offset` behind the start of a payload.
fn unmask(payload: &mut [u8], mut mask: [u8; 4], offset: usize) {
    mask.rotate_left(offset % 4);
    let mask8 = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ mask8).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

fn parse_close(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(protocol_error("half a close code")),
        [a, b, reason @ ..] => {
            let code = u16::from_be_bytes([*a, *b]);
            // RFC 6455, section 7.4, and its registry: other codes must not be on the wire.
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

#[cfg(test)]
mod tests;
