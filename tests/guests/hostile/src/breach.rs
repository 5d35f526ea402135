//! Breaches of the contract's rules, and ends of a component that are no panics of its own.

use std::hint::black_box;
use std::time::Duration;

use roundhouse_sdk::{Context, Member, Payload};

use crate::feature::{Hostile, Noise};

/// Behaves as `how` says. Returns whether it knows how.
pub(crate) fn breach(cx: &mut Context<Hostile>, member: &Member, how: &str) -> bool {
    let noise = Noise { noise: "x" };
    match how {
        "abort" => std::process::abort(),
        "exit" => std::process::exit(3),
        "divide" => _ = black_box(black_box(1_u32) / black_box(0)),
        "outside" => _ = black_box([1, 2, 3][black_box(7)]),
        "fetch-unasked" => drop(cx.fetch("tag", "collection")),
        "broken-reply" => cx.reply_payload(Payload { args: "[1".to_owned(), attachments: Vec::new() }),
        "late-acknowledgement" => {
            cx.emit(member, &noise).acknowledged("late", Duration::from_secs(11 * 60));
        }
        "acknowledgement-of-a-room" => {
            cx.emit(cx.room(), &noise).acknowledged("all", Duration::from_secs(1));
        }
        "long-timer" => cx.set_timer("t", Duration::from_secs(40 * 24 * 3600), &()),
        "long-name" => cx.set_timer("t".repeat(2000), Duration::from_secs(1), &()),
        "invented-connection" => cx.join_room("no-such-connection", "hostile:a"),
        "room-of-a-user" => cx.join_room(&member.connection, "user:ana"),
        _ => return false,
    }
    true
}
