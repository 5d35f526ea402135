//! TLS on the two listeners: every kind of client, the handshake's failures, changed certificates, client certificates.

use std::io::Write as _;
use std::time::Duration;

use roundhouse_tests::{
    InnerHost, Packet, Script, SocketIoClient, TestAuthority, TestClient, TestHost, Tunnel, connect_tls,
    connect_tls_on, eventually, http, metric, skip,
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::recovery::CONFIG;

/// A configuration with TLS for clients, and without for the API.
fn config(authority: &TestAuthority, more: &str) -> String {
    format!("{CONFIG}{}tls.api.enabled = false\n{more}", authority.issue("host").section("tls"))
}

async fn handshakes(api: &str, outcome: &str) -> u64 {
    metric(api, &format!("tls_handshakes_total{{listener=\"clients\",outcome=\"{outcome}\"}}")).await
}

#[tokio::test]
async fn clients_of_every_kind_speak_tls() {
    let authority = TestAuthority::new();
    let host = InnerHost::start(&config(&authority, "")).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let tunnel = Tunnel::to(&host.ws, authority.client_of(None, &[version])).await;
        // Longer than a record, and than what a shard reads or encrypts at once.
        let long = "x".repeat(700_000);
        let mut plain = TestClient::connect(&tunnel.ws, &host.token("ana", None)).await;
        plain.emit_refused("no:such", json!(long)).await;
        assert_eq!(host.emit(json!({ "user": "ana" }), "number", json!(long)).await, 1);
        assert_eq!(plain.expect_event("number").await, json!(long));
        plain.close().await;

        let polling = SocketIoClient::polling(&tunnel.ws).await;
        let upgraded = SocketIoClient::polling(&tunnel.ws).await.upgrade().await;
        for mut client in [polling, upgraded, SocketIoClient::socket(&tunnel.ws).await] {
            client.connect_as(&host.token("eve", None)).await;
            client.emit_refused("no:such", json!([long])).await;
            assert_eq!(host.emit(json!({ "user": "eve" }), "number", json!(long)).await, 1);
            assert_eq!(*client.expect_event("number").await.argument(), json!(long));
            client.send_packet(Packet::from("41")).await;
            eventually("the client has left", async || {
                let left = host.call("GET", "/v1/users/eve", "").await;
                (left.body["connections"].as_array().is_none_or(Vec::is_empty)).then_some(())
            })
            .await;
        }
    }
    assert!(handshakes(&host.api, "ok").await >= 8);
}

#[tokio::test]
async fn connection_resumes_on_another_shard_over_tls() {
    let authority = TestAuthority::new();
    let host = InnerHost::start(&config(&authority, "shards = 3")).await;
    let tunnel = Tunnel::to(&host.ws, authority.client(None)).await;
    let token = host.token("ana", None);
    let mut client = SocketIoClient::socket(&tunnel.ws).await;
    let id = client.connect_as(&token).await;
    for n in 0..6 {
        host.emit(json!({ "user": "ana" }), "number", json!(n)).await;
        client.expect_event("number").await;
        let mut next = SocketIoClient::socket(&tunnel.ws).await;
        assert_eq!(next.recover(&client, &token).await, id, "resumption {n}");
        client = next;
    }
    host.emit(json!({ "user": "ana" }), "number", json!("last")).await;
    assert_eq!(*client.expect_event("number").await.argument(), json!("last"));
}

#[tokio::test]
async fn many_frames_arrive_in_order_over_tls() {
    let authority = TestAuthority::new();
    let host = InnerHost::start(&config(&authority, "limits.outbox_bytes = 100000000")).await;
    let tunnel = Tunnel::to(&host.ws, authority.client(None)).await;
    let mut client = TestClient::connect(&tunnel.ws, &host.token("ana", None)).await;
    let filler = "y".repeat(40_000);
    // More than the sockets' buffers hold, so that frames wait.
    for n in 0..500 {
        host.emit(json!({ "user": "ana" }), "number", json!([n, filler])).await;
    }
    for n in 0..500 {
        assert_eq!(client.expect_event("number").await[0], json!(n));
    }
}

