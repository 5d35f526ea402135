//! The attacks, by target, and their building blocks.

pub(super) mod entry;
pub(super) mod floods;
pub(super) mod memory;
pub(super) mod payloads;
pub(super) mod plugins;
pub(super) mod scopes;
pub(super) mod services;
pub(super) mod turns;
pub(super) mod wire;

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::field::Field;
use super::line::plain;
use crate::bench::token;
use crate::raw::{connect_raw_on, take_frames};

/// The default rate of a connection: an attacker within it must not be refused for its rate.
const RATE: f64 = 50.0;
/// The number of events that a connection may send at once by default.
const BURST: usize = 200;
/// The size of a payload as large as a message may be, less the rest of its frame, in bytes.
const LARGEST: usize = 990_000;
/// The time-out of one answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An attack in the list.
macro_rules! attack {
    ($name:literal, $who:ident, $setting:ident, $length:literal, $what:literal, |$field:ident| $run:expr) => {
        $crate::abuse::Attack {
            name: $name,
            who: $crate::abuse::Attacker::$who,
            what: $what,
            setting: $crate::abuse::Setting::$setting,
            length: $length,
            run: |$field: std::rc::Rc<$crate::abuse::Field>| Box::pin($run),
        }
    };
    ($name:literal, $who:ident, $setting:ident, $length:literal, $what:literal, $run:path) => {
        attack!($name, $who, $setting, $length, $what, |field| $run(field))
    };
}
use attack;

/// As many copies of `piece` as fit into `bytes`, separated by commas.
fn many(piece: &str, bytes: usize) -> String {
    vec![piece; bytes / (piece.len() + 1)].join(",")
}

/// A frame with a command for the hostile guest.
fn hostile(scope: &str, how: &str, with: &Value) -> Vec<u8> {
    plain("hostile:do", &json!({ "id": scope, "how": how, "with": with }).to_string())
}

/// A connection that sends one request after another.
struct Asker {
    socket: TcpStream,
    /// Bytes received after the last answer, perhaps part of a frame.
    received: Vec<u8>,
}

impl Field {
    /// Opens a connection that sends one request after another.
    async fn asker(&self, user: &str) -> anyhow::Result<Asker> {
        let (socket, received) = connect_raw_on(self.reach(0).await?, &token(user)?).await?;
        Ok(Asker { socket, received })
    }
}

impl Asker {
    /// Sends an event by the plain protocol, and returns its acknowledgement.
    async fn ask(&mut self, frame: &[u8]) -> anyhow::Result<String> {
        self.socket.write_all(frame).await?;
        let (mut buffer, mut answer) = (vec![0; 65_536], None);
        loop {
            take_frames(&mut self.received, |text| {
                if text.starts_with(b"{\"id\":7,") {
                    answer = Some(String::from_utf8_lossy(text).into_owned());
                }
            });
            if let Some(answer) = answer {
                return Ok(answer);
            }
            let n = tokio::time::timeout(TIMEOUT, self.socket.read(&mut buffer)).await??;
            ensure!(n > 0, "the connection was ended");
            self.received.extend_from_slice(&buffer[..n]);
        }
    }
}
