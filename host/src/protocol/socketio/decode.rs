//! Packets from clients.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{MAIN_NAMESPACE, RESERVED_EVENTS};
use crate::model::Payload;
use crate::protocol::{Malformed, malformed};

/// The most attachments of a packet over the limit that are skipped. A packet with more closes its connection.
const MAX_PASSED_OVER: usize = 1000;

/// The memory of a waiting attachment besides its content, in bytes.
const BYTES_PER_ATTACHMENT: usize = 64;

const TOO_LARGE: &str = "a packet or an attachment is over the size limit";

/// A packet from a client. It borrows from the packet's text unless it waited for attachments.
#[derive(Debug, Clone)]
pub enum Packet<'a> {
    /// The client connects to a namespace.
    Connect {
        /// The namespace.
        namespace: Cow<'a, str>,
        /// The auth payload: a JSON object, not checked yet.
        auth: Option<Box<RawValue>>,
    },
    /// The client disconnects from a namespace.
    Disconnect {
        /// The namespace.
        namespace: Cow<'a, str>,
    },
    /// An event.
    Event {
        /// The namespace of the packet.
        namespace: Cow<'a, str>,
        /// The event's name, whose length is not checked yet. A number is taken as its text.
        event: Cow<'a, str>,
        /// Its arguments, without the name.
        payload: Payload,
        /// The id of the acknowledgement, if one is requested.
        id: Option<u64>,
    },
    /// The acknowledgement of an event that requested one.
    Ack {
        /// The namespace that the event belongs to.
        namespace: Cow<'a, str>,
        /// The id from the event.
        id: u64,
        /// The acknowledgement's arguments.
        payload: Payload,
    },
    /// An event or an acknowledgement with too many attachments, which follow and are skipped.
    Overfull {
        /// The namespace of the packet.
        namespace: Cow<'a, str>,
        /// The event's name, if it is an event.
        event: Option<Cow<'a, str>>,
        /// The id of the acknowledgement, if one is requested.
        id: Option<u64>,
    },
}

/// Decodes a client's packets.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The packet that waits for attachments.
    incomplete: Option<Box<Incomplete>>,
    /// Attachments to skip, of a packet with too many.
    passed_over: usize,
}

#[derive(Debug)]
struct Incomplete {
    packet: Packet<'static>,
    /// The number of attachments of the complete packet.
    attachments: usize,
    /// The limit of each attachment, in bytes.
    max_bytes: usize,
}

impl Decoder {
    /// Decodes a text message. `None` if the packet waits for attachments, which must follow. A packet has at most
    /// `max_bytes`, each of its attachments as well, and at most 10 attachments.
    ///
    /// # Errors
    /// Where it breaks the protocol. Nothing may be decoded after that.
    pub fn text<'a>(&mut self, text: &'a str, max_bytes: usize) -> Result<Option<Packet<'a>>, Malformed> {
        let (packet, attachments) = self.begin(text, max_bytes)?;
        if matches!(packet, Packet::Overfull { .. }) {
            self.passed_over = attachments;
            return Ok(Some(packet));
        }
        if attachments == 0 {
            return Ok(Some(packet));
        }
        self.incomplete = Some(Box::new(Incomplete { packet: packet.into_owned(), attachments, max_bytes }));
        Ok(None)
    }

    /// Decodes a text message whose packet is refused, and skips its attachments.
    ///
    /// # Errors
    /// As [`Decoder::text`].
    pub fn refuse<'a>(&mut self, text: &'a str, max_bytes: usize) -> Result<Packet<'a>, Malformed> {
        let (packet, attachments) = self.begin(text, max_bytes)?;
        self.passed_over = attachments;
        Ok(packet)
    }

    /// Skips a text message and its attachments. Only the number of attachments is parsed.
    ///
    /// # Errors
    /// Where an attachment must follow, or the number is malformed.
    pub fn skip(&mut self, text: &str) -> Result<(), Malformed> {
        self.expect_text()?;
        if let Some(rest) = text.strip_prefix(['5', '6']) {
            (self.passed_over, _) = parse_attachments(rest)?;
        }
        Ok(())
    }

    /// Whether the next attachment is skipped.
    pub fn passes_over(&self) -> bool {
        self.passed_over > 0
    }

    /// Bytes kept for a packet that waits for attachments.
    pub fn buffered(&self) -> usize {
        match self.incomplete.as_deref() {
            Some(Incomplete { packet: Packet::Event { payload, .. } | Packet::Ack { payload, .. }, .. }) => {
                let attachments = payload.attachments.iter().map(|attachment| attachment.len() + BYTES_PER_ATTACHMENT);
                payload.args().len() + attachments.sum::<usize>()
            }
            _ => 0,
        }
    }

    fn begin<'a>(&mut self, text: &'a str, max_bytes: usize) -> Result<(Packet<'a>, usize), Malformed> {
        self.expect_text()?;
        if text.len() > max_bytes {
            return malformed(TOO_LARGE);
        }
        parse(text)
    }

    fn expect_text(&mut self) -> Result<(), Malformed> {
        if self.incomplete.take().is_some() || std::mem::take(&mut self.passed_over) > 0 {
            return malformed("text came where an attachment was to come");
        }
        Ok(())
    }

    /// Decodes a binary message: an attachment. `None` while the packet is incomplete, or the attachment was skipped.
    ///
    /// # Errors
    /// Where it breaks the protocol. Nothing may be decoded after that.
    pub fn binary(&mut self, bytes: Cow<'_, [u8]>) -> Result<Option<Packet<'static>>, Malformed> {
        if self.passed_over > 0 {
            self.passed_over -= 1;
            return Ok(None);
        }
        let Some(mut incomplete) = self.incomplete.take() else {
            return malformed("an attachment came that no packet waits for");
        };
        if bytes.len() > incomplete.max_bytes {
            return malformed(TOO_LARGE);
        }
        if let Packet::Event { payload, .. } | Packet::Ack { payload, .. } = &mut incomplete.packet {
            payload.attachments.push(match bytes {
                Cow::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
                Cow::Owned(bytes) => bytes.into(),
            });
        }
        incomplete.attachments -= 1;
        if incomplete.attachments == 0 {
            return Ok(Some(incomplete.packet));
        }
        self.incomplete = Some(incomplete);
        Ok(None)
    }
}

