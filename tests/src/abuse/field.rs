//! An attacker's resources: addresses, accounts, keys and time.

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

use super::handshake::Handshake;
use super::line::Line;
use super::tally::Tally;
use crate::bench::token;
use crate::http::{Answer, http};
use crate::raw;

/// The time-out of an attacker's handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The resources of one attack.
#[derive(Debug)]
pub struct Field {
    /// The address for clients.
    pub clients: SocketAddr,
    /// The address of the API.
    pub api: SocketAddr,
    /// The number of this attack, which has users and addresses of its own.
    pub number: u8,
    /// The time that the attack runs.
    pub time: Duration,
    /// The factor of numbers such as that of connections: 1 in a full run, less in a short one.
    pub scale: f64,
    /// Sent and received frames.
    pub tally: Rc<RefCell<Tally>>,
    until: Rc<Cell<Instant>>,
}

impl Field {
    /// A field whose time begins now.
    pub fn new(clients: SocketAddr, api: SocketAddr, number: u8, time: Duration, scale: f64) -> Self {
        let until = Rc::new(Cell::new(Instant::now() + time));
        Self { clients, api, number, time, scale, tally: Rc::default(), until }
    }

    /// Restarts the time of the attack after its preparation.
    pub fn begin(&self) {
        self.until.set(Instant::now() + self.time);
    }

    /// The end of the attack.
    pub fn until(&self) -> Instant {
        self.until.get()
    }

    /// Whether the attack is over.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.until()
    }

    /// `n` in a full run, a share of it in a short one, but at least 1.
    pub fn some(&self, n: usize) -> usize {
        ((n as f64 * self.scale) as usize).max(1)
    }

    /// The `n`th user of this attack.
    pub fn user(&self, n: usize) -> String {
        format!("mallory-{}-{n}", self.number)
    }

    /// Sleeps for `time`, but not beyond the end of the attack.
    pub async fn pause(&self, time: Duration) {
        let until = (Instant::now() + time).min(self.until());
        tokio::time::sleep_until(until.into()).await;
    }

    /// A TCP connection to the clients' port, from the `n`th address of this attack. All of 127.0.0.0/8 is this machine.
    ///
    /// # Errors
    /// If the connection is refused.
    pub async fn reach(&self, address: usize) -> anyhow::Result<TcpStream> {
        self.reach_at(self.clients, address).await
    }

    /// A TCP connection to `at`, from the `n`th address of this attack; see [`Field::reach`].
    ///
    /// # Errors
    /// If the connection is refused.
    pub async fn reach_at(&self, at: SocketAddr, address: usize) -> anyhow::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        let address = Ipv4Addr::new(127, 1 + self.number, (address / 250) as u8, 1 + (address % 250) as u8);
        socket.bind((address, 0).into())?;
        let connected =
            tokio::time::timeout(HANDSHAKE_TIMEOUT, socket.connect(at)).await.context("nobody accepts")??;
        connected.set_nodelay(true)?;
        Ok(connected)
    }

    /// A connection that the host accepts, or `None` after counting the refusal.
    pub async fn connect(&self, handshake: Handshake, user: &str, address: usize, is_deaf: bool) -> Option<Line> {
        let opened = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.open(handshake, user, address)).await;
        match opened {
            Ok(Ok((socket, received))) => {
                let tally = self.tally.clone();
                Some(Line::on(socket, received, tally, self.until.clone(), is_deaf))
            }
            Ok(Err(_)) => {
                self.tally.borrow_mut().refused("not let in");
                None
            }
            Err(_) => {
                self.tally.borrow_mut().refused("no answer to a connection");
                None
            }
        }
    }

    async fn open(&self, handshake: Handshake, user: &str, address: usize) -> anyhow::Result<(TcpStream, Vec<u8>)> {
        let (mut socket, mut received) = (self.reach(address).await?, Vec::new());
        match handshake {
            Handshake::Plain => raw::connect_raw_on(socket, &token(user)?).await,
            Handshake::Anonymous => raw::connect_raw_on(socket, "").await,
            Handshake::SocketIo => {
                let auth = json!({ "token": token(user)? });
                let (socket, _, received) = raw::connect_socket_io_on(socket, &auth).await?;
                Ok((socket, received))
            }
            Handshake::Unsigned => {
                raw::open(&mut socket, "/ws", &mut received).await?;
                Ok((socket, received))
            }
            Handshake::Engine => {
                raw::open(&mut socket, "/socket.io/?EIO=4&transport=websocket", &mut received).await?;
                Ok((socket, received))
            }
        }
    }

    /// Calls the API with the operator's key, and counts the status.
    ///
    /// # Errors
    /// If the API does not answer.
    pub async fn call(&self, method: &str, path: &str, body: Vec<u8>) -> anyhow::Result<Answer> {
        let base = self.api.to_string();
        let key = format!("Bearer {}", crate::bench::SECRET);
        let answer = http(&base, method, path, &[("authorization", &key)], body).await?;
        self.tally.borrow_mut().refused(&answer.status.to_string());
        Ok(answer)
    }

    /// The API's report of a plugin.
    ///
    /// # Errors
    /// If the API does not answer.
    pub async fn report(&self, plugin: &str) -> anyhow::Result<Value> {
        Ok(self.call("GET", &format!("/v1/plugins/{plugin}"), Vec::new()).await?.body)
    }
}
