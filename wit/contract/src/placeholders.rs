//! Placeholders: the positions of binary attachments in an event's arguments.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The greatest number of attachments of one event: as many as the reference decoder of Socket.IO accepts, so that
/// every client can read the events of another.
pub const MAX_ATTACHMENTS: usize = 10;

/// Arguments and attachments that do not fit each other.
#[derive(Debug)]
pub enum BadPlaceholders {
    /// The event has more attachments than it may.
    TooMany,
    /// The arguments do not refer to one of the attachments.
    Missing,
    /// A placeholder is malformed, refers to no attachment, or to the same one as another placeholder.
    Wrong(serde_json::Error),
}

impl fmt::Display for BadPlaceholders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "an event has at most {MAX_ATTACHMENTS} attachments: send several events"),
            Self::Missing => f.write_str("an attachment has no placeholder in the arguments"),
            Self::Wrong(error) => write!(f, "a placeholder is wrong: {error}"),
        }
    }
}

impl std::error::Error for BadPlaceholders {}

impl From<serde_json::Error> for BadPlaceholders {
    fn from(error: serde_json::Error) -> Self {
        Self::Wrong(error)
    }
}

/// Checks that the placeholders in the JSON text `args` are 0 to `attachments` - 1, each once, in one pass that builds nothing.
/// In an event without attachments an object that looks like a placeholder is data, and need not be checked.
///
/// # Errors
/// If a placeholder is missing, occurs twice or refers to no attachment, if there are too many attachments, and if
/// `args` is not JSON or is nested deeper than 128 levels.
pub fn check_placeholders(args: &str, attachments: usize) -> Result<(), BadPlaceholders> {
    if attachments > MAX_ATTACHMENTS {
        return Err(BadPlaceholders::TooMany);
    }
    let mut found = Found { attachments, numbers: 0 };
    let mut json = serde_json::Deserializer::from_str(args);
    found.deserialize(&mut json)?;
    json.end()?;
    if found.numbers.count_ones() as usize == attachments { Ok(()) } else { Err(BadPlaceholders::Missing) }
}

/// The placeholders found so far.
struct Found {
    attachments: usize,
    /// One bit for each of up to `MAX_ATTACHMENTS` numbers.
    numbers: u32,
}

impl Found {
    fn note(&mut self, number: u64) -> Result<(), &'static str> {
        let number = usize::try_from(number).ok().filter(|number| *number < self.attachments);
        let bit = 1 << number.ok_or("its num is that of no attachment")?;
        if self.numbers & bit != 0 {
            return Err("its num is another's too");
        }
        self.numbers |= bit;
        Ok(())
    }
}

/// The kinds of value in the members of a placeholder.
enum Kind {
    True,
    Number(u64),
    Other,
}

/// The names of a placeholder's members.
#[derive(Deserialize)]
#[serde(field_identifier)]
enum Member {
    #[serde(rename = "_placeholder")]
    Mark,
    #[serde(rename = "num")]
    Number,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for &mut Found {
    type Value = Kind;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Kind, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Found {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Other)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(if value { Kind::True } else { Kind::Other })
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Number(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Kind, E> {
        Ok(Kind::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Kind, E> {
        Ok(Kind::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Kind, E> {
        Ok(Kind::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Kind, A::Error> {
        while elements.next_element_seed(&mut *self)?.is_some() {}
        Ok(Kind::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Kind, A::Error> {
        let (mut count, mut is_marked, mut number) = (0, false, None);
        while let Some(member) = members.next_key::<Member>()? {
            count += 1;
            match (member, members.next_value_seed(&mut *self)?) {
                (Member::Mark, Kind::True) => is_marked = true,
                (Member::Number, Kind::Number(value)) => number = Some(value),
                _ => {}
            }
        }
        match number {
            _ if !is_marked => {}
            Some(number) if count == 2 => self.note(number).map_err(A::Error::custom)?,
            _ => return Err(A::Error::custom("it is not {\"_placeholder\":true,\"num\":n}")),
        }
        Ok(Kind::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_found_at_any_depth() {
        for (args, attachments) in [
            ("[]", 0),
            (r#"[{"_placeholder":true,"num":0}]"#, 1),
            (r#"[{"num":1,"_placeholder":true}, 5e3, -1, "x", null, {"a":[{"_placeholder":true,"num":0}]}]"#, 2),
            (
                r#"[{"_placeholder":false,"num":7},{"_placeholder":1,"num":7},{"num":9},{"\u005fplaceholder":true,"num":0}]"#,
                1,
            ),
        ] {
            assert!(check_placeholders(args, attachments).is_ok(), "{args}");
        }
    }

    #[test]
    fn placeholders_must_match_the_attachments() {
        let deep = format!("[{}{}]", "[".repeat(200), "]".repeat(200));
        for (args, attachments, message) in [
            ("[]", 1, "no placeholder"),
            (r#"[{"_placeholder":true,"num":0}]"#, 2, "no placeholder"),
            (r#"[{"_placeholder":true,"num":1}]"#, 1, "of no attachment"),
            (r#"[{"_placeholder":true,"num":18446744073709551615}]"#, 1, "of no attachment"),
            (r#"[{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#, 1, "another's too"),
            (r#"[{"_placeholder":true}]"#, 1, "it is not"),
            (r#"[{"_placeholder":true,"num":-1}]"#, 1, "it is not"),
            (r#"[{"_placeholder":true,"num":"0"}]"#, 1, "it is not"),
            (r#"[{"_placeholder":true,"num":0,"x":1}]"#, 1, "it is not"),
            (r#"[{"_placeholder":true,"num":0,"_placeholder":false}]"#, 1, "it is not"),
            ("[", 1, "EOF"),
            ("[]]", 0, "trailing"),
            (&deep, 0, "recursion limit"),
            ("[]", 11, "at most 10"),
        ] {
            let error = check_placeholders(args, attachments).expect_err(args).to_string();
            assert!(error.contains(message), "{args}: {error}");
        }
    }
}
