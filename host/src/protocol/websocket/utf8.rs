//! Incremental validation of UTF-8.

/// Validates the pieces of a text one after another, and buffers at most the beginning of one character.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Utf8 {
    /// The first bytes, at most three, of the character that the last piece ended in.
    begun: [u8; 4],
    len: u8,
}

impl Utf8 {
    /// Whether the pieces so far, with this one, can be the beginning of valid UTF-8. Must not be called again after `false`.
    pub(super) fn accepts(&mut self, mut piece: &[u8]) -> bool {
        while self.len > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return true };
            piece = rest;
            let end = usize::from(self.len) + 1;
            self.begun[end - 1] = byte;
            self.len = match std::str::from_utf8(&self.begun[..end]) {
                Ok(_) => 0,
                // Four bytes are a complete character or an error, so the buffer always has room.
                Err(error) if error.error_len().is_none() => self.len + 1,
                Err(_) => return false,
            };
        }
        let Err(error) = std::str::from_utf8(piece) else { return true };
        let begun = &piece[error.valid_up_to()..];
        if error.error_len().is_some() {
            return false;
        }
        self.begun[..begun.len()].copy_from_slice(begun);
        self.len = begun.len() as u8;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of single bytes before one is refused.
    fn taken(bytes: &[u8]) -> usize {
        let mut utf8 = Utf8::default();
        bytes.iter().take_while(|byte| utf8.accepts(&[**byte])).count()
    }

    #[test]
    fn first_invalid_byte_is_refused() {
        for (bytes, good) in [
            (&b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80"[..], 12),
            (b"a\xc3\x28", 2),
            (b"\x80", 0),
            (b"\xc0\xaf", 0),
            (b"\xed\xa0\x80", 1),
            (b"\xf0\x8f\xbf\xbf", 1),
            (b"\xf0\x9f\x98\x80\xf0\x9f\x98", 7),
        ] {
            assert_eq!(taken(bytes), good, "{bytes:x?}");
        }
    }

    #[test]
    fn text_may_be_split_anywhere() {
        let text = "aé\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}z".as_bytes();
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let mut utf8 = Utf8::default();
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert!(pieces.iter().all(|piece| utf8.accepts(piece)), "cut at {first} and {second}");
                assert_eq!(utf8.len, 0);
            }
        }
    }
}
