//! The feature, and the helpers of all files on an event's context.

use roundhouse_sdk::{Audiences, Context, Failure, Payload};
use serde::Serialize;

use crate::wire::{Connected, Family, Place};

/// The feature.
#[derive(Debug)]
pub struct ChatConfirmation;

pub(crate) type Cx<'a> = Context<'a, ChatConfirmation>;

/// The collection of messages in the store.
pub(crate) const MESSAGES: &str = "messages";

pub(crate) fn outcome_event(cx: &Cx, is_stored: bool) -> &'static str {
    if is_stored { family(cx).confirmed } else { family(cx).failed }
}

pub(crate) fn reply_connected(cx: &mut Cx, connected_users: u32) {
    cx.reply(&Connected { place: place(cx), connected_users });
}

/// Emits an event whose name depends on the family.
pub(crate) fn emit<T: Serialize>(cx: &mut Cx, to: impl Into<Audiences>, event: &str, data: &T) -> Result<(), Failure> {
    cx.emit_payload(to, event, Payload::of(data)?);
    Ok(())
}

pub(crate) fn family(cx: &Cx) -> &'static Family {
    Family::of(cx.template())
}

pub(crate) fn place<'a>(cx: &Cx<'a>) -> Place<'a> {
    let family = family(cx);
    family.place(cx.param(family.placeholder))
}