impl Packet<'_> {
    /// The namespace of the packet.
    pub fn namespace(&self) -> &str {
        match self {
            Self::Connect { namespace, .. }
            | Self::Disconnect { namespace }
            | Self::Event { namespace, .. }
            | Self::Overfull { namespace, .. }
            | Self::Ack { namespace, .. } => namespace,
        }
    }

    /// The same packet, which borrows nothing.
    pub fn into_owned(self) -> Packet<'static> {
        fn own(text: Cow<'_, str>) -> Cow<'static, str> {
            text.into_owned().into()
        }
        match self {
            Packet::Connect { namespace, auth } => Packet::Connect { namespace: own(namespace), auth },
            Packet::Disconnect { namespace } => Packet::Disconnect { namespace: own(namespace) },
            Packet::Event { namespace, event, payload, id } => {
                Packet::Event { namespace: own(namespace), event: own(event), payload, id }
            }
            Packet::Ack { namespace, id, payload } => Packet::Ack { namespace: own(namespace), id, payload },
            Packet::Overfull { namespace, event, id } => {
                Packet::Overfull { namespace: own(namespace), event: event.map(own), id }
            }
        }
    }
}

/// Decodes a packet's text, and the number of attachments that follow.
fn parse(text: &str) -> Result<(Packet<'_>, usize), Malformed> {
    let mut characters = text.chars();
    let packet_type = characters.next();
    let rest = characters.as_str();
    let (attachments, rest) = match packet_type {
        Some('0'..='3') => (0, rest),
        Some('5' | '6') => parse_attachments(rest)?,
        Some('4') => return malformed("a client has no connect errors to send"),
        Some(_) => return malformed("a packet's type is a digit from 0 to 6"),
        None => return malformed("the packet is empty"),
    };
    let (namespace, rest) = split_namespace(rest)?;
    let namespace = Cow::Borrowed(namespace);
    let packet = match packet_type {
        Some('0') => Packet::Connect { namespace, auth: parse_auth(rest)? },
        Some('1') if rest.is_empty() => Packet::Disconnect { namespace },
        Some('1') => return malformed("a disconnect carries nothing"),
        Some('2' | '5') => {
            let (id, json) = split_id(rest)?;
            let (event, args) = parse_event(json)?;
            if attachments > Payload::MAX_ATTACHMENTS {
                return Ok((Packet::Overfull { namespace, event: Some(event), id }, attachments));
            }
            check_placeholders(&args, attachments)?;
            Packet::Event { namespace, event, payload: Payload::from_checked(args, Vec::new()), id }
        }
        _ => {
            let (Some(id), json) = split_id(rest)? else { return malformed("an acknowledgement has an id") };
            let args = parse_ack(json)?;
            if attachments > Payload::MAX_ATTACHMENTS {
                return Ok((Packet::Overfull { namespace, event: None, id: None }, attachments));
            }
            check_placeholders(args, attachments)?;
            Packet::Ack { namespace, id, payload: Payload::from_checked(args, Vec::new()) }
        }
    };
    Ok((packet, attachments))
}

