//! Chat under load, for benchmarks: rooms of people who write to each other, and the messages that each received.
//!
//! Each message carries its number and its sending time, so that each member's copies, order and latency are known.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};

use crate::bench::token;
use crate::raw::{client_frame, connect_raw, take_frames};

/// The number of rooms.
pub const ROOMS: usize = 50;
/// The number of people in each room.
pub const MEMBERS: usize = 20;
/// The messages per second of all rooms together.
pub const PER_SECOND: usize = 2_000;
/// The time-out for the outcomes of the last messages.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// The acknowledgement id of joins. Messages have smaller ones.
const JOIN: usize = 1_000_000_000;

/// How one member received one message.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// The number of times it was shown.
    pub shown: u8,
    /// The number of times it was confirmed as stored.
    pub confirmed: u8,
    /// The number of times it was reported as failed.
    pub failed: u8,
}

/// How all members received all messages.
#[derive(Debug)]
pub struct Tally {
    /// When the first message was sent.
    pub began: Instant,
    /// By member, and by the number of the message in its room.
    pub seen: Vec<Vec<Seen>>,
    /// By member and sender: the numbers of the last message that was shown, and of the last that was confirmed.
    last: Vec<[(i64, i64); MEMBERS]>,
    /// The number of messages that came after a later one of the same sender.
    pub disordered: usize,
    /// By member: a hash of the order in which messages were shown, and one of the order in which they were confirmed.
    pub orders: Vec<(u64, u64)>,
    /// By the message's number among all: whether it was acknowledged.
    pub acknowledged: Vec<bool>,
    /// Acknowledgements and events with an error.
    pub refused: Vec<String>,
    /// Microseconds from the sending of each message until a member was shown it.
    pub shown_after: Vec<u32>,
    /// Microseconds from the sending of each message until a member received its outcome.
    pub ended_after: Vec<u32>,
    /// As `shown_after`, for copies that were shown during the outage of the store.
    pub shown_in_outage: Vec<u32>,
    /// The start and the end of the outage, from `began`.
    pub outage: Option<(Duration, Duration)>,
}

/// The tally that all members write to.
pub type Shared = Rc<RefCell<Tally>>;

impl Tally {
    /// The tally of a run with this many messages.
    pub fn new(messages: usize) -> Self {
        Self {
            began: Instant::now(),
            seen: vec![vec![Seen::default(); messages.div_ceil(ROOMS)]; ROOMS * MEMBERS],
            last: vec![[(-1, -1); MEMBERS]; ROOMS * MEMBERS],
            disordered: 0,
            orders: vec![(0, 0); ROOMS * MEMBERS],
            acknowledged: vec![false; messages],
            refused: Vec::new(),
            shown_after: Vec::new(),
            ended_after: Vec::new(),
            shown_in_outage: Vec::new(),
            outage: None,
        }
    }

    fn take(&mut self, member: usize, frame: &[u8]) {
        let now = self.began.elapsed();
        if frame.starts_with(b"{\"event\":\"roomMessageRecieved\"") {
            let Some((n, sent)) = message_in(frame, b"\"body\":\"m:") else { return };
            self.seen[member][n].shown += 1;
            let last = &mut self.last[member][n % MEMBERS].0;
            self.disordered += usize::from(std::mem::replace(last, n as i64) >= n as i64);
            self.orders[member].0 = follow(self.orders[member].0, n);
            let after = now.as_micros() as u32 - sent;
            self.shown_after.push(after);
            if self.outage.is_some_and(|(from, to)| now >= from && now <= to) {
                self.shown_in_outage.push(after);
            }
        } else if frame.starts_with(b"{\"event\":\"roomMessageConfirmed\"") {
            let Some((n, sent)) = message_in(frame, b"\"body\":\"m:") else { return };
            self.seen[member][n].confirmed += 1;
            let last = &mut self.last[member][n % MEMBERS].1;
            self.disordered += usize::from(std::mem::replace(last, n as i64) >= n as i64);
            self.orders[member].1 = follow(self.orders[member].1, n);
            self.ended_after.push(now.as_micros() as u32 - sent);
        } else if frame.starts_with(b"{\"event\":\"roomMessageFailed\"") {
            let Some((n, _)) = message_in(frame, b"\"clientId\":\"m:") else { return };
            self.seen[member][n].failed += 1;
        } else if let Some(id) = frame.strip_prefix(b"{\"id\":") {
            if let Some(id) = number(id).filter(|id| (*id as usize) < self.acknowledged.len()) {
                if frame.windows(8).any(|window| window == b"\"error\":") {
                    self.refused.push(String::from_utf8_lossy(frame).into_owned());
                }
                self.acknowledged[id as usize] = true;
            }
        } else if frame.starts_with(b"{\"event\":\"error\"") {
            self.refused.push(String::from_utf8_lossy(frame).into_owned());
        }
    }
}

