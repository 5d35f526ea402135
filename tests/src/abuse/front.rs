//! A port without TLS before a host with TLS, so that good clients are measured with the host's cost of TLS.

use std::net::TcpListener;
use std::thread::JoinHandle;

use anyhow::Context as _;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::{TestAuthority, TestHost, connect_tls_on};

/// The way of clients without TLS to a host with TLS, on a thread of its own until this value is dropped.
#[derive(Debug)]
pub(super) struct TlsFront {
    /// The address of the port, as `ws://127.0.0.1:PORT`.
    pub(super) ws: String,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TlsFront {
    /// Opens a port before a host whose certificate is of this authority.
    pub(super) fn before(host: &TestHost, authority: &TestAuthority) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let ws = format!("ws://{}", listener.local_addr()?);
        let to = host.ws.strip_prefix("wss://").context("the host has no TLS")?.to_owned();
        let config = authority.client(None);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("front".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = serve(listener, &to, config) => {}
                    _ = ended => {}
                }
            });
        })?;
        Ok(Self { ws, end: Some(end), thread: Some(thread) })
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // The panic of that thread has been printed.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, to: &str, config: ClientConfig) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (client, _) = listener.accept().await?;
        let (to, config) = (to.to_owned(), config.clone());
        // Both ends notice the end of the other.
        tokio::spawn(async move { forward(client, &to, config).await.ok() });
    }
}

async fn forward(mut client: TcpStream, to: &str, config: ClientConfig) -> anyhow::Result<()> {
    client.set_nodelay(true)?;
    let socket = TcpStream::connect(to).await?;
    socket.set_nodelay(true)?;
    let mut host = connect_tls_on(socket, config).await?;
    tokio::io::copy_bidirectional(&mut client, &mut host).await?;
    Ok(())
}
