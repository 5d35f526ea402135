//! TLS of one connection, without I/O: encrypted bytes go in, plain bytes come out, and the reverse.
//!
//! rustls' unbuffered interface is used, because its buffered one keeps 4 KiB for each connection that was ever read.
//! Here a connection holds bytes only for a record that has arrived in part, and for what its socket did not accept.

use std::fmt;
use std::io::{self, Write};
use std::mem;
use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{Error, ServerConfig};

/// The longest input that may wait for its rest, in bytes: a handshake message may span several records, and rustls'
/// buffered connections have the same bound.
const MAX_INCOMPLETE: usize = 64 * 1024;

/// What each record adds to its plain bytes: header, nonce or content type, and the authentication tag.
const RECORD_OVERHEAD: usize = 5 + 8 + 1 + 16;

/// The most plain bytes of a record (RFC 8446, section 5.1).
const RECORD_BYTES: usize = 16 * 1024;

/// The host's end of a TLS connection.
pub struct TlsSession {
    connection: Box<UnbufferedServerConnection>,
    /// The start of a record or handshake message whose rest has not arrived.
    incoming: Vec<u8>,
    /// Encrypted bytes that the socket has not accepted, from `sent` on.
    outgoing: Vec<u8>,
    sent: usize,
    is_closed_by_peer: bool,
}

/// What is to be encrypted once the connection's state allows it.
#[derive(Clone, Copy)]
enum Send<'a> {
    Nothing,
    Plain(&'a [u8]),
    Close,
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The keys of the connection are left out.
        f.debug_struct("TlsSession").field("is_closed_by_peer", &self.is_closed_by_peer).finish_non_exhaustive()
    }
}

