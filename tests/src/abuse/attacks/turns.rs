//! Taking the time of the plugin threads, which features share.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use super::{BURST, LARGEST, RATE, attack, hostile, many};
use crate::abuse::requests::api_request;
use crate::abuse::{Attack, Field, Flood, Handshake, line};
use crate::guests::{self, relabelled};

/// The length of a burning call in milliseconds: below the deadline of 50, with a margin for busy machines.
const BURN_MS: f64 = 40.0;
/// The number of loops by which a burn is calibrated.
const MEASURED_WORK: u64 = 2_000_000;
/// Burning calls per second and client.
const BURNS_A_SECOND: f64 = 45.0;
/// The longest time of a rollback, in which nothing is compiled: it takes some milliseconds unless it waits for a
/// compilation.
const ROLLBACK: Duration = Duration::from_secs(2);

pub(in crate::abuse) const ATTACKS: &[Attack] = &[
    attack!("numbers", Account, Closed, 2, "subscribe:contact with 490,000 numbers, 50 a second", |f| numbers(
        f,
        1,
        Handshake::Plain
    )),
    attack!("numbers-connections", Connections, Closed, 1, "the same from four connections", |f| numbers(
        f,
        4,
        Handshake::Plain
    )),
    attack!(
        "numbers-socketio",
        Account,
        Closed,
        1,
        "ticket:view over Socket.IO with 490,000 numbers, 50 a second",
        |f| numbers(f, 1, Handshake::SocketIo)
    ),
    attack!("burn", Plugin, Closed, 2, "40 ms a call, 45 calls a second for one client", |f| burn(f, 1)),
    attack!("burn-clients", Plugin, Closed, 2, "40 ms a call, 45 calls a second for each of four clients", |f| burn(
        f, 4
    )),
    attack!("burn-scopes", Plugin, Closed, 1, "40 ms a call, each in another scope, 4 clients", burn_scopes),
    attack!("burn-timers", Plugin, Closed, 1, "300 timers due at once, of 20 ms each", burn_timers),
    attack!("timer-loop", Plugin, Closed, 1, "a timer of 0 ms that sets itself again", |f| timer_loops(f, 1)),
    attack!("timer-loops", Plugin, Closed, 1, "100 scopes with a timer of 0 ms that sets itself again", |f| {
        timer_loops(f, 100)
    }),
    attack!("gather", RequestKind, Closed, 1, "stats of a feature with 30,000 scopes, 2 callers", gather),
    attack!("compile", RequestKind, Closed, 2, "a component of 12 MB is compiled, and a rollback meanwhile", compile),
    attack!("swaps", RequestKind, Closed, 1, "swaps of a feature, as fast as they go, 2 callers", swaps),
];

