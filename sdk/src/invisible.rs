//! Characters that nobody sees, or that turn the direction of those around them: the same as the host takes for such.

/// Whether a character is not seen by itself, or turns the direction of text.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a name can be shown as it is: without control characters and such as nobody sees, but for what emoji and some
/// scripts are written with, where it has something to work on.
pub(crate) fn is_harmless_name(name: &str) -> bool {
    let is_letter = |c: char| !c.is_ascii() && !c.is_control() && !is_invisible(c);
    // What stands before: whether it can be joined on to, and whether it can be varied.
    let (mut joins, mut varies) = (false, false);
    let mut characters = name.chars().peekable();
    while let Some(c) = characters.next() {
        (joins, varies) = match c {
            '\u{200c}' | '\u{200d}' if joins && characters.peek().is_some_and(|next| is_letter(*next)) => {
                (false, false)
            }
            '\u{fe00}'..='\u{fe0f}' | '\u{180b}'..='\u{180d}' | '\u{e0100}'..='\u{e01ef}' if varies => (true, false),
            c if c.is_control() || is_invisible(c) => return false,
            c => (is_letter(c), is_letter(c)),
        };
    }
    true
}
