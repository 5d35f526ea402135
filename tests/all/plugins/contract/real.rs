//! Verdicts of the real host.

use std::collections::HashMap;

use roundhouse_tests::{TestClient, TestHost, guests};
use serde_json::{Value, json};
use table::ManifestSpec;

use super::{ACTORS, Case, POOR, RICH, Verdict, manifest, named};

/// The number of faults of one user before another user takes over: a user who causes more is refused.
const FAULTS_PER_USER: usize = 2;

/// A host on which cases are judged one after another.
pub(super) struct RealHost {
    host: TestHost,
    tokens: HashMap<String, String>,
    n_faults: usize,
}

impl RealHost {
    /// A host that runs [`POOR`] and [`RICH`], which gets what it needs, and grants another feature, `table`, everything.
    pub(super) async fn start() -> Self {
        let all_but_rooms = "audiences = [\"user\", \"roles\", \"all\"]\n\
                             actions = [\"save\", \"disconnect\", \"connect\", \"join\"]\n";
        let config = format!(
            "auth.jwt.secret = \"s\"\n[limits]\nevents_per_second = 0\n\
             [plugins.rich.grants]\nrooms = [\"hall\", \"hall:*\"]\n{all_but_rooms}\
             [plugins.table.grants]\nrooms = [\"*\"]\n{all_but_rooms}"
        );
        let host = TestHost::start_with(&config, &[]);
        for name in [POOR, RICH] {
            host.load(name, guests::table(&manifest(name))).await;
        }
        Self { host, tokens: HashMap::new(), n_faults: 0 }
    }

    /// Loads a manifest.
    ///
    /// # Errors
    /// If the host refuses the manifest, with the rule that it breaks.
    pub(super) async fn load(&self, manifest: &ManifestSpec) -> Result<(), String> {
        let answer = self.host.try_load("table", guests::table(manifest)).await;
        if answer.status == 200 {
            return Ok(());
        }
        assert_eq!(answer.body["step"], "manifest", "{}", answer.text);
        Err(answer.body["message"].as_str().expect("a refusal has a message").to_owned())
    }

    /// The user who sends as `ana` in the next case.
    pub(super) fn user(&self) -> String {
        format!("ana{}", self.n_faults / FAULTS_PER_USER)
    }

    async fn connect(&mut self, user: &str) -> TestClient {
        let host = &self.host;
        let token = self.tokens.entry(user.to_owned()).or_insert_with(|| host.token(user));
        TestClient::connect(&host.ws, token).await
    }

    /// The host's verdict on a case.
    pub(super) async fn judge(&mut self, case: &Case, n: usize) -> Verdict {
        let user = self.user();
        let mut clients = [self.connect(&user).await, self.connect(ACTORS[1]).await, self.connect(ACTORS[2]).await];
        let ids = [0, 1, 2].map(|at| clients[at].id().to_owned());
        let event = format!("{}:do", case.plugin);
        let mut events = case.events(n, &ids);
        let (sender, judged) = events.pop().expect("a case has an event");
        for (sender, data) in events {
            clients[sender].emit_with_ack(&event, data).await.expect("only the last event is refused");
        }
        self.received(&mut clients).await;
        let answer = clients[sender].emit_with_ack(&event, judged).await;
        let verdict = match answer {
            Ok(reply) => Verdict::Committed(reply, self.received(&mut clients).await),
            Err(error) if error["code"] == "internal" => {
                self.n_faults += 1;
                // Successful calls in between, so that the faults do not put the plugin in quarantine.
                for _ in 0..3 {
                    let data = json!({ "id": format!("a{n}"), "effects": [] });
                    clients[2].emit_with_ack(&event, data).await.expect("the feature runs on");
                }
                let report = self.host.report(case.plugin).await;
                let fault = report["errors"][0]["message"].as_str().expect("the report has the fault");
                Verdict::Fault(named(fault.strip_prefix("it returned ").expect("a returned outcome"), &ids))
            }
            Err(error) => Verdict::Refused(error["code"].as_str().expect("a refusal has a code").to_owned()),
        };
        for client in clients {
            client.close().await;
        }
        verdict
    }

    async fn received(&self, [ana, ben, zoe]: &mut [TestClient; 3]) -> [Vec<(String, Value)>; 3] {
        let event = |frame: Value| (frame["event"].as_str().unwrap_or_default().to_owned(), frame["data"].clone());
        self.host.received([ana, ben, zoe]).await.map(|frames| frames.into_iter().map(event).collect())
    }
}
