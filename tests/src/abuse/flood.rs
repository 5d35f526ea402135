//! Many connections that send again and again at a rate, and reconnect when they are disconnected.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::field::Field;
use super::handshake::Handshake;
use super::line::Line;

/// The time before a disconnected attacker reconnects.
const RECONNECT_DELAY: Duration = Duration::from_millis(200);

/// The common settings of a flood's connections.
#[derive(Debug, Clone)]
pub struct Flood {
    n: usize,
    handshake: Handshake,
    are_users: bool,
    per_second: Option<f64>,
    burst: usize,
    opening: Vec<Vec<u8>>,
    is_deaf: bool,
}

impl Flood {
    /// Connections of one account, from one address, that send as fast as they can.
    pub fn of(n: usize, handshake: Handshake) -> Self {
        Self { n, handshake, are_users: false, per_second: None, burst: 0, opening: Vec::new(), is_deaf: false }
    }

    /// Sets the number of connections.
    pub(super) fn with(self, n: usize) -> Self {
        Self { n, ..self }
    }

    /// Reduces the number of connections in a short run.
    pub fn scaled(self, field: &Field) -> Self {
        Self { n: field.some(self.n), ..self }
    }

    /// Gives each connection another account and another address.
    pub fn accounts(self) -> Self {
        Self { are_users: true, ..self }
    }

    /// Sets the rate of each connection, in frames per second.
    pub fn rate(self, per_second: f64) -> Self {
        Self { per_second: Some(per_second), ..self }
    }

    /// Sets the number of frames that each connection sends at once before the rate applies.
    pub fn burst(self, burst: usize) -> Self {
        Self { burst, ..self }
    }

    /// Adds a frame that each connection sends first.
    pub fn opening(mut self, frame: Vec<u8>) -> Self {
        self.opening.push(frame);
        self
    }

    /// Lets the connections read nothing.
    pub fn deaf(self) -> Self {
        Self { is_deaf: true, ..self }
    }
}

impl Field {
    /// Floods the host until the attack is over. `frame` returns the bytes to send, from the numbers of the connection
    /// and the frame.
    pub async fn pour<'a>(&self, flood: Flood, frame: impl Fn(usize, usize) -> Cow<'a, [u8]>) {
        let frame = &frame;
        let flood = &flood;
        join_all((0..flood.n).map(|i| async move {
            let mut n = 0;
            while !self.is_over() {
                if let Some(mut line) = self.connect_in(flood, i).await {
                    self.pour_one(flood, &mut line, |n| frame(i, n), &mut n).await;
                }
                self.pause(RECONNECT_DELAY).await;
            }
        }))
        .await;
    }

    /// The accepted connections of a flood, after their opening frames.
    pub async fn connect_all(&self, flood: Flood) -> Vec<Line> {
        let flood = &flood;
        let lines = join_all((0..flood.n).map(|i| self.connect_in(flood, i))).await;
        lines.into_iter().flatten().collect()
    }

    async fn connect_in(&self, flood: &Flood, i: usize) -> Option<Line> {
        let who = if flood.are_users { i } else { 0 };
        let mut line = self.connect(flood.handshake, &self.user(who), who, flood.is_deaf).await?;
        for frame in &flood.opening {
            line.send(frame).await;
        }
        Some(line)
    }

    async fn pour_one<'a>(
        &self,
        flood: &Flood,
        line: &mut Line,
        frame: impl Fn(usize) -> Cow<'a, [u8]>,
        n: &mut usize,
    ) {
        let mut due = Instant::now();
        loop {
            if !line.send(&frame(*n)).await {
                return;
            }
            *n += 1;
            let Some(per_second) = flood.per_second.filter(|_| *n >= flood.burst) else {
                // Other tasks of this thread need their turn.
                tokio::task::yield_now().await;
                continue;
            };
            due = (due + Duration::from_secs_f64(1.0 / per_second)).max(Instant::now() - RECONNECT_DELAY);
            tokio::time::sleep_until(due.into()).await;
        }
    }
}
