//! How a state is kept between events: as JSON is in what it can say, and cheaper to write and read.
//!
//! Each value says what it is, and each field its name, so that a state can be read by a type to which fields were added, as
//! with JSON. Numbers are binary, and strings say their length: nothing is escaped, searched or parsed. What does not begin
//! with the mark of this format is JSON, as states of earlier builds are.

mod read;
mod write;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Error;

/// The first byte of a state. No JSON text begins with it.
const MARK: u8 = 0x01;

/// What a value is. Small numbers and short strings have theirs in the same byte.
mod tag {
    pub(super) const NULL: u8 = 0x00;
    pub(super) const FALSE: u8 = 0x01;
    pub(super) const TRUE: u8 = 0x02;
    /// Seven bits in each byte, the lowest first; the last byte has no eighth.
    pub(super) const UNSIGNED: u8 = 0x03;
    /// `-1 - n` as an unsigned number.
    pub(super) const NEGATIVE: u8 = 0x04;
    pub(super) const FLOAT: u8 = 0x05;
    pub(super) const STRING: u8 = 0x06;
    pub(super) const BYTES: u8 = 0x07;
    /// Values, then `END`.
    pub(super) const ARRAY: u8 = 0x08;
    /// Keys and values in turn, then `END`.
    pub(super) const MAP: u8 = 0x09;
    pub(super) const END: u8 = 0x0a;
    /// A string that is the JSON text of a value.
    pub(super) const JSON: u8 = 0x0b;
    /// 16 bytes, the lowest first, of a number that 64 bits are too few for.
    pub(super) const WIDE: u8 = 0x0c;
    pub(super) const WIDE_SIGNED: u8 = 0x0d;
    /// With the length in the lower six bits.
    pub(super) const SHORT_STRING: u8 = 0x40;
    /// With the number in the lower seven bits.
    pub(super) const SMALL: u8 = 0x80;
}

/// Writes a state. `about` is how long it is expected to be, in bytes.
pub(crate) fn write<T: Serialize>(state: &T, about: usize) -> Result<Vec<u8>, Error> {
    let mut writer = write::Writer::new(about);
    state.serialize(&mut writer)?;
    Ok(writer.into_bytes())
}

/// Reads a state as the host keeps it: one that this build has written, or an earlier one. For
/// [`Feature::migrate`](crate::Feature::migrate), which reads it as the type that it had.
pub fn read_state<T: DeserializeOwned>(state: &[u8]) -> Result<T, Error> {
    match state.split_first() {
        Some((&MARK, values)) => read::Reader::read(values),
        _ => serde_json::from_slice(state),
    }
}