async fn numbers(field: Rc<Field>, n: usize, handshake: Handshake) -> anyhow::Result<()> {
    let numbers = many("1", LARGEST - 100);
    let frame = match handshake {
        Handshake::SocketIo => line::socket_io("ticket:view", &format!(r#"{{"ticketId":"t","x":[{numbers}]}}"#)),
        _ => line::plain("subscribe:contact", &format!(r#"{{"contactId":"c","x":[{numbers}]}}"#)),
    };
    field.pour(Flood::of(n, handshake).rate(RATE), |_, _| Cow::Borrowed(&frame)).await;
    Ok(())
}

/// The number of loops that the guest does in `milliseconds`.
async fn work_for(field: &Field, milliseconds: f64) -> anyhow::Result<u64> {
    let mut asker = field.asker(&field.user(0)).await?;
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let answer = asker.ask(&hostile("measured", "burn", &json!(MEASURED_WORK))).await?;
        ensure!(!answer.contains("\"error\""), "it does not burn: {answer}");
        fastest = fastest.min(began.elapsed());
    }
    field.begin();
    Ok((MEASURED_WORK as f64 * milliseconds / 1000.0 / fastest.as_secs_f64()) as u64)
}

async fn burn(field: Rc<Field>, clients: usize) -> anyhow::Result<()> {
    let work = work_for(&field, BURN_MS).await?;
    let frame = hostile("burnt", "burn", &json!(work));
    field
        .pour(Flood::of(clients, Handshake::Plain).accounts().rate(BURNS_A_SECOND), |_, _| Cow::Borrowed(&frame))
        .await;
    Ok(())
}

async fn burn_scopes(field: Rc<Field>) -> anyhow::Result<()> {
    let work = work_for(&field, BURN_MS).await?;
    let frame = |i: usize, n: usize| hostile(&format!("{i}-{n}"), "burn", &json!(work));
    field.pour(Flood::of(4, Handshake::Plain).rate(BURNS_A_SECOND), |i, n| Cow::Owned(frame(i, n))).await;
    Ok(())
}

async fn burn_timers(field: Rc<Field>) -> anyhow::Result<()> {
    let work = work_for(&field, 20.0).await?;
    let with = json!({ "count": 300, "after": 300, "work": work });
    field.asker(&field.user(0)).await?.ask(&hostile("timers", "burn-timers", &with)).await?;
    field.pause(field.time).await;
    Ok(())
}

async fn timer_loops(field: Rc<Field>, scopes: usize) -> anyhow::Result<()> {
    let mut asker = field.asker(&field.user(0)).await?;
    for scope in 0..field.some(scopes) {
        asker.ask(&hostile(&format!("loop{scope}"), "timer", &json!({ "after": 0, "how": "again" }))).await?;
    }
    field.pause(field.time).await;
    Ok(())
}

async fn gather(field: Rc<Field>) -> anyhow::Result<()> {
    let flood = Flood::of(field.some(150), Handshake::Plain).accounts();
    let lines = field.connect_all(flood).await;
    let counted = futures_util::future::join_all(lines.into_iter().enumerate().map(|(i, mut line)| async move {
        for n in 0..BURST {
            line.send(&line::plain("hostile:count", &format!(r#"{{"id":"{i}-{n}"}}"#))).await;
        }
        line
    }));
    let _members = counted.await;
    field.begin();
    let request = api_request("POST", "/v1/query/hostile/stats", "{}");
    field.request(field.api, 2, 20.0, |_, _| Cow::Borrowed(&request)).await;
    Ok(())
}

/// A component that is not a feature, of one module with many functions. Each `number` makes another, so that none is
/// cached.
fn big_component(bytes: usize, number: u32) -> Vec<u8> {
    const ADDS: usize = 100;
    let mut body = vec![0, 0x20, 0];
    body.extend([0x41, 1, 0x6a].repeat(ADDS));
    body.push(0x0b);
    let entry = [leb(body.len()), body].concat();
    let n = bytes / entry.len();
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    module.extend(section(1, vec![1, 0x60, 1, 0x7f, 1, 0x7f]));
    module.extend(section(3, [leb(n), vec![0; n]].concat()));
    module.extend(section(10, [leb(n), entry.repeat(n)].concat()));
    module.extend(section(0, [&[5][..], b"label", &number.to_le_bytes()].concat()));
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    component.extend(section(1, module));
    component
}

fn section(id: u8, content: Vec<u8>) -> Vec<u8> {
    [vec![id], leb(content.len()), content].concat()
}

fn leb(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

async fn compile(field: Rc<Field>) -> anyhow::Result<()> {
    let newer = field.call("PUT", "/v1/plugins/hostile", relabelled(&guests::hostile("normal"), "newer")).await?;
    ensure!(newer.status == 200, "it is not swapped: {}", newer.text);
    field.begin();
    let component = big_component(field.some(12_000_000), std::process::id());
    let longest = field.time * 2 + ROLLBACK;
    let compiles = tokio::time::timeout(longest, async {
        while !field.is_over() {
            field.call("PUT", "/v1/plugins/big", component.clone()).await?;
        }
        anyhow::Ok(())
    });
    let rolls_back = tokio::time::timeout(longest, async {
        field.pause(field.time / 4).await;
        let began = Instant::now();
        let answer = field.call("POST", "/v1/plugins/hostile/rollback", Vec::new()).await?;
        anyhow::Ok((answer.status, began.elapsed()))
    });
    let (_, rolled_back) = tokio::join!(compiles, rolls_back);
    let mut tally = field.tally.borrow_mut();
    match rolled_back {
        Ok(answered) => {
            let (status, took) = answered?;
            let said = format!("a rollback was answered {status} after {:.2} s", took.as_secs_f64());
            // Only a full run has the machine to itself.
            if status != 200 || field.scale >= 1.0 && took > ROLLBACK {
                tally.harm.push(said.clone());
            }
            tally.notes.push(said);
        }
        Err(_) => tally.harm.push(format!("a rollback was not answered in {} s", longest.as_secs())),
    }
    Ok(())
}

async fn swaps(field: Rc<Field>) -> anyhow::Result<()> {
    let component = guests::hostile("normal");
    let request = |n: usize| {
        let body = relabelled(&component, &format!("swap{}", n % 4));
        let head = api_request("PUT", "/v1/plugins/hostile", "");
        let head =
            String::from_utf8_lossy(&head).replace("content-length: 0", &format!("content-length: {}", body.len()));
        [head.into_bytes(), body].concat()
    };
    field.request(field.api, 2, 20.0, |_, n| Cow::Owned(request(n))).await;
    Ok(())
}
