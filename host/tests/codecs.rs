//! The codecs on the fuzz targets' corpus and on mutations of it, with what the fuzz targets check.

use std::fs;
use std::path::Path;

use roundhouse::{model, protocol};

#[path = "../../tests/fuzz/src/checks.rs"]
pub mod checks;

use checks::Random;

/// Enough to take every path many times, and half a second in a debug build.
const MUTATIONS: usize = 10_000;

/// The committed inputs of a target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target);
    let entries = fs::read_dir(folder).expect("the corpus can be listed");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("the corpus can be listed").path()).collect();
    // In the same order everywhere, so that the mutations are the same.
    files.sort();
    assert!(!files.is_empty());
    files.into_iter().map(|file| fs::read(file).expect("an input can be read")).collect()
}

/// What codecs look at, and what they must not take.
const TELLING: &[u8] = b"0123456789b-/,[]{}\":\\\x1e\n\x80\xff";

/// Changes a few bytes of an input: one for another, in, out, doubled, or from another input.
fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(8)).min(input.len());
        match random.below(5) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 => input.insert(at, TELLING[random.below(TELLING.len())]),
            2 => drop(input.drain(at..end)),
            3 => input.extend_from_within(at..end),
            _ => {
                let other = &corpus[random.below(corpus.len())];
                input.truncate(at);
                input.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
        }
    }
    input
}

fn check(target: &str, check: fn(&[u8])) {
    let corpus = corpus(target);
    for input in &corpus {
        check(input);
    }
    let mut random = Random::new(7);
    for _ in 0..MUTATIONS {
        let input = mutate(&mut random, &corpus);
        if std::panic::catch_unwind(|| check(&input)).is_err() {
            panic!("{target} fails on {:?}", input.escape_ascii().to_string());
        }
    }
}

#[test]
fn websocket_frames_decode_alike_in_any_pieces() {
    check("websocket", checks::websocket);
}

#[test]
fn plain_frames_round_trip_or_are_refused() {
    check("plain", checks::plain);
}

#[test]
fn decoded_engineio_packets_round_trip() {
    check("engineio", checks::engineio);
}

#[test]
fn decoded_socketio_packets_round_trip() {
    check("socketio", checks::socketio);
}