/// Whether two states are the same, faster than byte by byte, as components compare slices.
pub(crate) fn are_equal(one: &[u8], other: &[u8]) -> bool {
    let (heads, tail) = one.as_chunks::<8>();
    let (other_heads, other_tail) = other.as_chunks::<8>();
    let differ = |(one, other): (&[u8; 8], &[u8; 8])| u64::from_le_bytes(*one) != u64::from_le_bytes(*other);
    one.len() == other.len() && !heads.iter().zip(other_heads).any(differ) && tail == other_tail
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use serde::Deserialize;
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct All {
        numbers: (u8, i8, u64, i64, f64, f32),
        wide: (u128, i128),
        text: String,
        letter: char,
        #[serde(skip_serializing_if = "Option::is_none")]
        absent: Option<String>,
        present: Option<u32>,
        nothing: Option<u32>,
        unit: (),
        kinds: Vec<Kind>,
        by_name: BTreeMap<String, Vec<u16>>,
        by_number: BTreeMap<i32, bool>,
        one_of: OneOf,
        tagged: Tagged,
        value: Value,
        #[serde(flatten)]
        more: BTreeMap<String, Value>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Unit,
        New(u64),
        Tuple(u64, String),
        Struct { at: Option<u64> },
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum OneOf {
        Number(i64),
        Text(String),
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "type")]
    enum Tagged {
        A { n: u8 },
    }

    fn all() -> All {
        All {
            numbers: (127, -128, u64::MAX, i64::MIN, 0.1, -1.5),
            wide: (u128::MAX, i128::MIN),
            text: "x".repeat(5_000) + "é",
            letter: '√',
            absent: None,
            present: Some(128),
            nothing: None,
            unit: (),
            kinds: vec![Kind::Unit, Kind::New(7), Kind::Tuple(300, "a".to_owned()), Kind::Struct { at: Some(1) }],
            by_name: [("a".to_owned(), vec![1, 1_000]), (String::new(), vec![])].into(),
            by_number: [(-5, true), (7, false)].into(),
            one_of: OneOf::Text("t".repeat(64)),
            tagged: Tagged::A { n: 200 },
            value: json!({ "a": [null, 1.5, -3, "b", { "c": true }] }),
            more: [("extra".to_owned(), json!([1, 2]))].into(),
        }
    }

    fn reads_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
        let bytes = write(value, 0).unwrap();
        assert_eq!(&read_state::<T>(&bytes).unwrap(), value);
    }

    #[test]
    fn whatever_serde_can_say_reads_back() {
        reads_back(&all());
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            reads_back(&number);
            reads_back(&(number as i64).wrapping_neg());
        }
        for length in [0, 1, 63, 64, 127, 128, 40_000] {
            reads_back(&"é".repeat(length));
        }
        reads_back(&Some(Kind::Unit));
        reads_back(&());
    }

    #[test]
    fn states_of_builds_that_wrote_json_are_read() {
        assert_eq!(read_state::<All>(&serde_json::to_vec(&all()).unwrap()).unwrap(), all());
        assert_eq!(read_state::<u32>(b" 7").unwrap(), 7);
    }

    #[test]
    fn a_field_that_was_added_or_taken_away_is_no_obstacle() {
        #[derive(Serialize)]
        struct Before {
            old: Vec<Kind>,
            both: u32,
        }
        #[derive(Debug, PartialEq, Deserialize)]
        struct After {
            #[serde(default)]
            new: Option<String>,
            both: u64,
        }
        let before = write(&Before { old: vec![Kind::Struct { at: None }, Kind::Unit], both: 3 }, 0).unwrap();
        assert_eq!(read_state::<After>(&before).unwrap(), After { new: None, both: 3 });
    }

    #[test]
    fn raw_json_stays_to_the_letter_and_may_have_another_type_before_or_after() {
        let raw = RawValue::from_string("{\"a\":  [1.50]}".to_owned()).unwrap();
        let bytes = write(&vec![&raw], 0).unwrap();
        assert_eq!(read_state::<Vec<Box<RawValue>>>(&bytes).unwrap()[0].get(), raw.get());
        assert_eq!(read_state::<Value>(&bytes).unwrap(), json!([{ "a": [1.5] }]));
        let typed = write(&json!([{ "a": [2] }]), 0).unwrap();
        assert_eq!(read_state::<Vec<Box<RawValue>>>(&typed).unwrap()[0].get(), "{\"a\":[2]}");
    }

    #[test]
    fn what_is_broken_is_an_error_and_nothing_worse() {
        let whole = write(&all(), 0).unwrap();
        for end in (0..200).chain(whole.len() - 200..whole.len()) {
            assert!(read_state::<All>(&whole[..end]).is_err(), "cut off at {end}");
        }
        assert!(read_state::<All>(&[&whole[..], &[0]].concat()).is_err(), "something behind it");
        let mut random = crate::random::Random::new(7);
        for _ in 0..20_000 {
            let mut broken = whole.clone();
            for _ in 0..3 {
                let at = random.next() as usize % broken.len();
                broken[at] = random.next() as u8;
            }
            drop(read_state::<All>(&broken));
            drop(read_state::<Value>(&broken));
        }
        let deep = [&[MARK][..], &[tag::ARRAY; 200], &[tag::END; 200]].concat();
        assert!(read_state::<Value>(&deep).unwrap_err().to_string().contains("128"));
        let long = [MARK, tag::STRING, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert!(read_state::<String>(&long).is_err());
    }

    #[test]
    fn states_are_equal_where_each_byte_is() {
        let state: Vec<u8> = (0..40).collect();
        for length in 0..state.len() {
            assert!(are_equal(&state[..length], &state[..length]));
            assert!(!are_equal(&state[..length], &state[..length + 1]));
            for at in 0..length {
                let mut other = state[..length].to_vec();
                other[at] ^= 0x80;
                assert!(!are_equal(&state[..length], &other));
            }
        }
    }
}
