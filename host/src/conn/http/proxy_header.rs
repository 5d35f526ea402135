//! The PROXY protocol, versions 1 and 2: a proxy sends the client's address before the client's first byte.
//!
//! The header is read from trusted proxies alone, and recognised by its signature, with which no HTTP request begins.
//! So the same listener serves proxies with and without the header.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header of version 1, with its line break, by the specification.
const MAX_V1_BYTES: usize = 107;

/// The fixed part of a header of version 2, with the length of the rest.
const V2_PREFIX_BYTES: usize = 16;

/// The longest rest of a header of version 2: addresses and extensions (TLVs).
const MAX_V2_BYTES: usize = 4096;

/// Time between two peeks at a socket that has sent a part of the signature. Proxies send the signature whole, so this
/// is rare.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Reads the header, if present, and nothing behind it. Returns the client's address; `None` for the proxy's own
/// connections, such as health checks, and for unknown addresses.
///
/// # Errors
/// Where the header is malformed, or the connection ends within it.
pub(in crate::conn) async fn read(socket: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut start = [0; V2_SIGNATURE.len()];
    loop {
        let n = socket.peek(&mut start).await?;
        match &start[..n] {
            [] => return Ok(None),
            start if start.starts_with(V1_SIGNATURE) => return read_v1(socket).await,
            start if start.starts_with(V2_SIGNATURE) => return read_v2(socket).await,
            start if V1_SIGNATURE.starts_with(start) || V2_SIGNATURE.starts_with(start) => {
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            }
            _ => return Ok(None),
        }
    }
}

async fn read_v1(socket: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut line = Vec::with_capacity(MAX_V1_BYTES);
    // Byte by byte, because the client's bytes follow the line. The line is in the kernel's buffer already.
    while !line.ends_with(b"\r\n") {
        if line.len() >= MAX_V1_BYTES {
            return Err(malformed("the line does not end"));
        }
        line.push(socket.read_u8().await?);
    }
    parse_v1(&line[..line.len() - 2])
}

async fn read_v2(socket: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut prefix = [0; V2_PREFIX_BYTES];
    socket.read_exact(&mut prefix).await?;
    let length = usize::from(u16::from_be_bytes([prefix[14], prefix[15]]));
    if length > MAX_V2_BYTES {
        return Err(malformed("the header is too long"));
    }
    let mut rest = vec![0; length];
    socket.read_exact(&mut rest).await?;
    parse_v2(prefix[12], prefix[13], &rest)
}

/// Parses the line of version 1, without its line break.
fn parse_v1(line: &[u8]) -> io::Result<Option<SocketAddr>> {
    let line = std::str::from_utf8(line).map_err(|_| malformed("the line is not ASCII"))?;
    let mut words = line.split(' ');
    let (_, family) = (words.next(), words.next());
    let rest: Vec<&str> = words.collect();
    match (family, rest.as_slice()) {
        (Some("UNKNOWN"), _) => Ok(None),
        (Some("TCP4"), addresses) => parse_v1_addresses::<Ipv4Addr>(addresses),
        (Some("TCP6"), addresses) => parse_v1_addresses::<Ipv6Addr>(addresses),
        _ => Err(malformed("the family is none of TCP4, TCP6 and UNKNOWN")),
    }
}

fn parse_v1_addresses<A: FromStr + Into<IpAddr>>(words: &[&str]) -> io::Result<Option<SocketAddr>> {
    let [source, destination, source_port, destination_port] = words else {
        return Err(malformed("there must be two addresses and two ports"));
    };
    let address = |text: &str| text.parse::<A>().map_err(|_| malformed("an address is malformed"));
    let port = |text: &str| text.parse::<u16>().map_err(|_| malformed("a port is malformed"));
    address(destination)?;
    port(destination_port)?;
    Ok(Some(SocketAddr::new(address(source)?.into().to_canonical(), port(source_port)?)))
}

