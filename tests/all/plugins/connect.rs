//! Connect notifications, tested on the plugin threads without sockets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roundhouse::hub::{Hub, ShardCommand, ShardQueue, Target};
use roundhouse::ledger::{Budget, Ledger};
use roundhouse::metrics::Metrics;
use roundhouse::model::{Clock, ConnId, ErrorCode, Failure, Identity, Payload};
use roundhouse::plugin::{ClientEvent, Grants, Load, Opening, PluginConfig, PluginOptions, Runtime, Source, Step};
use roundhouse::protocol::Protocol;
use roundhouse_tests::guests::{conformance, hostile};
use roundhouse_tests::{TIMEOUT, eventually, target_dir};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::timeout;

/// The start of the clock, in milliseconds since 1970.
const BEGINNING: u64 = 1_800_000_000_000;

/// Plugin threads, and one shard whose commands the test reads.
struct Plugins {
    runtime: Runtime,
    hub: Arc<Hub>,
    clock: Clock,
    /// Commands that were received but not yet read by the test.
    commands: VecDeque<ShardCommand>,
    n_connections: usize,
}

impl Plugins {
    /// Plugins with the grant for connect notifications.
    async fn with(guests: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self::granted(&["connect"], guests).await
    }

    async fn granted(actions: &[&str], guests: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let plugins = Self::without_guests(actions);
        for guest in guests {
            plugins.runtime.lifecycle().load(Load::new(guest, Source::Api)).await.unwrap();
        }
        plugins
    }

    fn without_guests(actions: &[&str]) -> Self {
        let clock = Clock::manual(BEGINNING);
        let metrics = Metrics::new().unwrap();
        let (user, service) = (Budget::of_user(), Budget::of_service());
        let ledger = Ledger::new(user, service, clock.clone(), metrics.clone());
        let hub = Arc::new(Hub::new(vec![ShardQueue::new(1024)], 100, ledger));
        let cache_dir = Some(target_dir().join("compiled-for-tests"));
        let actions = actions.iter().map(|action| (*action).to_owned()).collect();
        let grants = Some(Grants { actions, ..Grants::default() });
        let options = PluginOptions { grants, ..PluginOptions::default() };
        let plugins = ["hostile", "conformance"].map(|name| (name.to_owned(), options.clone())).into();
        let config = PluginConfig { cache_dir, threads: 2, plugins, ..PluginConfig::default() };
        let runtime = Runtime::start(config, None, None, hub.clone(), clock.clone(), metrics).unwrap();
        Self { runtime, hub, clock, commands: VecDeque::new(), n_connections: 0 }
    }

    /// Opens a connection with this `auth`.
    fn open(&mut self, user: &str, namespace: &str, auth: Option<Value>) -> ConnId {
        self.n_connections += 1;
        let connection = ConnId::new(0, self.n_connections, 1);
        let identity = Arc::new(Identity::of_user(user));
        self.hub.connect(connection, identity.clone(), self.clock.now_ms());
        let auth = auth.map(|auth| RawValue::from_string(auth.to_string()).unwrap());
        let (identity, auth) = (&identity, auth.as_deref());
        self.runtime.notify_connect(Opening { connection, identity, namespace, auth, handshake: "", was_asked: false });
        connection
    }

    /// The feature's answer to an event of a connection.
    async fn ask(&mut self, connection: ConnId, event: &str, data: Value) -> Result<Value, Failure> {
        let identity = self.hub.connection(connection).unwrap().identity;
        let (payload, read_at) = (Payload::of_json(&data), Instant::now());
        let sent = ClientEvent { connection, identity, event, payload, id: Some(7), read_at };
        self.runtime.client_event(sent)?;
        loop {
            if let ShardCommand::Reply { connection: to, id: Some(7), outcome, .. } = self.next().await {
                assert_eq!(to, connection);
                return outcome.map(|payload| serde_json::from_str(payload.first()).unwrap());
            }
        }
    }

    /// The connect notifications that the feature has recorded.
    async fn greeted(&mut self, connection: ConnId) -> Result<Value, Failure> {
        self.ask(connection, "hostile:greeted", json!({})).await
    }

    /// The next command to the shard.
    async fn next(&mut self) -> ShardCommand {
        while self.commands.is_empty() {
            let received = self.hub.shards()[0].receive(&mut self.commands);
            timeout(TIMEOUT, received).await.expect("the plugin threads answer in time");
        }
        self.commands.pop_front().unwrap()
    }

    /// The data of the next event to a connection.
    async fn event_to(&mut self, connection: ConnId) -> Value {
        loop {
            if let ShardCommand::Deliver(delivery) = self.next().await {
                assert_eq!(delivery.to, [Target::Connection(connection)]);
                let frame = delivery.outgoing.frames(&Protocol::Plain);
                let json = frame.iter().position(|byte| *byte == b'{').unwrap();
                return serde_json::from_slice(&frame[json..]).unwrap();
            }
        }
    }

