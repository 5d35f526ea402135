//! The envelope that an event travels in.

use std::sync::Arc;

use roundhouse_contract::ScopeAddress;

use crate::plugin::event::{Event, ReplyTo};
use crate::plugin::load::catalogue::Plugin;

/// An event on its way to a scope, with the recipient of its answer.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) address: ScopeAddress,
    pub(crate) event: Event,
    pub(crate) reply: ReplyTo,
}

impl Envelope {
    /// An event without a reply.
    pub(crate) fn without_reply(plugin: Arc<Plugin>, address: ScopeAddress, event: Event) -> Self {
        Self { plugin, address, event, reply: ReplyTo::Nobody }
    }
}