impl TlsSession {
    /// A session whose handshake has not begun.
    ///
    /// # Errors
    /// Where the settings cannot be used.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let connection = Box::new(UnbufferedServerConnection::new(config)?);
        Ok(Self { connection, incoming: Vec::new(), outgoing: Vec::new(), sent: 0, is_closed_by_peer: false })
    }

    /// Whether the handshake is not complete.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether the peer has said that it sends no more.
    pub fn is_closed_by_peer(&self) -> bool {
        self.is_closed_by_peer
    }

    /// The bytes held of incomplete records.
    pub fn incomplete(&self) -> usize {
        self.incoming.len()
    }

    /// Whether encrypted bytes wait for the socket.
    pub fn has_pending(&self) -> bool {
        self.sent < self.outgoing.len()
    }

    /// Decrypts bytes that were read from the socket, in place, and appends the plain bytes to `plain`. Answers of the
    /// protocol itself, also the alert of an error, are then pending.
    ///
    /// # Errors
    /// Where the peer breaks the protocol or refuses the handshake: the connection can only be closed.
    pub fn read(&mut self, received: &mut [u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        if self.incoming.is_empty() {
            let (taken, outcome) = self.process(received, plain, Send::Nothing);
            outcome?;
            self.incoming = received[taken..].to_vec();
        } else {
            self.incoming.extend_from_slice(received);
            let mut incoming = mem::take(&mut self.incoming);
            let (taken, outcome) = self.process(&mut incoming, plain, Send::Nothing);
            outcome?;
            if taken < incoming.len() {
                incoming.drain(..taken);
                self.incoming = incoming;
            }
        }
        if self.incoming.len() > MAX_INCOMPLETE {
            return Err(Error::General("a handshake message is too long".to_owned()));
        }
        Ok(())
    }

    /// Encrypts plain bytes; they are pending until [`TlsSession::flush_to`] has written them.
    ///
    /// # Errors
    /// Where the handshake is not complete, or the connection can encrypt no more.
    pub fn write(&mut self, plain: &[u8]) -> Result<(), Error> {
        self.send(Send::Plain(plain))
    }

    /// Encrypts the message that no more follows.
    ///
    /// # Errors
    /// As [`TlsSession::write`].
    pub fn close(&mut self) -> Result<(), Error> {
        self.send(Send::Close)
    }

    /// Tells the peer that no more follows, as far as the socket takes it.
    ///
    /// # Errors
    /// Where nothing can be encrypted or written any more.
    pub fn close_on(mut self, socket: impl Write) -> io::Result<()> {
        self.close().map_err(io::Error::other)?;
        self.flush_to(socket).map(drop)
    }

    /// Writes the pending bytes. Returns whether all are written.
    ///
    /// # Errors
    /// The socket's, except that it would block.
    pub fn flush_to(&mut self, mut socket: impl Write) -> io::Result<bool> {
        while self.has_pending() {
            match socket.write(&self.outgoing[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // The capacity is freed as well: an idle connection keeps none.
        (self.outgoing, self.sent) = (Vec::new(), 0);
        Ok(true)
    }

    fn send(&mut self, send: Send<'_>) -> Result<(), Error> {
        // The record that has arrived in part must be shown each time: the connection refers to its place.
        let mut incoming = mem::take(&mut self.incoming);
        let mut plain = Vec::new();
        let (taken, outcome) = self.process(&mut incoming, &mut plain, send);
        incoming.drain(..taken);
        self.incoming = incoming;
        outcome?;
        // Every complete record was decrypted when it arrived.
        debug_assert!(plain.is_empty(), "a complete record was left undecrypted");
        Ok(())
    }

    /// Runs the connection over `incoming` until it needs more. Returns how many bytes of `incoming` it has used.
    fn process(&mut self, incoming: &mut [u8], plain: &mut Vec<u8>, send: Send<'_>) -> (usize, Result<(), Error>) {
        let mut taken = 0;
        let mut failure = None;
        loop {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut incoming[taken..]);
            let mut used = discard;
            let mut is_done = false;
            match state {
                // The next round has the alert to send, if any.
                Err(error) if failure.is_none() => failure = Some(error),
                Err(_) => is_done = true,
                Ok(ConnectionState::EncodeTlsData(mut state)) => {
                    if let Err(error) = encode(&mut state, &mut self.outgoing) {
                        return (taken + used, Err(error));
                    }
                    // Behind this alert the same bytes would be refused again, by another alert.
                    is_done = failure.as_ref().is_some_and(is_of_record);
                }
                Ok(ConnectionState::TransmitTlsData(state)) => state.done(),
                Ok(_) if failure.is_some() => is_done = true,
                Ok(ConnectionState::ReadTraffic(mut state)) => {
                    while let Some(record) = state.next_record() {
                        match record {
                            Ok(record) => {
                                used += record.discard;
                                plain.extend_from_slice(record.payload);
                            }
                            Err(error) => return (taken + used, Err(error)),
                        }
                    }
                }
                Ok(ConnectionState::PeerClosed) => self.is_closed_by_peer = true,
                Ok(ConnectionState::WriteTraffic(state)) => {
                    return (taken + used, encrypt(state, send, &mut self.outgoing));
                }
                Ok(ConnectionState::BlockedHandshake) if matches!(send, Send::Plain(_)) => {
                    return (taken + used, Err(Error::HandshakeNotComplete));
                }
                // A session is created without early data, and closed by both sides no more bytes count.
                Ok(_) => is_done = true,
            }
            taken += used;
            if is_done {
                return (taken, failure.map_or(Ok(()), Err));
            }
        }
    }
}

/// Whether an error is about a record, before its content is handled.
fn is_of_record(error: &Error) -> bool {
    matches!(error, Error::InvalidMessage(_) | Error::PeerSentOversizedRecord | Error::DecryptError)
}

fn encode(state: &mut EncodeTlsData<'_, ServerConnectionData>, outgoing: &mut Vec<u8>) -> Result<(), Error> {
    append(outgoing, 512, |buffer| match state.encode(buffer) {
        Ok(written) => Ok(Ok(written)),
        Err(EncodeError::InsufficientSize(size)) => Err(size.required_size),
        Err(EncodeError::AlreadyEncoded) => Ok(Err(Error::General("a message was encoded twice".to_owned()))),
    })
}

fn encrypt(
    mut state: WriteTraffic<'_, ServerConnectionData>,
    send: Send<'_>,
    outgoing: &mut Vec<u8>,
) -> Result<(), Error> {
    let outcome = |written| match written {
        Ok(written) => Ok(Ok(written)),
        Err(EncryptError::InsufficientSize(size)) => Err(size.required_size),
        Err(EncryptError::EncryptExhausted) => Ok(Err(Error::EncryptError)),
    };
    match send {
        Send::Nothing => Ok(()),
        Send::Plain(plain) => {
            let records = plain.len().div_ceil(RECORD_BYTES).max(1);
            let size = plain.len() + records * RECORD_OVERHEAD;
            append(outgoing, size, |buffer| outcome(state.encrypt(plain, buffer)))
        }
        Send::Close => append(outgoing, 64, |buffer| outcome(state.queue_close_notify(buffer))),
    }
}

/// Appends what `fill` writes, giving it `size` bytes of room, and more where it asks for more.
fn append(
    outgoing: &mut Vec<u8>,
    size: usize,
    mut fill: impl FnMut(&mut [u8]) -> Result<Result<usize, Error>, usize>,
) -> Result<(), Error> {
    let start = outgoing.len();
    let mut room = size;
    loop {
        outgoing.resize(start + room, 0);
        match fill(&mut outgoing[start..]) {
            Ok(written) => {
                outgoing.truncate(start + *written.as_ref().unwrap_or(&0));
                return written.map(drop);
            }
            Err(required) if required > room => room = required,
            Err(_) => return Err(Error::EncryptError),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn pair() -> (TlsSession, ClientConnection) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let provider = Arc::new(default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let server = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let server = server.unwrap().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let client = client.unwrap().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        (TlsSession::new(Arc::new(server)).unwrap(), ClientConnection::new(Arc::new(client), name).unwrap())
    }

    /// Gives the session what the client has to send, in pieces of `size` bytes, and the client the answers.
    fn exchange(session: &mut TlsSession, client: &mut ClientConnection, size: usize) -> Vec<u8> {
        let mut plain = Vec::new();
        while client.wants_write() || session.has_pending() {
            let mut sent = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut sent).unwrap();
            }
            for piece in sent.chunks_mut(size) {
                session.read(piece, &mut plain).unwrap();
            }
            let mut answer = Vec::new();
            assert!(session.flush_to(&mut answer).unwrap());
            let mut answer = &answer[..];
            while !answer.is_empty() {
                client.read_tls(&mut answer).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        plain
    }

    #[test]
    fn bytes_pass_whatever_pieces_they_arrive_in() {
        for size in [1, 7, 4096, usize::MAX] {
            let (mut session, mut client) = pair();
            exchange(&mut session, &mut client, size);
            assert!(!session.is_handshaking() && !client.is_handshaking());
            let long: Vec<u8> = (0..50_000_u32).map(|n| n as u8).collect();
            client.writer().write_all(&long).unwrap();
            assert!(exchange(&mut session, &mut client, size) == long, "in pieces of {size}");
            // An idle session holds nothing.
            assert_eq!((session.incomplete(), session.outgoing.capacity(), session.incoming.capacity()), (0, 0, 0));
            let mut back = Vec::new();
            for part in long.chunks(20_000) {
                session.write(part).unwrap();
                exchange(&mut session, &mut client, size);
                let mut part = vec![0; part.len()];
                client.reader().read_exact(&mut part).unwrap();
                back.extend(part);
            }
            assert!(back == long, "back, in pieces of {size}");
        }
    }

    #[test]
    fn bytes_can_be_written_while_a_record_is_incomplete() {
        let (mut session, mut client) = pair();
        exchange(&mut session, &mut client, 4096);
        client.writer().write_all(b"question").unwrap();
        let (mut sent, mut plain) = (Vec::new(), Vec::new());
        client.write_tls(&mut sent).unwrap();
        let (start, rest) = sent.split_at_mut(9);
        session.read(start, &mut plain).unwrap();
        assert_eq!((session.incomplete(), plain.len()), (9, 0));
        session.write(b"meanwhile").unwrap();
        session.read(rest, &mut plain).unwrap();
        assert_eq!((session.incomplete(), &*plain), (0, &b"question"[..]));
        exchange(&mut session, &mut client, 4096);
        let mut answer = [0; 9];
        client.reader().read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"meanwhile");
    }

    #[test]
    fn ends_are_told_both_ways() {
        let (mut session, mut client) = pair();
        exchange(&mut session, &mut client, 4096);
        client.send_close_notify();
        exchange(&mut session, &mut client, 4096);
        assert!(session.is_closed_by_peer());
        let mut last = Vec::new();
        session.close_on(&mut last).unwrap();
        client.read_tls(&mut &last[..]).unwrap();
        assert!(client.process_new_packets().unwrap().peer_has_closed());
    }

    #[test]
    fn nonsense_is_refused_with_an_alert() {
        let (mut session, _) = pair();
        let mut nonsense = [22, 3, 1, 0, 4, 9, 0, 0, 0];
        session.read(&mut nonsense, &mut Vec::new()).unwrap_err();
        let mut alert = Vec::new();
        session.flush_to(&mut alert).unwrap();
        assert_eq!(alert.first(), Some(&21));
        assert!(session.write(b"data").is_err());
        // A record of an unknown type, longer than any may be.
        let (mut session, _) = pair();
        session.read(&mut [22, 3, 1, 0xff, 0xff, 1], &mut Vec::new()).unwrap_err();
        assert_eq!(session.outgoing.first(), Some(&21));
    }

    #[test]
    fn endless_handshake_messages_are_refused() {
        let (mut session, _) = pair();
        // A ClientHello of 16 MB is announced, and sent by whole records.
        let mut record = vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
        record.resize(5 + 0x4000, 0);
        let refused = (0..10).find(|_| session.read(&mut record.clone(), &mut Vec::new()).is_err());
        assert!(refused.is_some() && session.incomplete() <= MAX_INCOMPLETE + record.len());
    }
}
