//! Characters that nobody sees, or that turn the direction of those around them: texts that differ by them look alike, and a
//! name with them can pass itself off as another.

use std::borrow::Cow;
use std::ops::RangeInclusive;

/// Characters that are not seen by themselves, or that turn the direction of text, in ascending order: Unicode's
/// `Default_Ignorable_Code_Point` and `Bidi_Control`, line and paragraph separators, annotation marks, and the blank of
/// Braille.
pub const INVISIBLE: [RangeInclusive<char>; 18] = [
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fffb}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

/// Whether a character is one of [`INVISIBLE`].
pub fn is_invisible(c: char) -> bool {
    c >= *INVISIBLE[0].start() && INVISIBLE.iter().any(|range| range.contains(&c))
}

/// A name as it can be shown without harm: without control characters and such as nobody sees. What emoji and some scripts
/// are written with stays where it has something to work on: a joiner between two characters that are not ASCII, one
/// variation selector behind such a one.
pub fn harmless_name(name: &str) -> Cow<'_, str> {
    if name.is_ascii() && !name.bytes().any(|byte| byte.is_ascii_control()) {
        return name.into();
    }
    let mut shown = String::with_capacity(name.len());
    // What stands before: whether it can be joined on to, and whether it can be varied.
    let (mut joins, mut varies) = (false, false);
    let mut characters = name.chars().peekable();
    while let Some(c) = characters.next() {
        let is_letter = |c: char| !c.is_ascii() && !c.is_control() && !is_invisible(c);
        (joins, varies) = match c {
            '\u{200c}' | '\u{200d}' if joins && characters.peek().is_some_and(|next| is_letter(*next)) => {
                (false, false)
            }
            '\u{fe00}'..='\u{fe0f}' | '\u{180b}'..='\u{180d}' | '\u{e0100}'..='\u{e01ef}' if varies => (true, false),
            c if c.is_control() || is_invisible(c) => continue,
            c => (is_letter(c), is_letter(c)),
        };
        shown.push(c);
    }
    if shown == name { name.into() } else { shown.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_taken_out_of_names() {
        for (name, shown) in [
            ("Ana", "Ana"),
            ("A\u{200d}na\u{200b}", "Ana"),
            ("\u{202e}nimda\u{202c}", "nimda"),
            ("a\u{2066}b\u{2069}\u{feff}c\u{ad}", "abc"),
            ("Ana\nB\u{7f}", "AnaB"),
            ("\u{3164}\u{2800}", ""),
            // Tags can hide a whole text.
            ("a\u{e0041}\u{e0042}", "a"),
            ("é\u{200d}", "é"),
            ("❤\u{fe0f}\u{fe0f}x", "❤\u{fe0f}x"),
        ] {
            assert_eq!(harmless_name(name), shown, "{name:?}");
        }
    }

    #[test]
    fn emoji_and_scripts_keep_what_they_are_written_with() {
        for name in [
            "José Ñandú",
            "李雷",
            "👩\u{200d}💻",
            "❤\u{fe0f}\u{200d}🔥",
            // Persian and Hindi.
            "می\u{200c}خواهم",
            "क्\u{200d}ष",
            "עברית",
        ] {
            assert!(matches!(harmless_name(name), Cow::Borrowed(same) if same == name), "{name:?}");
        }
    }
}
