//! An outgoing event, encoded once per protocol for all recipients.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use super::{plain, socketio, websocket};
use crate::model::{Cause, NodeId, Payload};

/// The number of the last event that was made in this process.
static LAST_NUMBER: AtomicU64 = AtomicU64::new(0);

/// The bits below the node in a number: enough for a million events a second over half a year.
const NODE_SHIFT: u32 = 44;

/// The memory of all live events, in bytes.
static ALIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The protocol of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// JSON objects in WebSocket text frames.
    Plain,
    /// Socket.IO 5 over Engine.IO 4.
    SocketIo {
        /// The namespace of the connection, if it is not the main one.
        namespace: Option<Arc<str>>,
        /// Whether events carry their number as an offset, which a client returns to resume. The same for all
        /// connections of a host.
        offsets: bool,
    },
}

impl Protocol {
    /// The namespace. The plain protocol has only the main one.
    pub fn namespace(&self) -> &str {
        match self {
            Self::SocketIo { namespace: Some(namespace), .. } => namespace,
            Self::Plain | Self::SocketIo { namespace: None, .. } => socketio::MAIN_NAMESPACE,
        }
    }
}

/// An event, shared by all of its recipients.
#[derive(Debug)]
pub struct Outgoing {
    event: Arc<str>,
    payload: Payload,
    number: u64,
    cause: Option<Arc<Cause>>,
    bytes: usize,
    plain: OnceLock<Bytes>,
    main_namespace: OnceLock<Bytes>,
    other_namespaces: Mutex<Vec<(Arc<str>, Bytes)>>,
}

impl Outgoing {
    /// An event of this name and payload.
    pub fn new(event: impl Into<Arc<str>>, payload: Payload) -> Self {
        Self::numbered(event, payload, LAST_NUMBER.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// An event to which another node of the cluster gave this number.
    pub fn numbered(event: impl Into<Arc<str>>, payload: Payload, number: u64) -> Self {
        let event = event.into();
        let attachments: usize = payload.attachments.iter().map(Bytes::len).sum();
        let bytes = event.len() + payload.args().len() + attachments;
        ALIVE_BYTES.fetch_add(in_memory(bytes), Ordering::Relaxed);
        Self {
            event,
            payload,
            bytes,
            number,
            cause: None,
            plain: OnceLock::new(),
            main_namespace: OnceLock::new(),
            other_namespaces: Mutex::default(),
        }
    }

    /// Has the numbers of events of this process begin behind those of other nodes, so that an event has one number in the
    /// whole cluster: the offset that a client may return to any of them.
    pub fn count_as(node: NodeId) {
        LAST_NUMBER.fetch_max(u64::from(node.0) << NODE_SHIFT, Ordering::Relaxed);
    }

    /// The event's number, unique in the cluster. Events are not necessarily sent in the order of their numbers.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The event's name.
    pub fn event(&self) -> &str {
        &self.event
    }

    /// The event's name, shared.
    pub fn name(&self) -> &Arc<str> {
        &self.event
    }

    /// What the event comes from, if that is known.
    pub fn cause(&self) -> Option<&Arc<Cause>> {
        self.cause.as_ref()
    }

    /// Notes what the event comes from.
    pub fn set_cause(&mut self, cause: Arc<Cause>) {
        self.cause = Some(cause);
    }

    /// The event's payload.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// The bytes of name, arguments and attachments: about the event's size on the wire.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The approximate memory of all live events in this process, in bytes.
    pub fn alive_bytes() -> usize {
        ALIVE_BYTES.load(Ordering::Relaxed)
    }

    /// The frames for connections of this protocol.
    pub fn frames(&self, protocol: &Protocol) -> Bytes {
        match protocol {
            Protocol::Plain => self
                .plain
                .get_or_init(|| websocket::text_frame(&plain::encode_event(&self.event, &self.payload, None)))
                .clone(),
            Protocol::SocketIo { namespace: None, offsets } => {
                self.main_namespace.get_or_init(|| self.socket_io(socketio::MAIN_NAMESPACE, *offsets)).clone()
            }
            Protocol::SocketIo { namespace: Some(namespace), offsets } => {
                let mut encoded = self.other_namespaces.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((_, frames)) = encoded.iter().find(|(other, _)| other == namespace) {
                    return frames.clone();
                }
                let frames = self.socket_io(namespace, *offsets);
                encoded.push((namespace.clone(), frames.clone()));
                frames
            }
        }
    }

    fn socket_io(&self, namespace: &str, offsets: bool) -> Bytes {
        let offset = offsets.then(|| format!("{:x}", self.number));
        socketio::event_frames(namespace, &self.event, &self.payload, None, offset.as_deref())
    }

    /// Separate frames for one connection, which request the acknowledgement `id`.
    pub fn frames_with_id(&self, protocol: &Protocol, id: u64) -> Bytes {
        match protocol {
            Protocol::Plain => websocket::text_frame(&plain::encode_event(&self.event, &self.payload, Some(id.into()))),
            Protocol::SocketIo { .. } => {
                socketio::event_frames(protocol.namespace(), &self.event, &self.payload, Some(id), None)
            }
        }
    }

    /// The number of an event, from the offset that a client returns.
    pub fn parse_offset(offset: &str) -> Option<u64> {
        u64::from_str_radix(offset, 16).ok()
    }
}

/// The memory of an event of this size: its data, and one encoded copy.
fn in_memory(bytes: usize) -> usize {
    2 * bytes + size_of::<Outgoing>()
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        ALIVE_BYTES.fetch_sub(in_memory(self.bytes), Ordering::Relaxed);
    }
}
