//! The fuzz targets' properties of manifests and outcomes, on their corpus and on pseudo-random bytes.

#[path = "../../../tests/fuzz/src/contract.rs"]
pub mod contract;

/// Enough to take every path many times, and a second in a debug build.
const INPUTS: u64 = 20_000;

/// Checks a property on the fuzz target's corpus, and on inputs of different lengths, the same in each run, of which enough are accepted to mean something.
/// (SplitMix64, Steele et al. 2014.)
fn check(seed: u64, corpus: &[&[u8]], property: fn(&[u8]) -> bool) {
    for input in corpus {
        property(input);
    }
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut n_accepted = 0;
    for _ in 0..INPUTS {
        let length = next() % 300;
        let input: Vec<u8> = (0..length).map(|_| next() as u8).collect();
        n_accepted += u64::from(property(&input));
    }
    assert!(n_accepted > INPUTS / 200, "{n_accepted} of {INPUTS} inputs are accepted");
}

#[test]
fn manifests_that_are_accepted_make_sense() {
    check(1, &[include_bytes!("../../../tests/fuzz/corpus/manifest/route-from-nobody")], contract::manifest);
}

#[test]
fn outcomes_are_taken_as_a_whole_or_not_at_all() {
    check(2, &[include_bytes!("../../../tests/fuzz/corpus/outcome/small")], contract::outcome);
}
