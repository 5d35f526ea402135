//! Commands from other threads.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;

use super::parts::Shard;
use crate::conn::state::{Connection, Entry, MemberList};
use crate::hub::ShardCommand;
use crate::protocol::Protocol;

/// Commands per turn; after them queued frames are written, and other work of the shard has its turn.
const COMMANDS_IN_A_ROW: usize = 1024;

impl Shard {
    /// Runs the first commands, and writes the frames that they queued.
    pub(super) fn run_commands(self: &Rc<Self>, commands: &mut VecDeque<ShardCommand>) {
        let rest = commands.len().saturating_sub(COMMANDS_IN_A_ROW);
        while commands.len() > rest
            && let Some(command) = commands.pop_front()
        {
            self.run_command(command, commands);
        }
        self.flush_dirty();
    }

    /// Runs a command, together with the commands `behind` it that can share its fan-out.
    fn run_command(self: &Rc<Self>, command: ShardCommand, behind: &mut VecDeque<ShardCommand>) {
        match command {
            ShardCommand::Accept(socket) => self.serve_http(socket),
            ShardCommand::Join { connection, room } => {
                if let Some(connection) = self.connection(connection) {
                    self.members().join(&connection, MemberList::Room(room));
                }
            }
            ShardCommand::Leave { connection, room } => {
                if let Some(connection) = self.connection(connection) {
                    self.members().leave(&connection, &MemberList::Room(room));
                }
            }
            ShardCommand::Deliver(delivery) => self.deliver(delivery, behind),
            ShardCommand::Ask { connection, id, outgoing } => {
                if let Some(connection) = self.connection(connection) {
                    self.members().note_ask(connection.id, &outgoing);
                    self.emit_with_ack(&connection, outgoing.frames_with_id(&connection.protocol, id));
                }
            }
            ShardCommand::Reply { connection, event, id, outcome, read_at } => {
                if let Some(connection) = self.connection(connection) {
                    self.reply(&connection, Some(&event), id, outcome.as_ref());
                }
                self.metrics().event_seconds.observe(read_at.elapsed().as_secs_f64());
            }
            ShardCommand::Trace { connection, most, answer } => {
                let connection = self.connection(connection);
                // An error means that the caller no longer waits.
                let _ = answer.send(connection.map(|found| self.members().trace(&found, most)).unwrap_or_default());
            }
            ShardCommand::Run { connection, task } => {
                if self.connection(connection).is_some() {
                    (task.0)();
                }
            }
            ShardCommand::Admit { connection, outcome } => self.on_admission(connection, outcome),
            // An error means that the other node no longer waits.
            ShardCommand::Claim { connection, claim, answer } => drop(answer.send(self.claim(connection, &claim))),
            ShardCommand::Release { connection, answer } => drop(answer.send(self.release(connection))),
            ShardCommand::Close { connection, code, reason } => {
                if let Some(connection) = self.connection(connection) {
                    self.kick(&connection, code, &reason);
                }
            }
            ShardCommand::EndBlocked { block, ended } => {
                // An error means that the caller no longer waits.
                let _ = ended.send(self.end_blocked(&block));
            }
            ShardCommand::AdoptSessions(changes) => self.adopt_changes(&changes),
            ShardCommand::Drain { over, working } => self.begin_drain(over, working),
            ShardCommand::Probe { connection } => self.probe_connection(connection),
            ShardCommand::ProbeAddress { address } => self.probe_address(address),
            ShardCommand::Evict { transport } => self.evict(transport),
            ShardCommand::Shutdown => self.stop(),
        }
    }

    /// Sends an event that requests an acknowledgement. A Socket.IO client counts no such events, so a client that
    /// resumes could get one twice: the event is recorded for replay only while the connection is detached. The plain
    /// protocol counts every frame.
    fn emit_with_ack(self: &Rc<Self>, connection: &Rc<Connection>, frames: Bytes) {
        let entry = Entry::Frames(Box::new(frames));
        match (self.transport_of(connection), &connection.protocol) {
            (Some(transport), Protocol::SocketIo { .. }) => {
                self.enqueue(&transport, entry.frames(&connection.protocol));
            }
            _ => self.send_recorded(connection, entry),
        }
    }
}
