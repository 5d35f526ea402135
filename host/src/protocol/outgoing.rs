//! An event on its way out: encoded once per protocol, however many connections it goes to.

use std::sync::OnceLock;

use bytes::Bytes;

use super::{plain, websocket};
use crate::model::Payload;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// JSON objects in WebSocket text frames.
    Plain,
}

/// An event that many connections may share.
#[derive(Debug)]
pub struct Outgoing {
    event: String,
    payload: Payload,
    plain: OnceLock<Bytes>,
}

impl Outgoing {
    /// An event of this name and payload.
    pub fn new(event: impl Into<String>, payload: Payload) -> Self {
        Self { event: event.into(), payload, plain: OnceLock::new() }
    }

    /// The frame for connections that speak `protocol`, as it goes over the wire.
    pub fn frame(&self, protocol: Protocol) -> &Bytes {
        match protocol {
            Protocol::Plain => {
                self.plain.get_or_init(|| websocket::text_frame(&plain::encode_event(&self.event, &self.payload, None)))
            }
        }
    }

    /// A frame of its own for one connection, which is asked to acknowledge it as `id`.
    pub fn frame_with_id(&self, protocol: Protocol, id: u64) -> Bytes {
        match protocol {
            Protocol::Plain => websocket::text_frame(&plain::encode_event(&self.event, &self.payload, Some(id.into()))),
        }
    }
}