/// Parses the header of version 2 behind its signature. Extensions behind the addresses are ignored.
fn parse_v2(version_and_command: u8, family: u8, rest: &[u8]) -> io::Result<Option<SocketAddr>> {
    match version_and_command {
        // The proxy's own connection.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(malformed("version or command is unknown")),
    }
    match (family, rest) {
        (0x11, [a, b, c, d, _, _, _, _, port @ ..]) if port.len() >= 4 => {
            let address = Ipv4Addr::new(*a, *b, *c, *d);
            Ok(Some(SocketAddr::new(address.into(), u16::from_be_bytes([port[0], port[1]]))))
        }
        (0x21, rest) if rest.len() >= 36 => {
            let address: [u8; 16] = rest[..16].try_into().map_err(|_| malformed("an address is malformed"))?;
            let address = IpAddr::from(Ipv6Addr::from(address)).to_canonical();
            Ok(Some(SocketAddr::new(address, u16::from_be_bytes([rest[32], rest[33]]))))
        }
        (0x11 | 0x21, _) => Err(malformed("the addresses are cut off")),
        // Unspecified families, datagrams and Unix sockets have no usable address.
        _ => Ok(None),
    }
}

fn malformed(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed PROXY header: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Xorshift;

    #[test]
    fn version_1_is_read_strictly() {
        let parse = |line: &str| parse_v1(line.as_bytes()).map(|client| client.map(|client| client.to_string()));
        assert_eq!(parse("PROXY TCP4 192.0.2.7 10.0.0.1 4711 80").unwrap().as_deref(), Some("192.0.2.7:4711"));
        assert_eq!(parse("PROXY TCP6 2001:db8::1 ::1 4711 80").unwrap().as_deref(), Some("[2001:db8::1]:4711"));
        assert_eq!(parse("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2").unwrap().as_deref(), Some("192.0.2.7:1"));
        assert_eq!(parse("PROXY UNKNOWN").unwrap(), None);
        assert_eq!(parse("PROXY UNKNOWN ffff:f 1 2 3").unwrap(), None);
        for bad in [
            "PROXY ",
            "PROXY TCP4",
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711",
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 80 9",
            "PROXY TCP4  192.0.2.7 10.0.0.1 4711 80",
            "PROXY TCP4 2001:db8::1 ::1 4711 80",
            "PROXY TCP4 192.0.2.7 10.0.0.1 65536 80",
            "PROXY TCP4 192.0.2.7 x 4711 80",
            "PROXY UDP4 192.0.2.7 10.0.0.1 4711 80",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn version_2_is_read_with_and_without_extensions() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0, 80];
        let v6: Vec<u8> = [&[0x20, 1][..], &[0; 13], &[1], &[0; 16], &[0x12, 0x67, 0, 80]].concat();
        let text = |client: Option<SocketAddr>| client.map(|client| client.to_string()).unwrap_or_default();
        assert_eq!(text(parse_v2(0x21, 0x11, &v4).unwrap()), "192.0.2.7:4711");
        assert_eq!(text(parse_v2(0x21, 0x11, &[&v4[..], &[4, 0, 1, 0]].concat()).unwrap()), "192.0.2.7:4711");
        assert_eq!(text(parse_v2(0x21, 0x21, &v6).unwrap()), "[2001::1]:4711");
        // No client address: the proxy's own connection (LOCAL), an unspecified family, a Unix socket.
        for (command, family) in [(0x20, 0x11), (0x21, 0x00), (0x21, 0x31)] {
            assert_eq!(parse_v2(command, family, &v4).unwrap(), None);
        }
        for (command, family, rest) in [(0x21, 0x11, &v4[..11]), (0x21, 0x21, &v6[..35]), (0x31, 0x11, &v4[..])] {
            assert!(parse_v2(command, family, rest).is_err());
        }
        assert!(parse_v2(0x22, 0x11, &v4).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let mut random = Xorshift::default();
        let mut next = || random.next();
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..next() % 64).map(|_| next() as u8).collect();
            drop(parse_v2(0x20 | (next() % 4) as u8, [0x11, 0x21, next() as u8][next() as usize % 3], &bytes));
            let words = ["PROXY", "TCP4", "TCP6", "1.2.3.4", "::1", "80", " ", "-1"];
            bytes.iter_mut().for_each(|byte| *byte %= 128);
            drop(parse_v1(&bytes));
            let line: Vec<&str> = (0..next() % 8).map(|_| words[next() as usize % words.len()]).collect();
            drop(parse_v1(line.join(" ").as_bytes()));
        }
    }
}
