//! WebSockets without a library, because a load generator must cost less than the host.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Opens a connection of the plain protocol, and reads its first frame.
///
/// # Errors
/// If the host refuses the connection, or does not answer.
pub async fn connect_raw(ws: &str, token: &str) -> anyhow::Result<TcpStream> {
    Ok(connect_raw_on(reach(ws).await?, token).await?.0)
}

/// As [`connect_raw`], on a connected socket. With an empty token the client is anonymous. Also returns the bytes
/// received after the host's first frame.
///
/// # Errors
/// If the host refuses the connection, or does not answer.
pub async fn connect_raw_on(mut socket: TcpStream, token: &str) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    let mut received = Vec::new();
    let query = if token.is_empty() { String::new() } else { format!("?token={token}") };
    open(&mut socket, &format!("/ws{query}"), &mut received).await?;
    let first = next_text(&mut socket, &mut received).await?;
    ensure!(first.starts_with("{\"event\":\"connected\""), "the host refused: {first}");
    Ok((socket, received))
}

/// Opens a Socket.IO connection by WebSocket to the main namespace. Returns the socket, the host's answer, and the
/// bytes after it.
///
/// # Errors
/// If the host refuses the connection, or does not answer.
pub async fn connect_socket_io(ws: &str, auth: &Value) -> anyhow::Result<(TcpStream, Value, Vec<u8>)> {
    connect_socket_io_on(reach(ws).await?, auth).await
}

/// As [`connect_socket_io`], on a connected socket.
///
/// # Errors
/// If the host refuses the connection, or does not answer.
pub async fn connect_socket_io_on(mut socket: TcpStream, auth: &Value) -> anyhow::Result<(TcpStream, Value, Vec<u8>)> {
    let mut received = Vec::new();
    open(&mut socket, "/socket.io/?EIO=4&transport=websocket", &mut received).await?;
    next_text(&mut socket, &mut received).await?;
    socket.write_all(&client_frame(format!("40{auth}").as_bytes())).await?;
    let answer = next_text(&mut socket, &mut received).await?;
    let entered = answer.strip_prefix("40").with_context(|| format!("the host refused: {answer}"))?;
    Ok((socket, serde_json::from_str(entered)?, received))
}

pub(crate) async fn reach(ws: &str) -> anyhow::Result<TcpStream> {
    Ok(TcpStream::connect(ws.trim_start_matches("ws://")).await?)
}

/// Makes the WebSocket handshake. Bytes after the host's answer go to `received`.
///
/// # Errors
/// If the host refuses the handshake, or does not answer.
pub async fn open(socket: &mut TcpStream, path: &str, received: &mut Vec<u8>) -> anyhow::Result<()> {
    const END: &[u8] = b"\r\n\r\n";
    socket.set_nodelay(true)?;
    let handshake = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(handshake.as_bytes()).await?;
    loop {
        if let Some(end) = received.windows(END.len()).position(|window| window == END) {
            ensure!(received.starts_with(b"HTTP/1.1 101"), "the host refused: {}", String::from_utf8_lossy(received));
            received.drain(..end + END.len());
            return Ok(());
        }
        receive(socket, received).await?;
    }
}

async fn receive(socket: &mut TcpStream, received: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut buffer = [0; 2048];
    let n = tokio::time::timeout(Duration::from_secs(10), socket.read(&mut buffer)).await??;
    ensure!(n > 0, "the host closed the connection: {}", String::from_utf8_lossy(received));
    received.extend_from_slice(&buffer[..n]);
    Ok(())
}

/// The next text frame, of at most 64 KiB.
async fn next_text(socket: &mut TcpStream, received: &mut Vec<u8>) -> anyhow::Result<String> {
    loop {
        let (head, length): (usize, usize) = match received[..] {
            [_, n @ 0..=125, ..] => (2, usize::from(n)),
            [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
            _ => (2, usize::MAX - 2),
        };
        if received.len() >= head.saturating_add(length) {
            let text = String::from_utf8(received[head..head + length].to_vec())?;
            received.drain(..head + length);
            return Ok(text);
        }
        receive(socket, received).await?;
    }
}

/// A client's text frame, masked with zeros.
pub fn client_frame(payload: &[u8]) -> Vec<u8> {
    frame_of(0x81, payload)
}

/// A client's frame with the first byte `first` (the final flag and the opcode), masked with zeros.
pub fn frame_of(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        n @ 0..=125 => frame.push(0x80 | n as u8),
        n @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((n as u16).to_be_bytes());
        }
        n => {
            frame.push(0x80 | 127);
            frame.extend((n as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Removes whole frames of a server from the received bytes, and passes the payload of each text frame to `take`.
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
