//! Recovery: how a client goes on after it lost its transport.

mod before_resume;
mod handoff;
mod plain;
mod presence;
mod socketio;
mod socketio_end;

use std::time::Duration;

use roundhouse_tests::{InnerHost, SocketIoClient, eventually, metric};
use serde_json::{Value, json};
use tokio::net::TcpStream;

pub(crate) const CONFIG: &str = "auth.jwt.secret = \"s\"\nlimits.events_per_second = 0\n\
                                 plugins.conformance.grants.actions = [\"connect\"]\n\
                                 plugins.hostile.grants.actions = [\"connect\"]\n";

/// Where a connection's id has its shard: behind the three digits of the node.
pub(crate) const SHARD: std::ops::Range<usize> = 3..5;

/// The default `recovery.window`.
pub(crate) const WINDOW: Duration = Duration::from_secs(120);

/// The transport of a Socket.IO client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Socket,
    Polling,
}

pub(crate) const TRANSPORTS: [Transport; 2] = [Transport::Socket, Transport::Polling];

impl Transport {
    pub(crate) async fn open(self, host: &InnerHost) -> SocketIoClient {
        match self {
            Self::Socket => SocketIoClient::socket(&host.ws).await,
            Self::Polling => SocketIoClient::polling(&host.ws).await,
        }
    }
}

/// Connects a client of `user` to the main namespace. Also returns the connection's id.
pub(crate) async fn client(host: &InnerHost, transport: Transport, user: &str) -> (SocketIoClient, String) {
    let mut client = transport.open(host).await;
    let id = client.connect_as(&host.token(user, None)).await;
    (client, id)
}

/// Waits until `n` connections are detached.
pub(crate) async fn wait_for_detached(host: &InnerHost, n: u64) {
    eventually(&format!("{n} are away"), async || (metric(&host.api, "connections_away").await == n).then_some(()))
        .await;
}

/// Waits until a user who disconnects has no connection any more.
pub(crate) async fn wait_for_departure(host: &InnerHost, user: &str) {
    let path = format!("/v1/users/{user}");
    eventually(&format!("{user} has no connection"), async || {
        (host.call("GET", &path, "").await.status == 404).then_some(())
    })
    .await;
}

/// Emits an event to the one connection of a user.
pub(crate) async fn emit_number(host: &InnerHost, user: &str, n: i32) {
    assert_eq!(host.emit(json!({ "user": user }), "number", json!(n)).await, 1);
}

/// Breaks the transport, and waits until the connection is detached. Returns the `auth` that recovers the session.
pub(crate) async fn lose(host: &InnerHost, client: SocketIoClient, user: &str) -> Value {
    let session = client.session_with(&host.token(user, None));
    client.cut().await;
    wait_for_detached(host, 1).await;
    session
}

/// Opens an idle connection, which goes to the shard with the fewest connections, so that the next one goes to another.
async fn occupy_shard(host: &InnerHost) -> TcpStream {
    TcpStream::connect(host.ws.trim_start_matches("ws://")).await.unwrap()
}
