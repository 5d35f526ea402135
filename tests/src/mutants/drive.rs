//! The people and services that make a script's traffic on a host.

use std::collections::HashMap;

use super::traffic::{Step, roles, user};
use crate::{TestClient, TestHost, eventually};

/// The open connections of a script, by their names there.
#[derive(Debug)]
pub struct Traffic<'a> {
    host: &'a TestHost,
    clients: HashMap<&'static str, TestClient>,
}

impl<'a> Traffic<'a> {
    /// Nobody is connected yet.
    #[must_use]
    pub fn new(host: &'a TestHost) -> Self {
        Self { host, clients: HashMap::new() }
    }

    /// Makes the steps, one after another. What is refused is ordinary, too.
    pub async fn run(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Client { from, event, data } => {
                    if !self.clients.contains_key(from) {
                        let roles: Vec<_> = roles(user(from)).iter().flat_map(|role| ["--role", role]).collect();
                        let client = self.host.client_with(user(from), &roles).await;
                        self.clients.insert(from, client);
                    }
                    let client = self.clients.get_mut(from).expect("it was opened above");
                    let _ = client.emit_with_ack(event, data).await;
                    // Nobody looks at what the others are sent.
                    client.discard_kept();
                }
                Step::Service { event, data } => drop(self.host.post_event(event, data).await),
                Step::Disconnect { from } => {
                    let Some(client) = self.clients.remove(from) else { continue };
                    let path = format!("/v1/connections/{}", client.id());
                    client.close().await;
                    eventually("the connection has ended", async || {
                        (self.host.call("GET", &path, "").await.status == 404).then_some(())
                    })
                    .await;
                }
            }
        }
    }
}
