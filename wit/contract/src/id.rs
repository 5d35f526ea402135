//! Ids and the names of rooms: text that identities, payloads, features and services choose, and that the host checks.

use crate::invisible::is_invisible;

/// The longest id that a payload or an identity may carry, in characters.
pub const MAX_ID_CHARS: usize = 128;

/// The longest name of a room, in characters: several ids and the literals between them.
pub const MAX_ROOM_CHARS: usize = 512;

/// The prefix of a user's room, followed by the user's id. Every connection of the user is in it, and only the host
/// changes its members.
pub const USER_ROOM_PREFIX: &str = "user:";

/// The rule for ids, worded to follow the name of a field.
pub const ID_RULE: &str = "must be 1 to 128 printable characters without whitespace";

/// Whether `id` is 1 to 128 printable characters without whitespace, all of which are visible.
pub fn is_valid_id(id: &str) -> bool {
    is_word(id, MAX_ID_CHARS)
}

/// Whether `room` is 1 to 512 printable characters without whitespace, all of which are visible.
pub fn is_valid_room(room: &str) -> bool {
    is_word(room, MAX_ROOM_CHARS)
}

fn is_word(text: &str, max_chars: usize) -> bool {
    !text.is_empty()
        && text.len() <= max_chars * 4
        && text.chars().count() <= max_chars
        && !text.chars().any(|c| c.is_whitespace() || c.is_control() || is_invisible(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_printable_and_bounded() {
        for good in ["a", "507f1f77bcf86cd799439011", "ticket:1", "é", &"x".repeat(128)] {
            assert!(is_valid_id(good), "{good}");
        }
        let unseen = ["a\u{200b}", "\u{202e}a", "a\u{2066}b", "\u{feff}a", "a\u{ad}b", "a\u{fe0f}", "a\u{e0041}"];
        for bad in ["", " ", "a b", "a\n", "\u{7f}", "\u{2003}", &"x".repeat(129)].into_iter().chain(unseen) {
            assert!(!is_valid_id(bad), "{bad:?}");
        }
    }
}
