//! The rules of RFC 6455 on literal bytes, whole and in pieces.

use super::*;
use crate::protocol::websocket::encode::frame;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame, masked with the example mask of RFC 6455, section 5.7.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(0, &[payload]).to_vec();
    bytes[0] = first;
    bytes[1] |= MASKED;
    let header = bytes.len() - payload.len();
    let mut masked = payload.to_vec();
    unmask(&mut masked, MASK, 0);
    bytes.truncate(header);
    bytes.extend(MASK);
    bytes.extend(masked);
    bytes
}

fn text(payload: &str) -> Vec<u8> {
    client_frame(FINAL | OP_TEXT, payload.as_bytes())
}

/// Feeds `bytes` in pieces of `piece`, and returns the messages and the result.
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
fn rfc_example_is_decoded() {
    let bytes = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode(&bytes, 64, 100), (vec!["Text(\"Hello\")".to_owned()], Ok(())));
}

#[test]
fn frames_may_be_split_anywhere() {
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

/// Feeds `bytes` in two pieces, and returns the messages of each and the result.
fn decode_cut(bytes: &[u8], cut: usize) -> ([Vec<String>; 2], Result<(), Violation>) {
    let mut decoder = Decoder::default();
    let mut seen = [Vec::new(), Vec::new()];
    let mut end = Ok(());
    for (piece, seen) in [&bytes[..cut], &bytes[cut..]].into_iter().zip(&mut seen) {
        end = end.and_then(|()| {
            let sink = |message: Message<'_>| {
                seen.push(format!("{message:?}"));
                true
            };
            decoder.feed(&mut piece.to_vec(), || 1000, sink)
        });
    }
    (seen, end)
}

#[test]
fn message_is_delivered_at_its_last_byte() {
    let mut bytes = client_frame(OP_TEXT, "é".as_bytes());
    bytes.extend(client_frame(OP_CONTINUATION, "ü".as_bytes()));
    bytes.extend(client_frame(FINAL | OP_PING, b""));
    let ping = bytes.len();
    bytes.extend(client_frame(FINAL | OP_CONTINUATION, "€".as_bytes()));
    let first = bytes.len();
    bytes.extend(client_frame(FINAL | OP_BINARY, &[1; 130]));
    let all = ["Ping([])".to_owned(), "Text(\"éü€\")".to_owned(), format!("Binary({:?})", [1; 130])];
    for cut in 0..=bytes.len() {
        let (seen, end) = decode_cut(&bytes, cut);
        let before = [ping, first, bytes.len()].iter().filter(|end| **end <= cut).count();
        assert_eq!((&seen[0][..], &seen[1][..], end), (&all[..before], &all[before..], Ok(())), "cut at {cut}");
    }
}

#[test]
fn forbidden_frames_are_refused_with_close_codes() {
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
fn fragments_are_limited_and_utf8_checked_as_whole() {
    let mut bytes = client_frame(OP_TEXT, &[b'x'; 60]);
    bytes.extend(client_frame(FINAL, &[b'x'; 60]));
    assert_eq!(decode(&bytes, 64, 100).1, Err(TOO_LARGE));
    let mut split = client_frame(OP_TEXT, &[0xc3]);
    split.extend(client_frame(FINAL, &[0xa9]));
    assert_eq!(decode(&split, 64, 100).0, ["Text(\"é\")"]);
}

#[test]
fn absurd_length_is_refused_before_buffering() {
    let mut bytes = vec![FINAL | OP_BINARY, MASKED | 127];
    bytes.extend(u64::MAX.to_be_bytes());
    assert_eq!(decode(&bytes, 64, 100).1, Err(TOO_LARGE));
}

/// The number of single bytes after which the connection is refused, and the reason.
fn refused_after(bytes: &[u8]) -> Option<(usize, CloseCode)> {
    let mut decoder = Decoder::default();
    bytes.iter().enumerate().find_map(|(index, byte)| {
        let end = decoder.feed(&mut [*byte], || 1000, |_| true);
        end.err().map(|violation| (index + 1, violation.code))
    })
}

#[test]
fn invalid_utf8_is_refused_at_its_first_byte() {
    // Six bytes of header and mask, then a text of which byte 13 cannot follow byte 12.
    let text = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited";
    let refused = |at: usize| Some((at, CloseCode::InvalidPayload));
    assert_eq!(refused_after(&client_frame(FINAL | OP_TEXT, text)), refused(6 + 13), "in one frame");
    for cut in 0..text.len() {
        let mut bytes = client_frame(OP_TEXT, &text[..cut]);
        bytes.extend(client_frame(OP_CONTINUATION, b""));
        bytes.extend(client_frame(FINAL | OP_PING, b"\xff"));
        bytes.extend(client_frame(FINAL | OP_CONTINUATION, &text[cut..]));
        // A ping of seven bytes, and six for each further frame.
        let at = if cut < 13 { 6 + 13 + 6 + 7 + 6 } else { 6 + 13 };
        assert_eq!(refused_after(&bytes), refused(at), "in fragments, cut at {cut}");
    }
    let binary = client_frame(FINAL | OP_BINARY, text);
    assert_eq!(refused_after(&binary), None, "binary may be anything");
}

#[test]
fn fragment_utf8_is_checked_on_arrival() {
    for wrong in [&b"\xf4\x90"[..], b"\x80", b"\xf0\x9f\xff"] {
        assert_eq!(decode(&client_frame(OP_TEXT, wrong), 64, 100).1, Err(NOT_UTF8));
        let mut bytes = client_frame(OP_TEXT, b"good");
        bytes.extend(client_frame(OP_CONTINUATION, wrong));
        assert_eq!(decode(&bytes, 64, 100).1, Err(NOT_UTF8));
    }
    let half = client_frame(FINAL | OP_TEXT, b"half: \xf0\x9f");
    assert_eq!(decode(&half, 64, 100).1, Err(NOT_UTF8), "a text ends with a character");
}

#[test]
fn utf8_check_restarts_after_a_message() {
    let mut bytes = client_frame(OP_TEXT, b"\xf0\x9f");
    bytes.extend(client_frame(FINAL | OP_CONTINUATION, b"\x98\x80"));
    bytes.extend(client_frame(OP_BINARY, b"\xf0"));
    bytes.extend(client_frame(FINAL | OP_CONTINUATION, b"\xff"));
    bytes.extend(text("plain"));
    for piece in 1..bytes.len() {
        assert_eq!(decode(&bytes, piece, 100).0, ["Text(\"😀\")", "Binary([240, 255])", "Text(\"plain\")"]);
    }
}

#[test]
fn fragment_over_the_limit_is_refused_by_header() {
    let mut bytes = client_frame(OP_BINARY, &[0; 60]);
    bytes.extend([OP_CONTINUATION, MASKED | 41]);
    assert_eq!(decode(&bytes, 64, 100).1, Err(TOO_LARGE));
}
