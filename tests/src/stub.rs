//! A stand-in for an HTTP service of the operator, whose answers a test decides.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// A request to a [`StubServer`].
#[derive(Debug, Clone)]
pub struct StubRequest {
    /// The request line and the headers, as they came.
    pub head: String,
    /// The body.
    pub body: String,
}

impl StubRequest {
    /// The value of a header; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next().unwrap_or("")
    }
}

/// The answer of a [`StubServer`].
#[derive(Debug, Clone)]
pub enum StubAnswer {
    /// This status and body.
    Raw(u16, String),
    /// Nothing, until the client gives up.
    Silence,
}

/// A server whose answers a test decides, one connection for each request.
#[derive(Debug)]
pub struct StubServer {
    /// The URL that it was started for.
    pub url: String,
    requests: Arc<Mutex<Vec<StubRequest>>>,
}

impl StubServer {
    /// Starts a server, which ends with the process. `path` is that of its URL.
    pub fn start(path: &str, answer: impl Fn(&StubRequest) -> StubAnswer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}{path}", listener.local_addr().expect("it has an address"));
        let requests = Arc::<Mutex<Vec<StubRequest>>>::default();
        let (seen, answer) = (requests.clone(), Arc::new(answer));
        thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let (seen, answer) = (seen.clone(), answer.clone());
                thread::spawn(move || {
                    let Some(request) = read_request(&mut socket) else { return };
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
                    write_answer(socket, answer(&request));
                });
            }
        });
        Self { url, requests }
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<StubRequest> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of requests so far.
    pub fn n_requests(&self) -> usize {
        self.requests().len()
    }
}

/// A [`StubServer`] with a table of answers, by a key that each request names.
#[derive(Debug)]
pub struct StubTable {
    /// The server.
    pub server: StubServer,
    answers: Arc<Mutex<HashMap<String, StubAnswer>>>,
}

impl StubTable {
    /// Starts a server. `key` reads the key of a request; requests with another are answered with status `otherwise`.
    pub fn start(path: &str, otherwise: u16, key: impl Fn(&StubRequest) -> String + Send + Sync + 'static) -> Self {
        let answers = Arc::<Mutex<HashMap<String, StubAnswer>>>::default();
        let known = answers.clone();
        let server = StubServer::start(path, move |request| {
            let known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(&key(request)).cloned().unwrap_or(StubAnswer::Raw(otherwise, String::new()))
        });
        Self { server, answers }
    }

    /// Answers requests with this key by JSON.
    pub fn set(&self, key: &str, answer: &Value) {
        self.set_raw(key, StubAnswer::Raw(200, answer.to_string()));
    }

    /// Answers requests with this key.
    pub fn set_raw(&self, key: &str, answer: StubAnswer) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), answer);
    }

    /// Forgets a key.
    pub fn remove(&self, key: &str) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// Reads a request; `None` where the client has gone.
fn read_request(socket: &mut TcpStream) -> Option<StubRequest> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let mut request = StubRequest { head: String::from_utf8_lossy(&head).into_owned(), body: String::new() };
    let mut body = vec![0; request.header("content-length").parse().unwrap_or(0)];
    socket.read_exact(&mut body).ok()?;
    request.body = String::from_utf8_lossy(&body).into_owned();
    Some(request)
}

fn write_answer(mut socket: TcpStream, answer: StubAnswer) {
    match answer {
        StubAnswer::Raw(status, body) => {
            let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            // An error means that the client has gone.
            let _ = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(body.as_bytes()));
        }
        StubAnswer::Silence => {
            let _ = socket.set_read_timeout(Some(Duration::from_secs(30)));
            let _ = socket.read(&mut [0]);
        }
    }
}
