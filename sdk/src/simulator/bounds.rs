//! PayloadBounds of one event's payload, and the scan that finds whether they hold. The host compiles this very file, so that a
//! simulation refuses what the host refuses. It therefore uses nothing of either crate.

/// What an event's payload may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PayloadBounds {
    /// Bytes of the arguments' JSON text and of the attachments.
    pub(crate) bytes: usize,
    /// JSON values at any depth, each argument, array and object among them.
    pub(crate) values: usize,
    /// Fields of objects, at any depth.
    pub(crate) keys: usize,
    /// Arrays and objects that are within each other. An argument that is neither has the depth 0.
    pub(crate) depth: usize,
}

/// What is found in a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    values: usize,
    keys: usize,
    depth: usize,
}

/// Bytes that are counted at once: as many as a byte can count.
const CHUNK: usize = 255;

impl PayloadBounds {
    /// What an event may have of which a manifest says nothing. A tree of so many values takes a guest a few
    /// milliseconds and a few mebibytes to build, a tenth of the default deadline and memory. No message of a front-end is so
    /// deep, and parsers that recurse end at a depth of 128. Bytes are bounded by `limits.message_bytes` already.
    pub(crate) const HOST: Self = Self { bytes: usize::MAX, values: 16_384, keys: 16_384, depth: 64 };

    /// Checks the arguments of an event, a JSON array, with so many bytes of attachments.
    ///
    /// # Errors
    /// With the event, the bound, what was found and what is allowed.
    pub(crate) fn check(&self, event: &str, args: &str, attached: usize) -> Result<(), String> {
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

    /// Whether the bounds hold whatever is text and what is not: by the length alone, or by the number of characters that
    /// could be punctuation, which many bytes are compared for at once. Nearly all events are found fine by this.
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

/// Counts what there is in a JSON array of arguments, in one pass that builds nothing.
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
                // Of the values in it all but the first have a comma before them.
                found.values += usize::from(!is_closed(args, at));
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    // The array of arguments is no value of the sender's.
    found.depth = found.depth.saturating_sub(1);
    found
}

/// Where a text ends that begins at `at`.
fn end_of_text(args: &[u8], mut at: usize) -> usize {
    while let Some(byte) = args.get(at) {
        match byte {
            b'"' => return at + 1,
            // Whatever is escaped does not end it.
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

    /// The text, its values, keys and depth.
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
    fn values_keys_and_depth_are_counted_outside_texts() {
        for (text, values, keys, depth) in MEASURED {
            assert_eq!(measure(text.as_bytes()), Found { values, keys, depth }, "{text}");
        }
    }

    #[test]
    fn each_bound_is_checked_to_the_last() {
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
    fn text_that_looks_like_structure_counts_for_nothing() {
        let text = format!("[{:?}]", "[{:,".repeat(10_000));
        assert_eq!(PayloadBounds::HOST.check("e", &text, 0), Ok(()));
        let bounds = PayloadBounds { bytes: usize::MAX, values: 1, keys: 0, depth: 0 };
        assert_eq!(bounds.check("e", &text, 0), Ok(()));
    }

    #[test]
    fn the_length_that_proves_a_bound_does() {
        // The densest of each kind, beside bounds that they just miss.
        let values = format!("[{}1]", "1,".repeat(500));
        let keys = format!("[{{{}\"\":1}}]", "\"\":1,".repeat(500));
        let depth = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for (text, n_values, n_keys, n_depth) in [(values, 500, 0, 0), (keys, 502, 500, 1), (depth, 499, 0, 498)] {
            let bounds = PayloadBounds { bytes: usize::MAX, values: n_values, keys: n_keys, depth: n_depth };
            assert!(bounds.check("e", &text, 0).is_err(), "{text}");
        }
    }
}
