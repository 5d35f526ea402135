//! Rooms on socketioxide with its defaults, in the set-up with which its documentation begins: beside axum, on Tokio's
//! threads.

use std::io::Write as _;

use axum::Router;
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let (layer, io) = SocketIo::new_layer();
    io.ns("/", async |socket: SocketRef| {
        socket.on("join", async |socket: SocketRef, Data(data): Data<Value>, acknowledge: AckSender| {
            socket.join(room(&data));
            // The client may have disconnected.
            let _ = acknowledge.send(&json!({}));
        });
        socket.on("publish", async |io: SocketIo, Data(data): Data<Value>| {
            // An error is about a member that does not read, and not about the publisher.
            let _ = io.to(room(&data)).emit("message", &data).await;
        });
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?.port())?;
    axum::serve(listener, Router::new().layer(layer)).await
}

fn room(data: &Value) -> String {
    data["room"].as_str().unwrap_or_default().to_owned()
}
