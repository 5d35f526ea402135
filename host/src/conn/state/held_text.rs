//! What a plain client sends before its connection is open.

/// The most that is held for a client, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// The messages of a client that are handled when its connection is open.
#[derive(Debug, Default)]
pub(crate) struct HeldText {
    texts: Vec<Box<str>>,
    bytes: usize,
}

impl HeldText {
    /// Holds a message. Returns whether there was room for it.
    pub(crate) fn push(&mut self, text: &str) -> bool {
        self.bytes += text.len() + size_of::<Box<str>>();
        let fits = self.bytes <= MAX_BYTES;
        if fits {
            self.texts.push(text.into());
        }
        fits
    }

    pub(crate) fn into_texts(self) -> Vec<Box<str>> {
        self.texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_text_is_bounded() {
        let mut held = HeldText::default();
        assert!(held.push("a") && !held.push(&"x".repeat(MAX_BYTES)));
        assert_eq!(held.into_texts(), [Box::from("a")]);
    }
}
