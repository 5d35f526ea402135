//! The format of states, read.

use serde::de::value::{BorrowedBytesDeserializer, BorrowedStrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value};

use super::tag;

/// How deep values may lie in one another, as in JSON: a state that goes deeper was made by nobody who meant well.
const MAX_DEPTH: u8 = 128;

/// Goes through the bytes of a state.
pub(super) struct Reader<'de> {
    rest: &'de [u8],
    depth: u8,
}

impl<'de> Reader<'de> {
    pub(super) fn read<T: DeserializeOwned>(values: &'de [u8]) -> Result<T, Error> {
        let mut reader = Self { rest: values, depth: 0 };
        let value = T::deserialize(&mut reader)?;
        if reader.rest.is_empty() { Ok(value) } else { Err(Error::custom("the state goes on behind its end")) }
    }

    #[inline]
    fn peek(&self) -> Result<u8, Error> {
        self.rest.first().copied().ok_or_else(cut_off)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Error> {
        let (first, rest) = self.rest.split_first().ok_or_else(cut_off)?;
        self.rest = rest;
        Ok(*first)
    }

    #[inline]
    fn take(&mut self, n: u64) -> Result<&'de [u8], Error> {
        let taken = usize::try_from(n).ok().and_then(|n| self.rest.split_at_checked(n));
        let (taken, rest) = taken.ok_or_else(cut_off)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(cut_off)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    fn number(&mut self) -> Result<u64, Error> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Error::custom("a number in the state is too long"))
    }

    /// The bytes of a string, where that is what comes next.
    #[inline]
    fn string(&mut self) -> Result<Option<&'de [u8]>, Error> {
        let n = match self.peek()? {
            head @ tag::SHORT_STRING..tag::SMALL => {
                self.byte()?;
                u64::from(head & 0x3f)
            }
            tag::STRING => {
                self.byte()?;
                self.number()?
            }
            _ => return Ok(None),
        };
        self.take(n).map(Some)
    }

    /// The JSON text that comes next.
    fn json(&mut self) -> Result<&'de str, Error> {
        self.string()?.ok_or_else(out_of_place).and_then(text)
    }

    fn within<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == MAX_DEPTH {
            return Err(Error::custom("the state is nested deeper than 128 levels"));
        }
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        if self.byte()? == tag::END { Ok(value) } else { Err(out_of_place()) }
    }
}

fn cut_off() -> Error {
    Error::custom("the state is cut off")
}

fn out_of_place() -> Error {
    Error::custom("something in the state is not where it belongs")
}

fn text(bytes: &[u8]) -> Result<&str, Error> {
    str::from_utf8(bytes).map_err(Error::custom)
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if let Some(string) = self.string()? {
            return visitor.visit_borrowed_str(text(string)?);
        }
        match self.byte()? {
            small @ tag::SMALL.. => visitor.visit_u64(u64::from(small & 0x7f)),
            tag::NULL => visitor.visit_unit(),
            tag::FALSE => visitor.visit_bool(false),
            tag::TRUE => visitor.visit_bool(true),
            tag::UNSIGNED => visitor.visit_u64(self.number()?),
            tag::NEGATIVE => visitor.visit_i64(!(self.number()? as i64)),
            tag::FLOAT => visitor.visit_f64(f64::from_le_bytes(self.array()?)),
            tag::BYTES => {
                let n = self.number()?;
                visitor.visit_borrowed_bytes(self.take(n)?)
            }
            tag::ARRAY => self.within(|reader| visitor.visit_seq(Values(reader))),
            tag::MAP => self.within(|reader| visitor.visit_map(Values(reader))),
            tag::JSON => serde_json::Deserializer::from_str(self.json()?).deserialize_any(visitor),
            tag::WIDE => visitor.visit_u128(u128::from_le_bytes(self.array()?)),
            tag::WIDE_SIGNED => visitor.visit_i128(i128::from_le_bytes(self.array()?)),
            _ => Err(out_of_place()),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.peek()? == tag::NULL {
            self.byte()?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        if !name.starts_with("$serde_json") {
            return visitor.visit_newtype_struct(self);
        }
        // Raw JSON: as it was, or what had a type when it was written.
        if self.peek()? == tag::JSON {
            self.byte()?;
            return serde_json::Deserializer::from_str(self.json()?).deserialize_newtype_struct(name, visitor);
        }
        let value = <Value as serde::Deserialize>::deserialize(self)?;
        let json = value.to_string();
        // Its text is not the state's, and so it is given to who keeps it.
        serde_json::Deserializer::from_reader(json.as_bytes()).deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if let Some(name) = self.string()? {
            return visitor.visit_enum(BorrowedStrDeserializer::<Error>::new(text(name)?));
        }
        match self.byte()? {
            tag::MAP => self.within(|reader| visitor.visit_enum(Values(reader))),
            _ => Err(Error::custom("the state has something else where a variant was expected")),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.string()? {
            // A field's name is compared and never kept, so that it need not be text.
            Some(name) => BorrowedBytesDeserializer::<Error>::new(name).deserialize_any(visitor),
            None => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct ignored_any
    }
}

/// What lies within an array or a map.
struct Values<'a, 'de>(&'a mut Reader<'de>);

impl<'de> SeqAccess<'de> for Values<'_, 'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        if self.0.peek()? == tag::END {
            return Ok(None);
        }
        seed.deserialize(&mut *self.0).map(Some)
    }
}

impl<'de> MapAccess<'de> for Values<'_, 'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(&mut *self.0)
    }
}

impl<'de> EnumAccess<'de> for Values<'_, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        Ok((seed.deserialize(&mut *self.0)?, self))
    }
}

impl<'de> VariantAccess<'de> for Values<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        serde::Deserialize::deserialize(self.0)
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.0.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.0.deserialize_any(visitor)
    }
}
