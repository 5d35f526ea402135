//! Loads random components that are valid, and random modules, into a running host: `cargo run --release --bin smith -- ADDRESS
//! KEY SECONDS [SEED]`, with the address of the host's API. Each must be refused with a step and a reason.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use arbitrary::Unstructured;
use wasm_smith::{Component, Config, Module};

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, key, seconds, rest @ ..] = &arguments[..] else { panic!("give the API's address, its key, and seconds") };
    let seconds = seconds.parse().expect("a number of seconds");
    let seed = rest.first().map_or(1, |seed| seed.parse().expect("a number as seed"));
    let (until, mut state) = (Instant::now() + Duration::from_secs(seconds), seed);
    let mut outcomes = BTreeMap::new();
    while Instant::now() < until {
        let answer = load(address, key, &forge(&mut state))?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        assert!(head.starts_with("HTTP/1.1 422"), "seed {seed}: {answer}");
        let step = body.split("\"step\":\"").nth(1).and_then(|rest| rest.split('"').next());
        *outcomes.entry(step.expect("a refusal has a step").to_owned()).or_insert(0) += 1;
    }
    writeln!(std::io::stdout(), "seed {seed}: {outcomes:?}")
}

/// A random component or module.
fn forge(state: &mut u64) -> Vec<u8> {
    // SplitMix64 (Steele et al. 2014).
    let mut next = || {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let bytes: Vec<u8> = (0..300).flat_map(|_| next().to_le_bytes()).collect();
    let mut choices = Unstructured::new(&bytes);
    match next() % 3 {
        0 => Module::new(Config::default(), &mut choices).expect("there are bytes enough").to_bytes(),
        _ => Component::new(Config::default(), &mut choices).expect("there are bytes enough").to_bytes(),
    }
}

fn load(address: &str, key: &str, component: &[u8]) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    write!(
        socket,
        "POST /v1/plugins HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        component.len()
    )?;
    socket.write_all(component)?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
