//! The least work of any server: reading publishes from sockets, and writing a ready-made frame to other sockets.
//!
//! There is no WebSocket handshake, parsing, identity or limit, and one thread. A connection sends six bytes to say
//! what it is. One floor writes each frame separately, the other writes all due frames at once.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use anyhow::Context as _;
use roundhouse_tests::bench::say;
use rustix::event::epoll;
use rustix::io::Errno;

use crate::options::Merging;
use crate::wire::{Wire, plain_event};

const LISTENER: u64 = u64::MAX;
/// The bytes with which a connection begins: a kind, a space and a room.
const HEAD: usize = 6;

/// The purpose of a socket.
enum Role {
    Unknown,
    Member,
    /// Sends publishes. `rest` counts the received bytes of an incomplete one.
    Publisher {
        room: usize,
        rest: usize,
    },
}

/// The members of a room, and their pending frames.
struct Room {
    members: Vec<usize>,
    /// The frame of an event, repeated as often as it was ever due at once, so that merged frames are one slice.
    bytes: Vec<u8>,
    frame_bytes: usize,
}

impl Room {
    fn new(room: usize) -> Self {
        let bytes = plain_event(room);
        Self { members: Vec::new(), frame_bytes: bytes.len(), bytes }
    }

    /// Makes sure that `bytes` has at least `frames` frames.
    fn make_ready(&mut self, frames: usize) -> &Self {
        while self.bytes.len() < frames * self.frame_bytes {
            self.bytes.extend_from_within(..self.frame_bytes);
        }
        self
    }
}

fn accept(listener: &TcpListener, poll: &OwnedFd, id: epoll::EventData) -> anyhow::Result<TcpStream> {
    let socket = listener.accept()?.0;
    socket.set_nodelay(true)?;
    epoll::add(poll, &socket, id, epoll::EventFlags::IN)?;
    Ok(socket)
}

/// The role of a socket, from its first bytes. A member joins its room.
fn introduce(bytes: &[u8], at: usize, rooms: &mut HashMap<usize, Room>) -> anyhow::Result<Role> {
    let head = bytes.first_chunk::<HEAD>().context("a connection begins with six bytes")?;
    let room: usize = std::str::from_utf8(&head[3..])?.parse()?;
    if head[0] == b'p' {
        return Ok(Role::Publisher { room, rest: 0 });
    }
    rooms.entry(room).or_insert_with(|| Room::new(room)).members.push(at);
    Ok(Role::Member)
}

fn write(bytes: &[u8], members: &[usize], sockets: &mut [Option<(TcpStream, Role)>]) -> anyhow::Result<()> {
    for member in members {
        if let Some((socket, _)) = &mut sockets[*member] {
            socket.write_all(bytes)?;
        }
    }
    Ok(())
}

/// Serves until the process is killed.
pub(crate) fn run(merging: Merging) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    say(&listener.local_addr()?.port().to_string())?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let publish_bytes = Wire::Floor.publish(0).len();
    let mut sockets: Vec<Option<(TcpStream, Role)>> = Vec::new();
    let mut rooms: HashMap<usize, Room> = HashMap::new();
    let mut events = Vec::with_capacity(1024);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        events.clear();
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let at = event.data.u64();
            if at == LISTENER {
                let id = epoll::EventData::new_u64(sockets.len() as u64);
                sockets.push(Some((accept(&listener, &poll, id)?, Role::Unknown)));
                continue;
            }
            let Some((socket, role)) = &mut sockets[at as usize] else { continue };
            let read = match socket.read(&mut buffer) {
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
                Err(error) => return Err(error.into()),
            };
            if read == 0 {
                for room in rooms.values_mut() {
                    room.members.retain(|member| *member != at as usize);
                }
                sockets[at as usize] = None;
                continue;
            }
            match role {
                Role::Member => {}
                Role::Unknown => {
                    *role = introduce(&buffer[..read], at as usize, &mut rooms)?;
                    socket.write_all(b"\x81\x06joined")?;
                }
                Role::Publisher { room, rest } => {
                    let (room, due) = (*room, (*rest + read) / publish_bytes);
                    *rest = (*rest + read) % publish_bytes;
                    let (times, frames) = merging.writes(due);
                    let Some(room) = rooms.get_mut(&room).map(|room| room.make_ready(frames)) else { continue };
                    let bytes = &room.bytes[..frames * room.frame_bytes];
                    for _ in 0..times {
                        write(bytes, &room.members, &mut sockets)?;
                    }
                }
            }
        }
    }
}
