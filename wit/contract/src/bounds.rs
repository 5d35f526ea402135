//! The bounds of an event's payload, and the scan that checks them.

/// The bounds of the payload of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadBounds {
    /// The size of the arguments' JSON text and of the attachments, in bytes.
    pub bytes: usize,
    /// The number of JSON values at any depth; each argument, array and object counts.
    pub values: usize,
    /// The number of objects' fields, at any depth.
    pub keys: usize,
    /// The number of arrays and objects within each other. An argument that is neither has the depth 0.
    pub depth: usize,
}

/// The figures of a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    values: usize,
    keys: usize,
    depth: usize,
}

/// The number of bytes that are counted at once: as many as a count of one byte holds.
const CHUNK: usize = 255;

impl PayloadBounds {
    /// The bounds of events for which a manifest states none. A guest builds a tree of this many values within a few
    /// milliseconds and mebibytes, a tenth of the default deadline and memory. Front-ends' messages are less deep, and
    /// recursive parsers stop at a depth of 128. `limits.message_bytes` bounds the bytes.
    pub const HOST: Self = Self { bytes: usize::MAX, values: 16_384, keys: 16_384, depth: 64 };

    /// Checks the arguments of an event, a JSON array, with attachments of `attached` bytes.
    ///
    /// # Errors
    /// With the event, the bound, the figure that was found and the allowed one.
    pub fn check(&self, event: &str, args: &str, attached: usize) -> Result<(), String> {
        let within = |bound: &str, found: usize, allowed: usize| {
            if found <= allowed {
                return Ok(());
            }
            Err(format!("{event}: the payload has {found} {bound}, and may have {allowed}: send less at once"))
        };
        within("bytes", args.len().saturating_add(attached), self.bytes)?;
        if self.must_hold(args.as_bytes()) {
            return Ok(());
        }
        let found = measure(args.as_bytes());
        within("values", found.values, self.values)?;
        within("keys", found.keys, self.keys)?;
        within("levels of depth", found.depth, self.depth)
    }

    /// Whether the bounds hold without a look inside strings: by the length alone, or by the number of characters that
    /// could be punctuation, which is counted for many bytes at once. Nearly all events pass this check.
    fn must_hold(&self, args: &[u8]) -> bool {
        // The shortest value takes two bytes, `1,`; the shortest field five, `"":1,`; a level two, `[]`.
        let n = args.len();
        if n / 2 <= self.values && n / 5 <= self.keys && n / 2 <= self.depth {
            return true;
        }
        let (mut opened, mut commas, mut colons) = (0usize, 0usize, 0usize);
        for chunk in args.chunks(CHUNK) {
            let count = |is_it: fn(u8) -> bool| chunk.iter().map(|byte| u8::from(is_it(*byte))).sum::<u8>();
            opened += usize::from(count(|byte| byte == b'[' || byte == b'{'));
            commas += usize::from(count(|byte| byte == b','));
            colons += usize::from(count(|byte| byte == b':'));
        }
        commas + opened <= self.values && colons <= self.keys && opened <= self.depth + 1
    }
}

/// Measures a JSON array of arguments in one pass that builds nothing.
fn measure(args: &[u8]) -> Found {
    let mut found = Found::default();
    let (mut at, mut depth) = (0, 0usize);
    while let Some(byte) = args.get(at) {
        at += 1;
        match byte {
            b'"' => at = end_of_text(args, at),
            b':' => found.keys += 1,
            b',' => found.values += 1,
            b'[' | b'{' => {
                depth += 1;
                found.depth = found.depth.max(depth);
                // All values of an array or object except the first have a comma before them.
                found.values += usize::from(!is_closed(args, at));
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    // The array of arguments itself is not a level.
    found.depth = found.depth.saturating_sub(1);
    found
}

/// The position after the string whose content begins at `at`.
fn end_of_text(args: &[u8], mut at: usize) -> usize {
    while let Some(byte) = args.get(at) {
        match byte {
            b'"' => return at + 1,
            // An escaped character does not end the string.
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

/// Whether the array or object that was opened before `at` is empty.
fn is_closed(args: &[u8], at: usize) -> bool {
    let next = args[at..].iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(next, Some(b']' | b'}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each text with its values, keys and depth.
    const MEASURED: [(&str, usize, usize, usize); 12] = [
        ("[]", 0, 0, 0),
        (" [ ] ", 0, 0, 0),
        ("[1]", 1, 0, 0),
        ("[null,\"a\"]", 2, 0, 0),
        ("[{}]", 1, 0, 1),
        ("[{\"a\":1}]", 2, 1, 1),
        ("[ { \"a\" : [ ] } , [ 1 , 2 ] ]", 5, 1, 2),
        ("[[[[]]]]", 3, 0, 3),
        (r#"["a,b:c{[\"]}\\"]"#, 1, 0, 0),
        (r#"[{"a\"":{"b,":"}"}}]"#, 3, 2, 2),
        (r#"[{"":1,"":1,"":1}]"#, 4, 3, 1),
        ("[\n[\n],\t{\r}\n]", 2, 0, 1),
    ];

    #[test]
    fn measure_counts_values_keys_and_depth() {
        for (text, values, keys, depth) in MEASURED {
            assert_eq!(measure(text.as_bytes()), Found { values, keys, depth }, "{text}");
        }
    }

    #[test]
    fn check_allows_exactly_the_bound() {
        for (text, values, keys, depth) in MEASURED {
            let exact = PayloadBounds { bytes: text.len() + 3, values, keys, depth };
            assert_eq!(exact.check("e", text, 3), Ok(()), "{text}");
            for (bound, found, less) in [
                ("bytes", text.len() + 3, PayloadBounds { bytes: text.len() + 2, ..exact }),
                ("values", values, PayloadBounds { values: values.saturating_sub(1), ..exact }),
                ("keys", keys, PayloadBounds { keys: keys.saturating_sub(1), ..exact }),
                ("levels of depth", depth, PayloadBounds { depth: depth.saturating_sub(1), ..exact }),
            ] {
                if found == 0 {
                    continue;
                }
                let allowed = found - 1;
                let said = less.check("e", text, 3).expect_err(text);
                assert_eq!(
                    said,
                    format!("e: the payload has {found} {bound}, and may have {allowed}: send less at once")
                );
            }
        }
    }

    #[test]
    fn punctuation_inside_strings_is_not_counted() {
        let text = format!("[{:?}]", "[{:,".repeat(10_000));
        assert_eq!(PayloadBounds::HOST.check("e", &text, 0), Ok(()));
        let bounds = PayloadBounds { bytes: usize::MAX, values: 1, keys: 0, depth: 0 };
        assert_eq!(bounds.check("e", &text, 0), Ok(()));
    }

    #[test]
    fn dense_payloads_one_over_a_bound_are_refused() {
        // The densest text of each kind, with one more than its bound.
        let values = format!("[{}1]", "1,".repeat(500));
        let keys = format!("[{{{}\"\":1}}]", "\"\":1,".repeat(500));
        let depth = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for (text, n_values, n_keys, n_depth) in [(values, 500, 0, 0), (keys, 502, 500, 1), (depth, 499, 0, 498)] {
            let bounds = PayloadBounds { bytes: usize::MAX, values: n_values, keys: n_keys, depth: n_depth };
            assert!(bounds.check("e", &text, 0).is_err(), "{text}");
        }
    }
}
