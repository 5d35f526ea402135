//! Greedy behaviour: as much time, and as many of the host's resources, as the limits of one call allow.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use roundhouse_sdk::{Audience, Context, Failure, Member};
use serde_json::{Value, json};

use crate::feature::{Hostile, Noise};

/// The messages that this instance has had.
static HAD: AtomicU32 = AtomicU32::new(0);

/// Notes a message.
pub(crate) fn tire() {
    HAD.fetch_add(1, Ordering::Relaxed);
}

/// Takes some milliseconds.
pub(crate) fn dawdle() {
    let sum = (0..4_000_000_u64).fold(0, |sum: u64, n| black_box(sum.wrapping_mul(31).wrapping_add(n)));
    black_box(sum);
}

/// Panics on an instance that has had a message before this one.
pub(crate) fn rest() {
    assert!(HAD.load(Ordering::Relaxed) == 1, "this instance is tired");
}

/// Behaves as `how` says, with the amounts in `with`: `count`, `bytes` each, `work`, `after` milliseconds.
pub(crate) fn take(cx: &mut Context<Hostile>, member: &Member, how: &str, with: &Value) -> Result<(), Failure> {
    let number = |name: &str| with[name].as_u64().unwrap_or_default();
    let text = "x".repeat(number("bytes") as usize);
    match how {
        "burn-timers" => {
            let after = Duration::from_millis(number("after"));
            for n in 0..number("count") {
                cx.set_timer(format!("t{n}"), after, &format!("burn {}", number("work")));
            }
        }
        "fat-timers" => {
            for n in 0..number("count") {
                cx.set_timer(format!("fat{n}"), Duration::from_secs(3600), &text);
            }
        }
        "ask-many" => {
            for n in 0..number("count") {
                cx.emit(member, &Noise { noise: "" }).acknowledged(n.to_string(), Duration::from_secs(300));
            }
        }
        "save-many" => {
            for n in 0..number("count") {
                cx.save(n.to_string(), "greed", &json!({ "text": text }));
            }
        }
        "fetch" => drop(cx.fetch("greed", "greed").limit(100)),
        "tell-all" => {
            for _ in 0..number("count") {
                cx.emit(Audience::All, &Noise { noise: &text });
            }
        }
        other => return Err(Failure::bad_request(format!("it cannot {other}"))),
    }
    Ok(())
}

/// Handles a timer of this module. Returns whether the timer is one.
pub(crate) fn timer(how: &str) -> bool {
    let Some(work) = how.strip_prefix("burn ") else { return false };
    burn(work.parse().unwrap_or_default());
    true
}

/// Burns time in `work` rounds of a loop that takes some nanoseconds: a guest has no clock.
pub(crate) fn burn(work: u64) {
    for n in 0..work {
        black_box(n);
    }
}

/// Never returns.
pub(crate) fn spin() -> ! {
    loop {
        black_box(());
    }
}

/// Allocates without end.
pub(crate) fn eat() -> ! {
    let mut eaten = Vec::new();
    loop {
        eaten.push(black_box(vec![1u8; 1 << 20]));
    }
}

/// Overflows the stack.
#[expect(unconditional_recursion, reason = "that is what it is told to do")]
pub(crate) fn recurse(n: u64) -> u64 {
    black_box([n; 64]);
    recurse(n + 1) + 1
}