#[tokio::test]
async fn slow_reader_is_disconnected_over_tls() {
    let authority = TestAuthority::new();
    let host = InnerHost::start(&config(&authority, "")).await;
    let request = format!(
        "GET /ws?token={} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        host.token("ana", None)
    );
    let mut socket = connect_tls(&host.ws, authority.client(None)).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    socket.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 101");
    let filler = "z".repeat(500_000);
    eventually("the slow reader is disconnected", async || {
        let emit = json!({ "to": { "user": "ana" }, "event": "number", "data": filler });
        host.call("POST", "/v1/emit", emit.to_string()).await;
        (metric(&host.api, "slow_connections_total").await == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn failed_handshakes_are_counted_by_outcome() {
    let authority = TestAuthority::new();
    let host = InnerHost::start(&config(&authority, "limits.handshake = \"300ms\"")).await;
    let address = host.ws.trim_start_matches("ws://");
    // HTTP without TLS.
    let plain = http(&host.ws, "GET", "/healthz", &[], "").await.unwrap();
    assert_eq!((plain.status, plain.text.contains("https://")), (400, true), "{}", plain.text);
    // A stranger's certificate, which the client refuses.
    connect_tls(&host.ws, TestAuthority::new().client(None)).await.unwrap_err();
    // A handshake that stops after a part of its first record, and a client that sends nothing.
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(&[22, 3, 1, 1]).await.unwrap();
    let mut silent = TcpStream::connect(address).await.unwrap();
    for socket in [&mut half, &mut silent] {
        assert_eq!(socket.read(&mut [0; 8]).await.unwrap_or(0), 0, "the host ends a slow handshake");
    }
    // Nonsense in a handshake record.
    let mut nonsense = TcpStream::connect(address).await.unwrap();
    nonsense.write_all(&[22, 3, 1, 0, 4, 9, 0, 0, 0]).await.unwrap();
    let mut alert = Vec::new();
    let _ = nonsense.read_to_end(&mut alert).await;
    assert_eq!(alert.first(), Some(&21), "an alert is sent: {alert:?}");
    for (outcome, least) in [("not_tls", 1), ("refused", 2), ("timed_out", 2), ("ok", 0)] {
        eventually(outcome, async || (handshakes(&host.api, outcome).await >= least).then_some(())).await;
    }
}

#[test]
fn third_party_client_speaks_tls() {
    let script = || Script::on_node("socketio.mjs");
    if let Err(why) = script() {
        return skip("third_party_client_speaks_tls", why);
    }
    let authority = TestAuthority::new();
    let more = "auth.jwt.secret = \"s\"\nlimits.events_per_second = 0\ntls.api.enabled = false\n";
    let host = TestHost::start_with(&format!("{more}{}", authority.issue("host").section("tls")), &[]);
    let (ana, ben) = (host.token("ana"), host.token("ben"));
    // The script sees the newest client's requests on the wire, which it cannot do within TLS.
    for transport in ["websocket", "polling"] {
        let script = script().unwrap().trusting(&authority.file());
        script.expect_success(&host, &["4.1", transport, &ana, &ben]);
    }
}

#[tokio::test]
async fn slowest_handshakes_give_way() {
    let authority = TestAuthority::new();
    // Memory for four handshakes.
    let more = "limits.message_bytes = 16384\nlimits.unfinished_bytes = 65536";
    let host = InnerHost::start(&config(&authority, more)).await;
    let mut slow = Vec::new();
    for _ in 0..12 {
        let mut socket = TcpStream::connect(host.ws.trim_start_matches("ws://")).await.unwrap();
        socket.write_all(&[22, 3, 1, 1]).await.unwrap();
        slow.push(socket);
    }
    eventually("slow handshakes give way", async || (handshakes(&host.api, "evicted").await >= 8).then_some(())).await;
    // The slow handshakes lag behind now, and a new one does not.
    host.advance(Duration::from_secs(2));
    let tunnel = Tunnel::to(&host.ws, authority.client(None)).await;
    TestClient::connect(&tunnel.ws, &host.token("ana", None)).await.close().await;
    assert!(metric(&host.api, "unfinished_bytes").await <= 65536);
}

#[tokio::test]
async fn own_page_uses_its_cookie_over_tls() {
    let authority = TestAuthority::new();
    let host = InnerHost::start(&config(&authority, "auth.jwt.cookie = \"session\"")).await;
    let tunnel = Tunnel::to(&host.ws, authority.client(None)).await;
    let cookie = format!("session={}", host.token("ana", None));
    let host_header = tunnel.ws.trim_start_matches("ws://");
    for (scheme, is_taken) in [("https", true), ("http", false)] {
        let mut request = format!("{}/ws", tunnel.ws).into_client_request().unwrap();
        request.headers_mut().insert("cookie", cookie.parse().unwrap());
        request.headers_mut().insert("origin", format!("{scheme}://{host_header}").parse().unwrap());
        let opened = tokio_tungstenite::connect_async(request).await;
        assert_eq!(opened.is_ok(), is_taken, "{scheme}");
    }
}

#[tokio::test]
async fn proxy_header_comes_before_tls() {
    let authority = TestAuthority::new();
    let more = "trusted_proxies = [\"127.0.0.0/8\"]\nlimits.connections_per_ip = 1";
    let host = InnerHost::start(&config(&authority, more)).await;
    let address = host.ws.trim_start_matches("ws://");
    let mut open = Vec::new();
    for (client, status) in [("192.0.2.7", "200"), ("192.0.2.8", "200"), ("192.0.2.7", "503")] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(format!("PROXY TCP4 {client} 10.0.0.1 4711 443\r\n").as_bytes()).await.unwrap();
        let mut socket = connect_tls_on(socket, authority.client(None)).await.unwrap();
        let poll = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nhost: localhost\r\n\r\n";
        socket.write_all(poll.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer[9..], status.as_bytes(), "{client}");
        open.push(socket);
    }
}

#[tokio::test]
async fn changed_certificate_is_taken_without_a_restart() {
    let authority = TestAuthority::new();
    let first = authority.issue_until("host", 2095);
    let toml = format!("{CONFIG}{}tls.api.enabled = false\n", first.section("tls"));
    let host = TestHost::start_with(&toml, &[]);
    assert!(host.ws.starts_with("wss://") && host.api.starts_with("http://"), "{} {}", host.ws, host.api);
    let shown = async || {
        let socket = connect_tls(&host.ws, authority.client(None)).await.unwrap();
        socket.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let expiry = async || metric(&host.api, "tls_certificate_expiry_seconds{listener=\"clients\"}").await;
    assert_eq!(shown().await, *first.der());
    let tunnel = Tunnel::to(&host.ws, authority.client(None)).await;
    let mut client = TestClient::connect(&tunnel.ws, &host.token("ana")).await;
    let before = expiry().await;

    // Broken files: the certificate stays, and the log says why.
    std::fs::write(&first.key, "nonsense").unwrap();
    let reloads = "tls_certificate_reloads_total{listener=\"clients\",outcome=\"refused\"}";
    eventually("the broken key is refused", async || {
        let metrics = http(&host.api, "GET", "/metrics", &[], "").await.unwrap().text;
        metrics.contains(&format!("roundhouse_{reloads} 1")).then_some(())
    })
    .await;
    assert_eq!(shown().await, *first.der());
    assert!(host.log().contains("holds no private key"), "{}", host.log());

    let second = authority.issue_until("host", 2096);
    eventually("the new certificate", async || (shown().await == *second.der()).then_some(())).await;
    assert!(expiry().await > before);
    client.emit_refused("no:such", json!(1)).await;
}

#[tokio::test]
async fn api_over_tls_asks_for_client_certificates() {
    let (authority, stranger) = (TestAuthority::new(), TestAuthority::new());
    let ca = authority.file();
    let more = format!("tls.api.client_ca_file = {ca:?}\n");
    let host = TestHost::start_with(&format!("{}{more}", authority.issue("host").section("tls")), &[]);
    assert!(host.ws.starts_with("wss://") && host.api.starts_with("https://"), "{} {}", host.ws, host.api);
    let api = host.api.replace("127.0.0.1", "localhost");
    let list = |more: &[&str]| host.plugin_at(&api, &[&["list"], more].concat());
    let (own, foreign) = (authority.issue("client"), stranger.issue("client"));
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (ca, certificate, key) = (text(&ca), text(&own.certificate), text(&own.key));
    let (ok, listed) = list(&["--ca", &ca, "--client-cert", &certificate, "--client-key", &key]);
    assert!(ok && listed.contains("ticket-collision"), "{listed}");
    assert!(!list(&["--ca", &ca]).0, "without a certificate");
    let (certificate, key) = (text(&foreign.certificate), text(&foreign.key));
    assert!(!list(&["--ca", &ca, "--client-cert", &certificate, "--client-key", &key]).0, "of another authority");
    assert!(!list(&["--client-cert", &text(&own.certificate), "--client-key", &text(&own.key)]).0, "without --ca");
    // Clients need none.
    let tunnel = Tunnel::to(&host.ws, authority.client(None)).await;
    assert_eq!(http(&tunnel.ws, "GET", "/healthz", &[], "").await.unwrap().status, 200);
}

#[test]
fn unusable_files_are_refused_by_name() {
    let (authority, dir) = (TestAuthority::new(), tempfile::tempdir().unwrap());
    let (host, other) = (authority.issue("host"), authority.issue("other"));
    let file = |name: &str, content: &str| {
        std::fs::write(dir.path().join(name), content).unwrap();
        dir.path().join(name)
    };
    let locked = file("locked", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let (empty, missing) = (file("empty", ""), dir.path().join("missing"));
    for (certificate, key, wanted) in [
        (&missing, &host.key, "tls.certificate_file: "),
        (&host.certificate, &missing, "tls.key_file: "),
        (&empty, &host.key, "holds no certificate"),
        (&host.key, &host.key, "holds no certificate"),
        (&host.certificate, &empty, "holds no private key"),
        (&host.certificate, &locked, "is locked by a passphrase"),
        (&host.certificate, &other.key, "is not the key of the certificate"),
    ] {
        let toml = format!("tls.certificate_file = {certificate:?}\ntls.key_file = {key:?}\n");
        std::fs::write(dir.path().join("roundhouse.toml"), toml).unwrap();
        let output = TestHost::command(dir.path()).args(["check", "--config", "roundhouse.toml"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{wanted}: {stderr}");
        assert!(stderr.contains(wanted), "{wanted}: {stderr}");
    }
    let expired = authority.issue_until("old", 2001);
    std::fs::write(dir.path().join("roundhouse.toml"), expired.section("tls")).unwrap();
    let output = TestHost::command(dir.path()).args(["check", "--config", "roundhouse.toml"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("has expired (2001-01-01"), "{stderr}");
}

#[tokio::test]
async fn idle_tls_connections_cost_little_memory() {
    let authority = TestAuthority::new();
    let resident = |host: &TestHost| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().to_owned();
        line.trim_end_matches(" kB").trim().parse::<i64>().unwrap()
    };
    const CONNECTIONS: i64 = 1000;
    let mut figures = Vec::new();
    for tls in ["", &*format!("{}tls.api.enabled = false\n", authority.issue("host").section("tls"))] {
        let host = TestHost::start_with(&format!("{CONFIG}{tls}"), &[]);
        let token = host.token("ana");
        let mut clients = Vec::new();
        let mut before = 0;
        let client_config = authority.client(None);
        for n in 0..CONNECTIONS + 50 {
            if n == 50 {
                // The first connections also grow what all share.
                before = resident(&host);
            }
            let request = format!("{}/ws?token={token}", host.ws.replace("wss://", "ws://"));
            if tls.is_empty() {
                clients.push((Some(TestClient::connect_to(&request).await), None));
            } else {
                let socket = connect_tls(&host.ws, client_config.clone()).await.unwrap();
                let socket = tokio_tungstenite::client_async(&request, socket).await.unwrap().0;
                clients.push((None, Some(socket)));
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        figures.push((resident(&host) - before) * 1024 / CONNECTIONS);
        drop(clients);
    }
    let [plain, tls] = figures[..] else { unreachable!("two hosts") };
    // Directly, because the test runner captures the output of a passing test.
    let _ = writeln!(std::io::stderr(), "bytes of each idle connection: {plain} plain, {tls} with TLS");
    assert!(tls - plain < 16 * 1024, "{plain} plain, {tls} with TLS");
}