/// The hash of an order, extended by the message `n`.
fn follow(order: u64, n: usize) -> u64 {
    (order.rotate_left(5) ^ n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    let mut digits = digits.peekable();
    digits.peek()?;
    Some(digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// A message's number in its room and its sending time in microseconds, which follow `start` as `7:123456`.
fn message_in(frame: &[u8], start: &[u8]) -> Option<(usize, u32)> {
    let at = frame.windows(start.len()).position(|window| window == start)? + start.len();
    let n = number(&frame[at..])?;
    let behind = frame[at..].iter().position(|byte| *byte == b':')? + at + 1;
    Some((n as usize, number(&frame[behind..])? as u32))
}

/// A member of a room.
#[derive(Debug)]
pub struct Member {
    /// The connection.
    pub socket: Rc<TcpStream>,
    /// The reader of the connection, which ends with it.
    pub reader: JoinHandle<()>,
}

async fn join(ws: String, member: usize, tally: Shared) -> anyhow::Result<Member> {
    let token = token(&format!("user{member}"))?;
    let socket = Rc::new(connect_raw(&ws, &token).await?);
    let room = member / MEMBERS;
    let ask = json!({ "event": "joinRoom", "data": { "roomId": format!("r{room}") }, "id": JOIN });
    write(&socket, &client_frame(ask.to_string().as_bytes())).await?;
    let (joined, is_joined) = tokio::sync::oneshot::channel();
    let reader = spawn_local({
        let (socket, mut joined) = (socket.clone(), Some(joined));
        async move {
            let mut received = Vec::new();
            let own = format!("{{\"id\":{JOIN},");
            loop {
                if socket.readable().await.is_err() {
                    return;
                }
                match socket.try_read_buf(&mut received) {
                    Ok(0) => return,
                    Ok(_) => take_frames(&mut received, |frame| {
                        if frame.starts_with(own.as_bytes()) {
                            // The receiver is gone if the join has timed out.
                            if let Some(joined) = joined.take() {
                                let _ = joined.send(());
                            }
                        } else {
                            tally.borrow_mut().take(member, frame);
                        }
                    }),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        }
    });
    tokio::time::timeout(TIMEOUT, is_joined).await.context("a join was not acknowledged")??;
    Ok(Member { socket, reader })
}

/// Writes all bytes to a socket.
///
/// # Errors
/// If the connection is closed.
pub async fn write(socket: &TcpStream, mut bytes: &[u8]) -> anyhow::Result<()> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Connects all members of all rooms. Must be called within a `LocalSet`.
///
/// # Errors
/// If a member is refused.
pub async fn join_all(ws: &str, tally: &Shared) -> anyhow::Result<Vec<Member>> {
    let joins: Vec<_> =
        (0..ROOMS * MEMBERS).map(|member| spawn_local(join(ws.to_owned(), member, tally.clone()))).collect();
    let mut members = Vec::new();
    for join in joins {
        members.push(join.await??);
    }
    Ok(members)
}

/// The room, the number in the room and the sender of the message `n` of all.
pub fn message(n: usize) -> (usize, usize, usize) {
    let (room, number) = (n % ROOMS, n / ROOMS);
    (room, number, room * MEMBERS + number % MEMBERS)
}

/// The frame of the message `n`, with its sending time in microseconds.
pub fn frame(n: usize, sent: u32) -> Vec<u8> {
    let (room, number, _) = message(n);
    let text = format!(
        "{{\"event\":\"roomMessage\",\"data\":{{\"roomId\":\"r{room}\",\"body\":\"m:{number}:{sent}:{}\",\
         \"clientId\":\"m:{number}:{sent}:\"}},\"id\":{n}}}",
        "x".repeat(80)
    );
    client_frame(text.as_bytes())
}

/// Waits until each message is acknowledged and no more outcomes arrive.
///
/// # Errors
/// If that takes longer than [`TIMEOUT`].
pub async fn wait_for_the_end(tally: &Shared) -> anyhow::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let before = (tally.borrow().shown_after.len(), tally.borrow().ended_after.len());
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = (tally.borrow().shown_after.len(), tally.borrow().ended_after.len());
        let all_acknowledged = tally.borrow().acknowledged.iter().all(|acknowledged| *acknowledged);
        if before == now && all_acknowledged {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("not all was acknowledged in time");
        }
    }
}
