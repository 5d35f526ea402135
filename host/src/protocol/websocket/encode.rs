//! The encoder of frames to clients: complete messages, not masked.

use bytes::Bytes;

use super::{FINAL, MAX_CONTROL_BYTES, OP_BINARY, OP_CLOSE, OP_PING, OP_PONG, OP_TEXT, parse_length};

/// The length of the header of a frame with content of this length.
fn header_bytes(length: usize) -> usize {
    match length {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// The header of a frame with content of this length.
fn push_header(frames: &mut Vec<u8>, opcode: u8, length: usize) {
    frames.push(FINAL | opcode);
    match header_bytes(length) {
        2 => frames.push(length as u8),
        4 => {
            frames.push(126);
            frames.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            frames.push(127);
            frames.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

pub(super) fn frame(opcode: u8, parts: &[&[u8]]) -> Bytes {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut frame = Vec::with_capacity(header_bytes(length) + length);
    push_header(&mut frame, opcode, length);
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    frame.into()
}

/// A text message.
pub fn text_frame(text: &str) -> Bytes {
    frame(OP_TEXT, &[text.as_bytes()])
}

/// A binary message.
pub fn binary_frame(bytes: &[u8]) -> Bytes {
    frame(OP_BINARY, &[bytes])
}

/// A text message of concatenated parts, then a binary message for each attachment.
pub fn message_frames(text: &[&str], attachments: &[Bytes]) -> Bytes {
    let length: usize = text.iter().map(|part| part.len()).sum();
    let binary: usize = attachments.iter().map(|bytes| header_bytes(bytes.len()) + bytes.len()).sum();
    let mut frames = Vec::with_capacity(header_bytes(length) + length + binary);
    push_header(&mut frames, OP_TEXT, length);
    text.iter().for_each(|part| frames.extend_from_slice(part.as_bytes()));
    for attachment in attachments {
        push_header(&mut frames, OP_BINARY, attachment.len());
        frames.extend_from_slice(attachment);
    }
    frames.into()
}

/// A ping without content.
pub fn ping_frame() -> Bytes {
    Bytes::from_static(&[FINAL | OP_PING, 0])
}

/// A pong.
pub fn pong_frame(content: &[u8]) -> Bytes {
    frame(OP_PONG, &[content])
}

/// A close, with a reason that is cut at 123 bytes.
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(MAX_CONTROL_BYTES - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    frame(OP_CLOSE, &[&code.to_be_bytes(), &reason.as_bytes()[..end]])
}

/// The content of an encoded frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// A text message, which is UTF-8.
    Text(&'a [u8]),
    /// A binary message.
    Binary(&'a [u8]),
}

/// The contents of consecutive frames that this module encoded. Control frames are skipped.
pub fn contents(mut frames: &[u8]) -> impl Iterator<Item = Content<'_>> {
    std::iter::from_fn(move || {
        loop {
            let opcode = frames.first()? & 0x0f;
            let (length, start) = parse_length(frames)?;
            let end = start.checked_add(usize::try_from(length).ok()?)?;
            let (frame, rest) = frames.split_at_checked(end)?;
            frames = rest;
            match opcode {
                OP_TEXT => return Some(Content::Text(&frame[start..])),
                OP_BINARY => return Some(Content::Binary(&frame[start..])),
                _ => {}
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_length_follows_content_length() {
        for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let bytes = vec![b'7'; length];
            let text = str::from_utf8(&bytes).unwrap();
            let frames = message_frames(&[text], &[bytes.clone().into()]);
            assert_eq!(frames.len(), 2 * (header + length), "{length}");
            let contents: Vec<_> = contents(&frames).collect();
            assert_eq!(contents, [Content::Text(&bytes), Content::Binary(&bytes)], "{length}");
            assert_eq!(frames, [text_frame(text), binary_frame(&bytes)].concat(), "{length}");
        }
    }

    #[test]
    fn contents_of_malformed_frames_are_empty() {
        for bytes in [&b""[..], b"\x81", b"\x81\x05four", b"\x82\x7e\x00", b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff1"]
        {
            assert_eq!(contents(bytes).next(), None, "{bytes:?}");
        }
    }

    #[test]
    fn close_reason_is_cut_between_characters() {
        let frame = close_frame(4010, &"é".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
