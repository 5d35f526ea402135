//! One client that waits for answers without sleeping.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::ensure;
use roundhouse_tests::raw::take_frames;

use crate::generator::TIMEOUT;
use crate::wire::{Step, Until};

/// What follows the id in the acknowledgement of a refused event.
const REFUSED: &[u8] = b"\"error\"";

/// A client that spins while it waits for answers, so that its own wake-ups are not measured.
pub(crate) struct Client {
    socket: TcpStream,
    received: Vec<u8>,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr, steps: &[Step]) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut client = Self { socket, received: Vec::new(), buffer: vec![0; 64 * 1024] };
        for step in steps {
            client.write(&step.send)?;
            let wanted = match step.until {
                Until::Switched => b"\r\n\r\n",
                Until::Contains(wanted) => wanted,
            };
            let end = loop {
                let found = client.received.windows(wanted.len()).position(|window| window == wanted);
                if let Some(at) = found {
                    break at + wanted.len();
                }
                client.read()?;
            };
            if matches!(step.until, Until::Switched) {
                client.received.drain(..end);
            }
        }
        take_frames(&mut client.received, |_| {});
        Ok(client)
    }

    /// Reads what has arrived. Returns whether anything has.
    fn receive(&mut self) -> anyhow::Result<bool> {
        let n = match self.socket.read(&mut self.buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::hint::spin_loop();
                return Ok(false);
            }
            read => read?,
        };
        ensure!(n > 0, "the host closed the connection: {}", String::from_utf8_lossy(&self.received));
        self.received.extend_from_slice(&self.buffer[..n]);
        Ok(true)
    }

    /// Waits until something arrives.
    fn read(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while !self.receive()? {
            ensure!(began.elapsed() < TIMEOUT, "no answer came for {TIMEOUT:?}");
        }
        Ok(())
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what has arrived. Returns the number of frames that begin with `start`.
    pub(crate) fn poll(&mut self, start: &[u8]) -> anyhow::Result<usize> {
        let (mut found, mut refusal) = (0, None);
        if self.receive()? {
            take_frames(&mut self.received, |frame| {
                found += usize::from(frame.starts_with(start));
                if frame.starts_with(start) && frame[start.len()..].starts_with(REFUSED) {
                    refusal = Some(String::from_utf8_lossy(frame).into_owned());
                }
            });
        }
        ensure!(refusal.is_none(), "the host refused an event: {}", refusal.unwrap_or_default());
        Ok(found)
    }

    /// Reads until at least one frame that begins with `start` has arrived. Returns the number of such frames.
    pub(crate) fn wait(&mut self, start: &[u8]) -> anyhow::Result<usize> {
        let began = Instant::now();
        loop {
            match self.poll(start)? {
                0 => ensure!(began.elapsed() < TIMEOUT, "no answer came for {TIMEOUT:?}"),
                found => return Ok(found),
            }
        }
    }

    /// Sends a frame and waits for its answer. Returns the time in nanoseconds.
    pub(crate) fn ask(&mut self, frame: &[u8], start: &[u8]) -> anyhow::Result<f64> {
        let began = Instant::now();
        self.write(frame)?;
        self.wait(start)?;
        Ok(began.elapsed().as_nanos() as f64)
    }
}
