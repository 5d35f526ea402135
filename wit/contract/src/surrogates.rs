//! Lone surrogates in JSON text.
//!
//! A string that was cut in the middle of an emoji ends with one half of a surrogate pair, which is no character.
//! `JSON.stringify` and other encoders write that half as an escape (`\ud83d`): the text is JSON (RFC 8259, section 8.2), but no
//! string of Rust can hold its value. One rule holds wherever JSON comes in: a lone surrogate is replaced by U+FFFD.

use std::borrow::Cow;

use memchr::memchr;

/// The length of an escape with four digits, in bytes.
const ESCAPE: usize = 6;

/// U+FFFD, which has the length of the escape that it replaces.
const REPLACEMENT: &str = "\\ufffd";

/// JSON text in which the escape of each lone surrogate is replaced by that of U+FFFD. Text that is not JSON stays
/// invalid. One pass over the text, and no copy unless an escape is replaced.
pub fn without_lone_surrogates(json: &str) -> Cow<'_, str> {
    let bytes = json.as_bytes();
    let mut mended = String::new();
    let (mut at, mut copied) = (0, 0);
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr(b'\\', rest)) {
        let here = at + found;
        at = match surrogate(bytes, here) {
            Some(Surrogate::High) if matches!(surrogate(bytes, here + ESCAPE), Some(Surrogate::Low)) => {
                here + 2 * ESCAPE
            }
            Some(_) => {
                mended.push_str(&json[copied..here]);
                mended.push_str(REPLACEMENT);
                copied = here + ESCAPE;
                copied
            }
            // Another escape, of which the second character is skipped: an escaped backslash does not begin an escape.
            None => here + 2,
        };
    }
    if copied == 0 {
        return json.into();
    }
    mended.push_str(&json[copied..]);
    mended.into()
}

enum Surrogate {
    High,
    Low,
}

/// The surrogate whose escape is at the position `at`.
fn surrogate(bytes: &[u8], at: usize) -> Option<Surrogate> {
    let digits = bytes.get(at..at + ESCAPE)?.strip_prefix(b"\\u")?;
    if !digits.iter().all(u8::is_ascii_hexdigit) || !matches!(digits[0], b'd' | b'D') {
        return None;
    }
    match digits[1] {
        b'8' | b'9' | b'a' | b'b' | b'A' | b'B' => Some(Surrogate::High),
        b'c'..=b'f' | b'C'..=b'F' => Some(Surrogate::Low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_become_replacement_characters() {
        for (json, mended) in [
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\uDE00x""#, r#""\ufffdx""#),
            (r#""\ud83d\ud83d\ude00\ude00""#, r#""\ufffd\ud83d\ude00\ufffd""#),
            (r#"{"a\udfff":["\uD800\n","\\\udc00"]}"#, r#"{"a\ufffd":["\ufffd\n","\\\ufffd"]}"#),
            (r#""é\ud83dé""#, r#""é\ufffdé""#),
        ] {
            let found = without_lone_surrogates(json);
            assert_eq!(found, mended);
            assert!(serde_json::from_str::<serde_json::Value>(&found).is_ok(), "{found}");
        }
    }

    #[test]
    fn text_without_lone_surrogates_is_borrowed() {
        for json in [
            "",
            r#""plain""#,
            r#""\ud83d\ude00 \u00e9 \ud7ff \ue000""#,
            r#""\\ud83d""#,
            r#""\\\\ud83d""#,
            r#""\ud8""#,
            r#""\ud83""#,
            r#""\ud8zz""#,
            "\\",
            "\\u",
        ] {
            assert!(matches!(without_lone_surrogates(json), Cow::Borrowed(same) if same == json), "{json}");
        }
    }
}