/// `2-…`: the number of attachments that follow.
fn parse_attachments(text: &str) -> Result<(usize, &str), Malformed> {
    let Some((number, rest)) = text.split_once('-') else {
        return malformed("a binary packet says how many attachments it has, and then -");
    };
    // `parse` would accept a sign.
    match number.parse() {
        Ok(attachments @ 1..=MAX_PASSED_OVER) if !number.starts_with('+') => Ok((attachments, rest)),
        _ => malformed("a binary packet has one attachment or more, and not thousands"),
    }
}

/// `/admin,…`: the namespace, without the query that it may carry.
fn split_namespace(text: &str) -> Result<(&str, &str), Malformed> {
    if !text.starts_with('/') {
        return Ok((MAIN_NAMESPACE, text));
    }
    let (namespace, rest) = text.split_once(',').unwrap_or((text, ""));
    let namespace = namespace.split_once('?').map_or(namespace, |(namespace, _)| namespace);
    // Answers repeat the namespace, and in a polling payload a control character (U+001E) ends a packet.
    if namespace.bytes().any(|byte| byte.is_ascii_control()) {
        return malformed("a namespace has no control characters");
    }
    Ok((namespace, rest))
}

/// `12[…`: the id, if present.
fn split_id(text: &str) -> Result<(Option<u64>, &str), Malformed> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (id, rest) = text.split_at(digits);
    if id.is_empty() {
        return Ok((None, rest));
    }
    match id.parse() {
        Ok(id) => Ok((Some(id), rest)),
        Err(_) => malformed("an id has at most 64 bits"),
    }
}

fn parse_auth(json: &str) -> Result<Option<Box<RawValue>>, Malformed> {
    if json.is_empty() {
        return Ok(None);
    }
    // The JSON is valid, so text that begins with `{` is an object.
    match serde_json::from_str(json) {
        Ok(auth) if json.starts_with('{') => Ok(Some(auth)),
        _ => malformed("a connect carries a JSON object or nothing"),
    }
}

/// Splits an array that begins with a name into the name and the rest of the array's text.
fn parse_event(json: &str) -> Result<(Cow<'_, str>, String), Malformed> {
    let shape = Malformed { reason: "an event is a JSON array that begins with its name" };
    if !json.starts_with('[') {
        return Err(shape);
    }
    let Named(raw) = serde_json::from_str(json).map_err(|_| shape)?;
    let raw = raw.get();
    let event = match raw.as_bytes() {
        [b'"', name @ .., b'"'] if !name.contains(&b'\\') => Cow::Borrowed(&raw[1..raw.len() - 1]),
        [b'"', ..] => Cow::Owned(serde_json::from_str(raw).map_err(|_| shape)?),
        [b'-' | b'0'..=b'9', ..] => Cow::Borrowed(raw),
        _ => return Err(shape),
    };
    if RESERVED_EVENTS.contains(&&*event) {
        return malformed("an event has a name that the protocol keeps for itself");
    }
    // The name is the array's first element, so a comma or the end follows.
    let rest = json[1..].trim_ascii_start()[raw.len()..].trim_ascii();
    Ok((event, ["[", rest.strip_prefix(',').unwrap_or(rest)].concat()))
}

fn parse_ack(json: &str) -> Result<&str, Malformed> {
    match serde_json::from_str(json) {
        Ok(IgnoredAny) if json.starts_with('[') => Ok(json.trim_ascii_end()),
        _ => malformed("an acknowledgement is a JSON array"),
    }
}

fn check_placeholders(args: &str, attachments: usize) -> Result<(), Malformed> {
    if attachments > 0 && crate::model::check_placeholders(args, attachments).is_err() {
        return malformed("each attachment has one placeholder");
    }
    Ok(())
}

/// The first element of an array of JSON.
struct Named<'a>(&'a RawValue);

impl<'de> Deserialize<'de> for Named<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct First;
        impl<'de> Visitor<'de> for First {
            type Value = Named<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array that begins with a name")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Named<'de>, A::Error> {
                let first = elements.next_element()?.ok_or_else(|| A::Error::custom("the array is empty"))?;
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Named(first))
            }
        }
        json.deserialize_seq(First)
    }
}

#[cfg(test)]
mod tests;
