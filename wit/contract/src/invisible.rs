//! Characters that are invisible, or that change the direction of the text around them: a name with such characters can look
//! like another name.

use std::borrow::Cow;
use std::ops::RangeInclusive;

/// Characters that are invisible by themselves, or that change the direction of text, in ascending order: Unicode's
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

/// Whether a name can be shown as it is: [`harmless_name`] would not change it.
pub fn is_harmless_name(name: &str) -> bool {
    visible(name).eq(name.chars())
}

/// A name without control characters and [`INVISIBLE`] ones. Emoji and some scripts need a few of these, which are kept
/// where they have an effect: a joiner between two characters that are not ASCII, and one variation selector after such
/// a character.
pub fn harmless_name(name: &str) -> Cow<'_, str> {
    if is_harmless_name(name) { name.into() } else { visible(name).collect::<String>().into() }
}

/// The characters of a name that [`harmless_name`] keeps.
fn visible(name: &str) -> impl Iterator<Item = char> {
    let is_letter = |c: char| !c.is_ascii() && !c.is_control() && !is_invisible(c);
    // Whether the previous character can be joined to the next one, and whether it can take a variation selector.
    let (mut joins, mut varies) = (false, false);
    let mut characters = name.chars().peekable();
    std::iter::from_fn(move || {
        loop {
            let c = characters.next()?;
            (joins, varies) = match c {
                '\u{200c}' | '\u{200d}' if joins && characters.peek().is_some_and(|next| is_letter(*next)) => {
                    (false, false)
                }
                '\u{fe00}'..='\u{fe0f}' | '\u{180b}'..='\u{180d}' | '\u{e0100}'..='\u{e01ef}' if varies => {
                    (true, false)
                }
                c if c.is_control() || is_invisible(c) => continue,
                c => (is_letter(c), is_letter(c)),
            };
            return Some(c);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_name_drops_invisible_characters() {
        for (name, shown) in [
            ("Ana", "Ana"),
            ("A\u{200d}na\u{200b}", "Ana"),
            ("\u{202e}nimda\u{202c}", "nimda"),
            ("a\u{2066}b\u{2069}\u{feff}c\u{ad}", "abc"),
            ("Ana\nB\u{7f}", "AnaB"),
            ("\u{3164}\u{2800}", ""),
            // Tag characters can hide a whole text.
            ("a\u{e0041}\u{e0042}", "a"),
            ("é\u{200d}", "é"),
            ("❤\u{fe0f}\u{fe0f}x", "❤\u{fe0f}x"),
        ] {
            assert_eq!(harmless_name(name), shown, "{name:?}");
            assert_eq!(is_harmless_name(name), name == shown, "{name:?}");
        }
    }

    #[test]
    fn harmless_name_keeps_emoji_and_joined_scripts() {
        for name in [
            "José Ñandú",
            "李雷",
            "👩\u{200d}💻",
            "❤\u{fe0f}\u{200d}🔥",
            // Persian and Hindi need joiners.
            "می\u{200c}خواهم",
            "क्\u{200d}ष",
            "עברית",
        ] {
            assert!(matches!(harmless_name(name), Cow::Borrowed(same) if same == name), "{name:?}");
        }
    }
}
