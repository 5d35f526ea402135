//! WebSockets without a library: a generator of load must cost less than the host.

use std::time::Duration;

use anyhow::ensure;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection of the plain protocol that has signed in: its first frame has been read.
///
/// # Errors
/// Where the host refuses it, or does not answer.
pub async fn connect_raw(ws: &str, token: &str) -> anyhow::Result<TcpStream> {
    let mut socket = TcpStream::connect(ws.trim_start_matches("ws://")).await?;
    socket.set_nodelay(true)?;
    let handshake = format!(
        "GET /ws?token={token} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(handshake.as_bytes()).await?;
    // The answer, and the first frame behind it.
    let mut answer = Vec::new();
    let mut buffer = [0; 2048];
    while !answer.windows(11).any(|window| window == b"\"connected\"") || answer.last() != Some(&b'}') {
        let n = tokio::time::timeout(Duration::from_secs(10), socket.read(&mut buffer)).await??;
        ensure!(n > 0, "the host refused: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..n]);
    }
    Ok(socket)
}

/// A client's text frame, masked with zeros.
pub fn client_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match payload.len() {
        n @ 0..=125 => frame.push(0x80 | n as u8),
        n => {
            frame.push(0x80 | 126);
            frame.extend((n as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Takes whole frames of a server out of what was received so far, and gives each text to `take`.
pub fn take_frames(received: &mut Vec<u8>, mut take: impl FnMut(&[u8])) {
    let mut rest = &received[..];
    loop {
        let (head, length) = match rest {
            [_, n @ 0..=125, ..] => (2, usize::from(*n)),
            [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([*a, *b]))),
            [_, 127, length @ ..] if length.len() >= 8 => {
                (10, length[..8].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
            }
            _ => break,
        };
        let Some(payload) = rest.get(head..head + length) else { break };
        if rest[0] & 0x0f == 1 {
            take(payload);
        }
        rest = &rest[head + length..];
    }
    let taken = received.len() - rest.len();
    received.drain(..taken);
}
