//! Decodes an event's name and arguments into the feature's enum, without an intermediate tree of values, and with
//! errors that name the event and the field.

use std::cell::Cell;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::value::RawValue;
use serde_json::{Deserializer as Json, Error};

use crate::Failure;
use crate::locate::locate;

/// Reads the variant of `T` that is called `name` from `args`, a JSON array.
pub(crate) fn named<T: DeserializeOwned>(name: &str, args: &str) -> Result<T, Failure> {
    let args: Vec<&RawValue> = serde_json::from_str(args)
        .map_err(|error| Failure::bad_request(format!("{name}: arguments are not a JSON array: {error}")))?;
    let unknown = Cell::new(false);
    let named = Named { name, args: &args, unknown: &unknown };
    T::deserialize(named).map_err(|error| {
        if unknown.get() {
            return Failure::internal(format!("{name} is routed to this feature but not one of its variants"));
        }
        let (field, complaint) = locate(args.first().map_or("", |raw| raw.get()), &error);
        Failure::bad_request(match field {
            Some(field) => format!("{name}: {field}: {complaint}"),
            None => format!("{name}: {complaint}"),
        })
    })
}

/// Whether `T` has a variant that is called `name`.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn knows<T: DeserializeOwned>(name: &str) -> bool {
    let unknown = Cell::new(false);
    let named = Named { name, args: &[], unknown: &unknown };
    // Whether the variant decodes from no arguments does not matter here.
    drop(T::deserialize(named));
    !unknown.get()
}

#[derive(Clone, Copy)]
struct Named<'a> {
    name: &'a str,
    args: &'a [&'a RawValue],
    /// Set if the enum has no such variant, which is the feature's mistake and not the sender's.
    unknown: &'a Cell<bool>,
}

impl<'de> Deserializer<'de> for Named<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_enum(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        // `type Message = ()`: a feature that handles no messages.
        self.unknown.set(true);
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for Named<'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.name.into_deserializer();
        let variant = seed.deserialize(name).inspect_err(|_| self.unknown.set(true))?;
        Ok((variant, self))
    }
}

impl<'a> Named<'a> {
    /// The first argument; `None` if it is missing or `null`, which clients send for "no data".
    fn data(&self) -> Option<&'a str> {
        self.args.first().map(|raw| raw.get()).filter(|text| *text != "null")
    }
}

impl<'de> VariantAccess<'de> for Named<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        match self.data() {
            Some(text) => seed.deserialize(&mut Json::from_str(text)),
            None => seed.deserialize(Absent),
        }
    }

    /// A variant with several fields takes several arguments.
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        if self.args.len() < len {
            return Err(Error::custom(format_args!("wants {len} arguments, there are {}", self.args.len())));
        }
        visitor.visit_seq(Arguments(self.args[..len].iter()))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        match self.data() {
            Some(text) => Json::from_str(text).deserialize_struct("", fields, visitor),
            None => Absent.deserialize_struct("", fields, visitor),
        }
    }
}

struct Arguments<'a>(std::slice::Iter<'a, &'a RawValue>);

impl<'de> serde::de::SeqAccess<'de> for Arguments<'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.0.next().map(|raw| seed.deserialize(&mut Json::from_str(raw.get()))).transpose()
    }
}

/// A payload without data: it decodes as unit, `None`, or an object without fields.
struct Absent;

impl<'de> Deserializer<'de> for Absent {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_none()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        if name.starts_with("$serde_json") {
            Json::from_str("null").deserialize_newtype_struct(name, visitor)
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Empty)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(Empty)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct enum identifier ignored_any
    }
}

struct Empty;

impl<'de> MapAccess<'de> for Empty {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, _: S) -> Result<Option<S::Value>, Error> {
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, _: S) -> Result<S::Value, Error> {
        Err(Error::custom("there is no value"))
    }
}
