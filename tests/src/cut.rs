//! A TCP proxy on loopback whose connections a test breaks, stalls, refuses and slows down.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The bytes that are read at once.
const CHUNK: usize = 64 * 1024;

/// What the proxy does with connections.
#[derive(Debug, Clone, Copy, Default)]
struct Rules {
    /// Connections from before the last reset are broken.
    n_resets: u64,
    is_stalled: bool,
    refuses: bool,
    delay: Duration,
    is_over: bool,
}

/// A running proxy, on a thread of its own, which ends when this value is dropped.
#[derive(Debug)]
pub struct CuttableProxy {
    address: SocketAddr,
    rules: watch::Sender<Rules>,
    thread: Option<JoinHandle<()>>,
}

impl CuttableProxy {
    /// Starts a proxy before `upstream`, an address as `127.0.0.1:PORT`.
    ///
    /// # Panics
    /// If there is no free port, or no thread.
    pub fn start(upstream: &str) -> Self {
        let upstream = upstream.parse().expect("an address and a port");
        let listener = StdListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let address = listener.local_addr().expect("a listener has an address");
        let (rules, followed) = watch::channel(Rules::default());
        let thread = std::thread::Builder::new().name("cuttable-proxy".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve(listener, upstream, followed));
        });
        Self { address, rules, thread: Some(thread.expect("a thread can be started")) }
    }

    /// The address of the proxy, as `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Breaks all connections, with a TCP reset on both sides.
    pub fn reset(&self) {
        self.rules.send_modify(|rules| rules.n_resets += 1);
    }

    /// Goes on to accept connections, but passes nothing on, in neither direction.
    pub fn stall(&self) {
        self.rules.send_modify(|rules| rules.is_stalled = true);
    }

    /// Passes on again, first what came during the stall.
    pub fn flow(&self) {
        self.rules.send_modify(|rules| rules.is_stalled = false);
    }

    /// Breaks new connections at once.
    pub fn refuse(&self) {
        self.rules.send_modify(|rules| rules.refuses = true);
    }

    /// Accepts new connections again.
    pub fn accept(&self) {
        self.rules.send_modify(|rules| rules.refuses = false);
    }

    /// Passes on each piece after this time.
    pub fn delay(&self, delay: Duration) {
        self.rules.send_modify(|rules| rules.delay = delay);
    }
}

impl Drop for CuttableProxy {
    fn drop(&mut self) {
        self.rules.send_modify(|rules| rules.is_over = true);
        // A panic of the thread has been reported by the thread.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(listener: StdListener, upstream: SocketAddr, rules: watch::Receiver<Rules>) {
    let mut end = rules.clone();
    let listener = TcpListener::from_std(listener).expect("a listener of the runtime");
    loop {
        tokio::select! {
            _ = end.wait_for(|rules| rules.is_over) => return,
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                if rules.borrow().refuses {
                    break_off(&client);
                } else {
                    tokio::spawn(pass(client, upstream, rules.clone()));
                }
            }
        }
    }
}

/// Passes on what comes in both directions until either side ends, or the connection is reset.
async fn pass(mut client: TcpStream, upstream: SocketAddr, mut rules: watch::Receiver<Rules>) {
    let n_resets = rules.borrow().n_resets;
    let flow = rules.clone();
    let is_reset = rules.wait_for(|rules| rules.n_resets != n_resets);
    tokio::pin!(is_reset);
    let connected = tokio::select! {
        _ = &mut is_reset => return break_off(&client),
        connected = connect(upstream, flow.clone()) => connected,
    };
    let Some(mut server) = connected else { return break_off(&client) };
    // Where it fails, pieces are merely passed on later.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    tokio::select! {
        _ = &mut is_reset => {}
        () = pump(from_client, to_server, flow.clone()) => return,
        () = pump(from_server, to_client, flow) => return,
    }
    break_off(&client);
    break_off(&server);
}

async fn connect(upstream: SocketAddr, mut flow: watch::Receiver<Rules>) -> Option<TcpStream> {
    flow.wait_for(|rules| !rules.is_stalled).await.ok()?;
    TcpStream::connect(upstream).await.ok()
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut rules: watch::Receiver<Rules>) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let Ok(n) = from.read(&mut chunk).await else { return };
        let delay = rules.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if rules.wait_for(|rules| !rules.is_stalled).await.is_err() || n == 0 {
            return;
        }
        if to.write_all(&chunk[..n]).await.is_err() {
            return;
        }
    }
}

/// Lets the end of the socket reset its connection.
fn break_off(socket: &TcpStream) {
    // It fails for a socket that has ended, which needs no reset.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;

    /// A server that repeats what it receives, and a proxy before it.
    fn echo() -> CuttableProxy {
        let listener = StdListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || std::io::copy(&mut &socket, &mut &socket));
            }
        });
        CuttableProxy::start(&address)
    }

    fn connect(proxy: &CuttableProxy) -> TcpStream {
        let socket = TcpStream::connect(proxy.address()).expect("the proxy listens");
        socket.set_read_timeout(Some(crate::TIMEOUT)).expect("a time-out can be set");
        socket
    }

    fn is_echoed(mut socket: &TcpStream) -> Result<bool, ErrorKind> {
        let mut byte = [0];
        socket.write_all(b"x").map_err(|error| error.kind())?;
        socket.read(&mut byte).map(|n| n == 1).map_err(|error| error.kind())
    }

    #[test]
    fn reset_breaks_open_connections_alone() {
        let proxy = echo();
        let open = connect(&proxy);
        assert_eq!(is_echoed(&open), Ok(true));
        proxy.reset();
        assert_ne!((&open).read(&mut [0]).map_err(|error| error.kind()), Ok(1));
        assert_eq!(is_echoed(&connect(&proxy)), Ok(true));
    }

    #[test]
    fn stalled_bytes_arrive_when_the_flow_goes_on() {
        let proxy = echo();
        let open = connect(&proxy);
        assert_eq!(is_echoed(&open), Ok(true));
        proxy.stall();
        open.set_read_timeout(Some(crate::SILENCE)).expect("a time-out can be set");
        assert_eq!(is_echoed(&open), Err(ErrorKind::WouldBlock));
        open.set_read_timeout(Some(crate::TIMEOUT)).expect("a time-out can be set");
        proxy.flow();
        assert_eq!((&open).read(&mut [0]).map_err(|error| error.kind()), Ok(1));
    }

    #[test]
    fn refused_connections_end_at_once() {
        let proxy = echo();
        proxy.refuse();
        assert_ne!(is_echoed(&connect(&proxy)), Ok(true));
        proxy.accept();
        assert_eq!(is_echoed(&connect(&proxy)), Ok(true));
    }

    #[test]
    fn delay_holds_up_both_directions() {
        let proxy = echo();
        proxy.delay(Duration::from_millis(50));
        let began = std::time::Instant::now();
        assert_eq!(is_echoed(&connect(&proxy)), Ok(true));
        assert!(began.elapsed() >= Duration::from_millis(100));
    }
}
