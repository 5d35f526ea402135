//! An attacker's connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::{JoinHandle, spawn_local};

use super::glimpse::Glimpse;
use super::tally::Tally;
use crate::raw::frame_of;

/// A WebSocket that sends given bytes, and counts the received frames.
#[derive(Debug)]
pub struct Line {
    writer: OwnedWriteHalf,
    reader: Option<JoinHandle<()>>,
    /// The reading half of a deaf connection, which is kept open and not read.
    _unread: Option<OwnedReadHalf>,
    is_closed: Rc<Cell<bool>>,
    tally: Rc<RefCell<Tally>>,
    until: Rc<Cell<Instant>>,
}

impl Line {
    /// A line on a socket after its handshake, with the bytes received after that. If `is_deaf`, nothing is read.
    pub(super) fn on(
        socket: TcpStream,
        received: Vec<u8>,
        tally: Rc<RefCell<Tally>>,
        until: Rc<Cell<Instant>>,
        is_deaf: bool,
    ) -> Self {
        let (reader, writer) = socket.into_split();
        let (is_closed, writer) = (Rc::new(Cell::new(false)), writer);
        let (reader, unread) = if is_deaf {
            (None, Some(reader))
        } else {
            (Some(spawn_local(read(reader, received, tally.clone(), is_closed.clone()))), None)
        };
        Self { writer, reader, _unread: unread, is_closed, tally, until }
    }

    /// Sends bytes as they are. Returns whether the connection is still open.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        if self.is_closed.get() || Instant::now() >= self.until.get() {
            return false;
        }
        self.tally.borrow_mut().sent(bytes.len());
        let sent = tokio::time::timeout_at(self.until.get().into(), self.writer.write_all(bytes)).await;
        let is_sent = matches!(sent, Ok(Ok(())));
        if !is_sent {
            self.is_closed.set(true);
        }
        is_sent
    }

    /// Whether the end of the connection was noticed.
    pub fn is_closed(&self) -> bool {
        self.is_closed.get()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.abort();
        }
    }
}

/// Counts all input until the end of the connection. Pings are not answered: an attack ends before the second ping.
async fn read(mut reader: OwnedReadHalf, received: Vec<u8>, tally: Rc<RefCell<Tally>>, is_closed: Rc<Cell<bool>>) {
    let (mut glimpse, mut buffer) = (Glimpse::default(), vec![0; 65_536]);
    let mut was_told = false;
    glimpse.feed(&received, |opcode, seen| tally.borrow_mut().frame(opcode, seen));
    while let Ok(n @ 1..) = reader.read(&mut buffer).await {
        let mut tally = tally.borrow_mut();
        tally.got_bytes += n as u64;
        glimpse.feed(&buffer[..n], |opcode, seen| {
            was_told |= opcode == 8;
            tally.frame(opcode, seen);
        });
    }
    if !was_told {
        tally.borrow_mut().closed("without a word");
    }
    is_closed.set(true);
}

/// A frame of an event of the plain protocol. `data` is JSON.
pub(super) fn plain(event: &str, data: &str) -> Vec<u8> {
    frame_of(0x81, format!(r#"{{"event":"{event}","data":{data},"id":7}}"#).as_bytes())
}

/// A frame of an event of Socket.IO. `arguments` are JSON, separated by commas.
pub(super) fn socket_io(event: &str, arguments: &str) -> Vec<u8> {
    frame_of(0x81, format!(r#"427["{event}",{arguments}]"#).as_bytes())
}
