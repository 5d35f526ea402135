//! A feature whose manifest and outcomes are given as JSON, so that one table of them is tested both in a component on
//! the real host and natively in the simulator.

mod manifest;
mod orders;

use std::fmt;

use roundhouse_sdk::{Context, Failure, Feature, Manifest, Sender};
use serde::de::{Deserialize, Deserializer, EnumAccess, VariantAccess, Visitor};
use serde_json::{Map, Value};

#[cfg(not(target_arch = "wasm32"))]
pub use manifest::set_manifest;
pub use manifest::{ManifestSpec, NeedsSpec, ScopeSpec};
pub use orders::{AudienceSpec, EmitSpec, Order, Orders, Text};

/// The feature.
#[derive(Debug)]
pub struct Table;

roundhouse_sdk::export!(Table);

/// An event of any name. Its payload is read by [`Orders`].
#[derive(Debug)]
pub struct Message;

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyVariant;

        impl<'de> Visitor<'de> for AnyVariant {
            type Value = Message;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Message, A::Error> {
                let (_, variant) = data.variant::<String>()?;
                variant.unit_variant()?;
                Ok(Message)
            }
        }

        deserializer.deserialize_enum("Message", &[], AnyVariant)
    }
}

impl Feature for Table {
    type Settings = Map<String, Value>;
    type State = String;
    type Message = Message;

    fn describe() -> Manifest {
        manifest::manifest().into()
    }

    fn message(state: &mut String, cx: &mut Context<Self>, _: &Sender, Message: Message) -> Result<(), Failure> {
        let orders: Orders = cx.payload().decode()?;
        orders.carry_out(state, cx);
        Ok(())
    }
}
