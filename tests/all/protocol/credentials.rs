//! Tokens of a client: which of several is used, from which origins, and which claims are valid.

use std::time::Duration;

use roundhouse_tests::{EngineSocket, InnerHost, Polling, SocketIoClient, TestClient, TestHost, with_headers};
use serde_json::{Value, json};

const CONFIG: &str = "auth.jwt.secret = \"s\"\nauth.jwt.cookie = \"session\"\nauth.grace = \"200ms\"\n";

const MINUTE: Duration = Duration::from_secs(60);

/// The headers and the query of a handshake.
struct Shown {
    query: String,
    headers: Vec<(&'static str, String)>,
}

impl Shown {
    fn new(query: &str, headers: &[(&'static str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { query: query.to_owned(), headers }
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, &**value)).collect()
    }

    async fn plain(&self, host: &InnerHost) -> TestClient {
        TestClient::open(with_headers(&format!("{}/ws?{}", host.ws, self.query), &self.headers())).await
    }

    async fn socket_io(&self, host: &InnerHost) -> [SocketIoClient; 2] {
        let query = format!("&{}", self.query);
        [
            SocketIoClient::on_polling(Polling::open_with(&host.ws, &query, &self.headers()).await),
            SocketIoClient::on_socket(EngineSocket::open_with(&host.ws, &query, &self.headers()).await),
        ]
    }
}

/// The user of the connection with this id.
async fn user(host: &InnerHost, id: &str) -> String {
    let answer = host.call("GET", &format!("/v1/connections/{id}"), "").await;
    answer.body["userId"].as_str().unwrap_or_else(|| panic!("no user: {}", answer.text)).to_owned()
}

#[tokio::test]
async fn empty_or_stale_token_does_not_hide_another() {
    let host = InnerHost::start(CONFIG).await;
    let stale = host.token("old", Some(MINUTE));
    host.advance(MINUTE);
    let good = host.token("ana", None);
    let bearer = |token: &str| format!("Bearer {token}");
    let cookie = |token: &str| format!("session={token}");
    let cookies = format!("session={stale}; other=x; session={good}");
    for (query, headers, auth) in [
        ("token=".to_owned(), vec![("cookie", cookie(&good))], json!({ "token": "" })),
        (format!("token={stale}"), vec![("cookie", cookie(&good))], json!({ "token": stale })),
        ("token=undefined".to_owned(), vec![("cookie", cookie(&good))], json!({ "token": "undefined" })),
        (format!("token={good}"), vec![("authorization", bearer(&stale))], json!({ "token": "Bearer " })),
        (format!("token={good}"), vec![("authorization", "Bearer ".to_owned())], json!({ "token": null })),
        (String::new(), vec![("cookie", cookies)], json!({})),
        (String::new(), vec![("cookie", "session=".to_owned()), ("cookie", cookie(&good))], Value::Null),
        ("token=".to_owned(), vec![], json!({ "token": good })),
    ] {
        let shown = Shown { query, headers };
        if auth["token"] != good.as_str() {
            let mut client = shown.plain(&host).await;
            assert_eq!(client.next().await["data"]["userId"], "ana", "{} {:?}", shown.query, shown.headers);
        }
        for mut client in shown.socket_io(&host).await {
            let connected = client.connect("/", &auth).await.unwrap();
            assert_eq!(user(&host, connected["sid"].as_str().unwrap()).await, "ana", "{auth}");
            client.cut().await;
        }
    }
    host.shut_down().await;
}

#[tokio::test]
async fn refusal_names_the_place_not_the_token() {
    let host = InnerHost::start(CONFIG).await;
    let stale = host.token("old", Some(MINUTE));
    host.advance(MINUTE);
    for (shown, code, reasons) in [
        (Shown::new("token=nonsense", &[]), 4001, &["in the query", "not a JSON Web Token"][..]),
        (Shown::new("", &[("authorization", "Bearer nonsense")]), 4001, &["in the Authorization header"]),
        (Shown::new("", &[("cookie", &format!("session={stale}"))]), 4002, &["in the cookie", "expired"]),
        (
            Shown::new("token=nonsense", &[("cookie", &format!("session={stale}"))]),
            4002,
            &["in the query: it is not a JSON Web Token", "in the cookie: it has expired"],
        ),
    ] {
        let closed = shown.plain(&host).await.closed().await;
        assert_eq!(closed.code, Some(code), "{closed:?}");
        for mut client in shown.socket_io(&host).await {
            let refused = client.connect("/", &json!({ "token": "neither" })).await.unwrap_err();
            let message = refused["message"].as_str().unwrap();
            assert!(message.contains("in auth.token"), "{message}");
            let place = reasons[0].split(':').next().unwrap();
            assert!(message.contains(place) && !message.contains("neither") && !message.contains(&stale), "{message}");
            client.cut().await;
        }
        assert!(reasons.iter().all(|reason| closed.reason.contains(reason)), "{closed:?}");
    }
    host.shut_down().await;
}

#[tokio::test]
async fn star_origin_does_not_accept_cookies() {
    let host = InnerHost::start(&format!("{CONFIG}cors.origins = [\"*\", \"null\", \"https://*.app.example\"]")).await;
    let token = host.token("ana", None);
    let cookie = format!("session={token}");
    for (origin, is_let_in) in [
        ("https://evil.example", false),
        ("null", false),
        ("https://a.app.example", true),
        (&*host.ws.replace("ws://", "http://"), true),
    ] {
        let shown = Shown::new("", &[("cookie", &cookie), ("origin", origin)]);
        for mut client in shown.socket_io(&host).await {
            let connected = client.connect("/", &Value::Null).await;
            assert_eq!(connected.is_ok(), is_let_in, "{origin}: {connected:?}");
            if let Err(refused) = connected {
                assert!(refused["message"].as_str().unwrap().contains("by its name"), "{refused}");
                // A client that sends a token itself, and not by cookie, may have any origin.
                client.connect("/", &json!({ "token": token })).await.unwrap();
            }
            client.cut().await;
        }
        let with_query = Shown::new(&format!("token={token}"), &[("cookie", &cookie), ("origin", origin)]);
        assert_eq!(with_query.plain(&host).await.next().await["data"]["userId"], "ana", "{origin}");
    }
    host.shut_down().await;
}

#[tokio::test]
async fn star_origin_with_a_cookie_logs_a_warning() {
    let host = TestHost::start_with(&format!("{CONFIG}cors.origins = [\"*\"]"), &[]);
    assert!(host.log().contains("count for tokens alone"), "{}", host.log());
}

#[tokio::test]
async fn common_claim_shapes_are_accepted() {
    let host = InnerHost::start(CONFIG).await;
    let shown = |claims: Value| Shown::new(&format!("token={}", host.token_of(&claims)), &[]);
    for (claims, user) in [
        (json!({ "sub": 42, "roles": "admin", "name": null }), "42"),
        (json!({ "sub": "ana", "roles": null, "exp": null }), "ana"),
    ] {
        assert_eq!(shown(claims).plain(&host).await.next().await["data"]["userId"], user);
    }
    let in_milliseconds = host.clock.now_ms() + 60_000;
    for (claims, reason) in [
        (json!({ "roles": [] }), "subject (sub)"),
        (json!({ "sub": "ana", "roles": 1 }), "roles"),
        (
            json!({ "sub": "ana", "exp": in_milliseconds }),
            "(exp) lies after the year 3000: it counts seconds, not mill",
        ),
    ] {
        let closed = shown(claims.clone()).plain(&host).await.closed().await;
        assert_eq!(closed.code, Some(4001), "{claims}");
        assert!(closed.reason.contains(reason), "{claims}: {closed:?}");
    }
    host.shut_down().await;
}

#[tokio::test]
async fn token_expires_after_its_leeway() {
    let host = InnerHost::start(&format!("{CONFIG}auth.jwt.leeway = \"30s\"")).await;
    let token = host.token("ana", Some(MINUTE));
    let shown = Shown::new(&format!("token={token}"), &[]);
    host.advance(MINUTE + MINUTE / 4);
    let mut client = shown.plain(&host).await;
    assert_eq!(client.next().await["data"]["userId"], "ana");
    host.advance(MINUTE / 4);
    assert_eq!(client.closed().await.code, Some(4002));
    assert_eq!(shown.plain(&host).await.closed().await.code, Some(4002));
    host.shut_down().await;
}