    async fn n_traps(&self) -> u64 {
        self.runtime.lifecycle().report("hostile").await.unwrap().traps
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        self.runtime.shut_down();
    }
}

#[tokio::test]
async fn connect_precedes_the_connections_events() {
    let mut plugins = Plugins::with([hostile("greets")]).await;
    let ana = plugins.open("ana", "/", None);
    assert_eq!(plugins.greeted(ana).await, Ok(json!(["ana in / with {}"])));
    let ben = plugins.open("ben", "/custom", Some(json!({"n": 1})));
    let both = json!(["ana in / with {}", r#"ben in /custom with {"n":1}"#]);
    assert_eq!(plugins.greeted(ben).await, Ok(both));
    assert_eq!(plugins.ask(ana, "connect", json!({})).await.unwrap_err().code, ErrorCode::UnknownEvent);
}

#[tokio::test]
async fn several_plugins_get_connect_and_can_reply() {
    let mut plugins = Plugins::with([hostile("greets"), conformance()]).await;
    let ana = plugins.open("ana", "/custom", Some(json!({"team": "1"})));
    assert_eq!(plugins.event_to(ana).await, json!({"event": "auth", "data": {"team": "1"}}));
    assert_eq!(plugins.greeted(ana).await, Ok(json!([r#"ana in /custom with {"team":"1"}"#])));
}

#[tokio::test]
async fn namespace_exists_while_its_plugin_is_loaded() {
    let plugins = Plugins::with([hostile("greets")]).await;
    let there = || ["/", "/custom", "/other"].map(|namespace| plugins.runtime.has_namespace(namespace));
    assert_eq!(there(), [true, false, false]);
    plugins.runtime.lifecycle().load(Load::new(conformance(), Source::Api)).await.unwrap();
    assert_eq!(there(), [true, true, false]);
    plugins.runtime.lifecycle().unload("conformance").await.unwrap();
    assert_eq!(there(), [true, false, false]);
}

#[tokio::test]
async fn refused_connect_sends_the_client_an_error() {
    let mut plugins = Plugins::with([hostile("greets")]).await;
    let ana = plugins.open("ana", "/", Some(json!({"how": "refuse"})));
    let ShardCommand::Reply { connection, event, id, outcome, .. } = plugins.next().await else {
        panic!("nothing else comes of it");
    };
    assert_eq!((connection, &*event, id), (ana, "connect", None));
    assert_eq!(outcome.unwrap_err().code, ErrorCode::Forbidden);
    assert_eq!(plugins.greeted(ana).await, Ok(json!([])));
}

#[tokio::test]
async fn unreadable_connect_sends_clients_nothing() {
    let mut plugins = Plugins::with([hostile("greets")]).await;
    for n in 0..3 {
        plugins.open(&format!("user-{n}"), "/", Some(json!({"how": "misfit"})));
    }
    // The next command is the acknowledgement of this event, so no error came before it.
    let ana = plugins.open("ana", "/", Some(json!({"how": "refuse"})));
    let ShardCommand::Reply { connection, outcome, .. } = plugins.next().await else { panic!("it is a reply") };
    assert_eq!((connection, outcome.unwrap_err().code), (ana, ErrorCode::Forbidden));
}

#[tokio::test]
async fn faulted_connect_is_retried_before_further_events() {
    let mut plugins = Plugins::with([hostile("greets")]).await;
    let ana = plugins.open("ana", "/", None);
    let ben = plugins.open("ben", "/", Some(json!({"how": "panic", "until": BEGINNING + 1})));
    let refused = plugins.greeted(ben).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::FeatureUnavailable);
    assert!(refused.message.contains("does not know of this connection yet"), "{}", refused.message);
    assert_eq!(plugins.greeted(ana).await, Ok(json!(["ana in / with {}"])), "others are heard");
    assert_eq!(plugins.n_traps().await, 1);
    plugins.clock.advance(Duration::from_secs(1));
    let notifications = plugins.greeted(ben).await.unwrap();
    assert!(notifications[1].as_str().unwrap().starts_with("ben in /"), "{notifications}");
    assert_eq!(plugins.n_traps().await, 1);
}

#[tokio::test]
async fn connect_is_given_up_after_repeated_faults() {
    let mut plugins = Plugins::with([hostile("greets")]).await;
    let ana = plugins.open("ana", "/", Some(json!({"how": "panic"})));
    for traps in 1..=2 {
        assert_eq!(plugins.greeted(ana).await.unwrap_err().code, ErrorCode::FeatureUnavailable);
        assert_eq!(plugins.n_traps().await, traps);
        plugins.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(plugins.greeted(ana).await, Ok(json!([])));
    assert_eq!(plugins.n_traps().await, 3);
}

#[tokio::test]
async fn paused_plugin_gets_missed_connects_in_order() {
    let mut plugins = Plugins::with([hostile("greets")]).await;
    let _ana = plugins.open("ana", "/", None);
    for user in ["u1", "u2", "u3", "u4", "u5"] {
        let connection = plugins.open(user, "/", None);
        for _ in 0..2 {
            let failed = plugins.ask(connection, "hostile:do", json!({"id": "a", "how": "panic"})).await;
            assert_eq!(failed.unwrap_err().code, ErrorCode::Internal);
        }
    }
    let ben = plugins.open("ben", "/", None);
    let eve = plugins.open("eve", "/", None);
    assert_eq!(plugins.greeted(ben).await.unwrap_err().code, ErrorCode::FeatureUnavailable, "it is paused");
    plugins.clock.advance(Duration::from_secs(1));
    let all = ["ana", "u1", "u2", "u3", "u4", "u5", "ben", "eve"].map(|user| format!("{user} in / with {{}}"));
    assert_eq!(plugins.greeted(eve).await, Ok(json!(all)));
}

#[tokio::test]
async fn connect_notifications_need_a_grant() {
    let plugins = Plugins::without_guests(&["join"]);
    for guest in [hostile("greets"), conformance()] {
        let refused = plugins.runtime.lifecycle().load(Load::new(guest, Source::Api)).await.unwrap_err();
        assert_eq!(refused.step, Step::Grants);
        assert!(refused.message.contains("the action connect"), "{}", refused.message);
    }
}

#[tokio::test]
async fn connect_hides_credentials() {
    let mut plugins = Plugins::with([hostile("greets"), conformance()]).await;
    let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbmEifQ.c2lnbmVk";
    let auth = json!({"token": token, "Token": "t", "pid": "p", "offset": "o", "deep": [{"jwt": token}], "n": 1});
    let ana = plugins.open("ana", "/", Some(auth));
    let seen = json!({"deep": [{"jwt": ""}], "n": 1});
    assert_eq!(plugins.event_to(ana).await, json!({"event": "auth", "data": seen}));
    assert_eq!(plugins.greeted(ana).await, Ok(json!([format!("ana in / with {seen}")])));
}

#[tokio::test]
async fn auth_over_the_limits_is_withheld() {
    let mut plugins = Plugins::with([hostile("greets")]).await;
    let ana = plugins.open("ana", "/", Some(json!({"many": vec![0; 2000]})));
    let mut errors = Vec::new();
    while errors.is_empty() {
        if let ShardCommand::Reply { id: None, event, outcome, .. } = plugins.next().await {
            errors.push((event, outcome.unwrap_err()));
        }
    }
    assert_eq!((&*errors[0].0, errors[0].1.code), ("connect", ErrorCode::TooLarge));
    let message = &errors[0].1.message;
    assert!(message.contains("connect: the payload has 2004 values, and may have 1024"), "{message}");
    // The feature is notified nevertheless, because otherwise a client could hide from it.
    assert_eq!(plugins.greeted(ana).await, Ok(json!(["ana in / with {}"])));
    assert_eq!(plugins.n_traps().await, 0);
}

#[tokio::test]
async fn joining_unrelated_connections_needs_a_grant() {
    for how in ["join", "watch"] {
        let mut plugins = Plugins::with([hostile("greets")]).await;
        let ana = plugins.open("ana", "/", Some(json!({"how": how})));
        let ben = plugins.open("ben", "/", None);
        let _ = plugins.greeted(ben).await;
        plugins.clock.advance(Duration::from_millis(500));
        eventually("it fails", async || (plugins.n_traps().await > 0).then_some(())).await;
        let error = plugins.runtime.lifecycle().report("hostile").await.unwrap().errors.remove(0);
        assert!(error.message.contains("the action join"), "{how}: {}", error.message);
        let rooms = plugins.hub.connection(ana).unwrap().rooms;
        assert!(rooms.iter().all(|room| &**room == "user:ana"), "{how}: {rooms:?}");
    }
}

#[tokio::test]
async fn granted_plugins_and_own_senders_can_join() {
    let in_room = async |plugins: &Plugins, connection: ConnId, room: &str| {
        eventually(room, async || {
            plugins.clock.advance(Duration::from_millis(10));
            let rooms = plugins.hub.connection(connection)?.rooms;
            rooms.iter().any(|own| &**own == room).then_some(())
        })
        .await;
    };
    let mut plugins = Plugins::granted(&["connect", "join"], [hostile("greets-joins")]).await;
    let ana = plugins.open("ana", "/", Some(json!({"how": "join"})));
    in_room(&plugins, ana, "greeted").await;
    let ben = plugins.open("ben", "/", Some(json!({"how": "watch"})));
    in_room(&plugins, ben, "hostile:den").await;
    assert_eq!(plugins.n_traps().await, 0);

    // A connection that has sent the scope an event may be joined later, without a grant.
    let mut plugins = Plugins::with([hostile("greets")]).await;
    let eve = plugins.open("eve", "/", None);
    plugins.ask(eve, "hostile:do", json!({"id": "a", "how": "watch-and-grab"})).await.unwrap();
    in_room(&plugins, eve, "hostile:den").await;
    assert_eq!(plugins.n_traps().await, 0);
}
