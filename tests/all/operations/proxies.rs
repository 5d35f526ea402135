//! The host behind real proxies, by the configurations in `examples/`.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper_util::rt::TokioIo;
use roundhouse_tests::{ENGINE, Polling, TIMEOUT, TestClient, TestHost, eventually, http, skip};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// One connection for each address, idle connections that end soon, and a trusted proxy on this machine.
const CONFIG: &str = "auth.jwt.secret = \"a secret of more than thirty-two bytes\"\ntrusted_proxies = [\"127.0.0.1\"]\n\
                      limits = { connections_per_ip = 2, keep_alive = \"2s\" }\n\
                      rooms = [{ pattern = \"*\", allow = \"true\" }]\n";

/// A proxy, which is killed when this value is dropped.
struct Proxy {
    child: Child,
    dir: TempDir,
    addresses: Vec<SocketAddr>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The proxy may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    /// Starts a proxy with a configuration from `examples/`, in which free addresses of this machine replace those for
    /// production. `None` if the proxy is not installed.
    fn start(
        program: &str,
        file: &str,
        n_ports: usize,
        replace: impl Fn(&Path, &[SocketAddr]) -> Vec<(String, String)>,
    ) -> Option<Self> {
        if Command::new(program).arg("-v").output().is_err() {
            skip(file, &format!("{program} is not installed"));
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let held: Vec<_> = (0..n_ports).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> = held.iter().map(|listener| listener.local_addr().unwrap()).collect();
        drop(held);
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(file);
        let mut config = fs::read_to_string(example).unwrap();
        for (from, to) in replace(dir.path(), &addresses) {
            assert!(config.contains(&from), "{file} has {from:?}");
            config = config.replace(&from, &to);
        }
        let path = dir.path().join(file);
        fs::write(&path, config).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(program);
        match program {
            "nginx" => command.args(["-e", "stderr", "-g", "daemon off;", "-p"]).arg(dir.path()).arg("-c").arg(&path),
            _ => command.arg("-db").arg("-f").arg(&path),
        };
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Some(Self { child, dir, addresses })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    fn url(&self, at: usize) -> String {
        format!("ws://{}", self.addresses[at])
    }

    /// Waits until the proxy reaches the host.
    async fn wait_until_up(&mut self, at: usize) {
        eventually("the proxy is up", async || {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended: {}", self.log());
            let answer = http(&self.url(at), "GET", "/healthz", &[], "").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }
}

fn nginx(host: &TestHost) -> Option<Proxy> {
    let upstream = host.ws.trim_start_matches("ws://").to_owned();
    Proxy::start("nginx", "nginx.conf", 1, |dir, addresses| {
        let temp = |name: &str| format!("{name}_temp_path {}/{name};", dir.display());
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(temp).join(" ");
        vec![
            ("listen 80".to_owned(), format!("listen {}", addresses[0])),
            ("127.0.0.1:8080".to_owned(), upstream.clone()),
            ("/run/nginx.pid".to_owned(), format!("{}/nginx.pid", dir.display())),
            ("http {".to_owned(), format!("http {{ {temp}")),
            // Shorter than the host's `keep_alive`, as the defaults of 60 s and 75 s are.
            ("keepalive_timeout 60s".to_owned(), "keepalive_timeout 1s".to_owned()),
        ]
    })
}

fn haproxy(host: &TestHost) -> Option<Proxy> {
    let upstream = host.ws.trim_start_matches("ws://").to_owned();
    let api_port = host.api.rsplit(':').next().unwrap().to_owned();
    Proxy::start("haproxy", "haproxy.cfg", 2, |_, addresses| {
        vec![
            ("bind :80\n".to_owned(), format!("bind {}\n", addresses[0])),
            ("bind :8443\n".to_owned(), format!("bind {}\n", addresses[1])),
            ("127.0.0.1:8080".to_owned(), upstream.clone()),
            ("port 8081".to_owned(), format!("port {api_port}")),
            ("timeout http-keep-alive 60s".to_owned(), "timeout http-keep-alive 1s".to_owned()),
        ]
    })
}

/// Opens a polling session from a loopback address of this machine. Returns the status.
async fn open_from(source: &str, url: &str) -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    let stream = socket.connect(url.trim_start_matches("ws://").parse().unwrap()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!("{ENGINE}&transport=polling")).header("host", "x");
    // Headers of the client itself may claim any address.
    let request = request.header("x-forwarded-for", "6.6.6.6").header("forwarded", "for=6.6.6.6");
    let answer = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    answer.status().as_u16()
}

/// Checks clients of all kinds through a proxy that forwards HTTP.
async fn check_clients(host: &TestHost, url: &str) {
    let mut ana = TestClient::connect(url, &host.token("ana")).await;
    assert!(ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.is_ok());
    let mut polling = Polling::open_with(url, "", &[]).await;
    assert_eq!(polling.post(&format!("40{}", json!({ "token": host.token("ben") }))).await.status, 200);
    let connected = timeout(TIMEOUT, polling.next()).await.unwrap();
    assert!(format!("{connected:?}").contains("40"), "{connected:?}");
    // Connections are counted by the client's address, whatever the client's headers claim.
    for (source, status) in [("127.0.0.2", 200), ("127.0.0.2", 200), ("127.0.0.2", 503), ("127.0.0.3", 200)] {
        assert_eq!(open_from(source, url).await, status, "{source}");
    }
    // Posts with packets around the moments at which idle connections end: none may be lost. The lengths of the pauses
    // matter.
    // tested.
    for pause in [900, 1000, 1100, 1500, 1900, 2000, 2100] {
        for _ in 0..3 {
            let post = polling.post("42[\"ticket:leave\",{\"ticketId\":\"t1\"}]").await;
            assert_eq!(post.status, 200, "after {pause} ms: {}", post.text);
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    assert!(ana.emit_with_ack("ticket:leave", json!({ "ticketId": "t1" })).await.is_ok());
}

#[tokio::test]
async fn nginx_example_passes_clients_and_addresses() {
    let host = TestHost::start_with(CONFIG, &[]);
    let Some(mut proxy) = nginx(&host) else { return };
    proxy.wait_until_up(0).await;
    check_clients(&host, &proxy.url(0)).await;
    assert!(!host.log().contains("WARN"), "{}", host.log());
}

#[tokio::test]
async fn haproxy_example_passes_clients_and_addresses() {
    let host = TestHost::start_with(CONFIG, &[]);
    let Some(mut proxy) = haproxy(&host) else { return };
    proxy.wait_until_up(0).await;
    check_clients(&host, &proxy.url(0)).await;
    // With the PROXY protocol, clients' headers are ignored too, because the clients are not trusted proxies.
    proxy.wait_until_up(1).await;
    for (source, status) in [("127.0.0.4", 200), ("127.0.0.4", 200), ("127.0.0.4", 503)] {
        assert_eq!(open_from(source, &proxy.url(1)).await, status, "{source}");
    }
    // Proxied clients cause no warning; the only one is about the forged headers above.
    assert!(host.log().matches("WARN").count() <= 1, "{}", host.log());
}

#[tokio::test]
async fn haproxy_removes_a_draining_host_from_rotation() {
    let host = TestHost::start_with(&format!("{CONFIG}shutdown.delay = \"1h\"\n"), &[]);
    let Some(mut proxy) = haproxy(&host) else { return };
    proxy.wait_until_up(0).await;
    let mut ana = TestClient::connect(&proxy.url(0), &host.token("ana")).await;
    host.terminate();
    let url = proxy.url(0);
    eventually("the proxy has noticed", async || {
        let answer = http(&url, "GET", "/healthz", &[], "").await.ok()?;
        (answer.status == 503).then_some(())
    })
    .await;
    assert!(TcpStream::connect(host.ws.trim_start_matches("ws://")).await.is_ok(), "before the listener is closed");
    assert!(ana.emit_with_ack("ticket:view", json!({ "ticketId": "t1" })).await.is_ok(), "who is connected goes on");
}
