//! Outcomes that each host commits or refuses.

use roundhouse_tests::Random;

use table::{AudienceSpec, EmitSpec, Order, Text};

use super::manifests::seed;
use super::real::RealHost;
use super::{ACTORS, Case, POOR, RICH, Verdict, simulated};

/// The number of random outcomes that both hosts judge.
const N_RANDOM: usize = 300;

/// 31 days, in milliseconds.
const MAX_TIMER_MS: u64 = 31 * 24 * 60 * 60 * 1000;

/// 10 minutes, in milliseconds.
const MAX_ACKNOWLEDGE_MS: u64 = 10 * 60 * 1000;

fn said(to: &[AudienceSpec]) -> EmitSpec {
    EmitSpec {
        to: to.to_vec(),
        except: Vec::new(),
        event: "said".into(),
        args: "[1]".into(),
        attachments: 0,
        acknowledge: None,
    }
}

fn room(name: &str) -> AudienceSpec {
    AudienceSpec::Room(name.into())
}

fn connection(id: &str) -> AudienceSpec {
    AudienceSpec::Connection(id.to_owned())
}

fn long(n: usize) -> Text {
    Text::Repeated("x".to_owned(), n, String::new(), String::new())
}

/// Arguments of `n` bytes.
fn args_of(n: usize) -> Text {
    Text::Repeated("x".to_owned(), n - 4, "[\"".to_owned(), "\"]".to_owned())
}

fn join(connection: &str, room: Option<&str>) -> Order {
    Order::Join(connection.to_owned(), room.map(Text::from))
}

fn watch(connection: &str) -> Order {
    Order::Watch(connection.to_owned())
}

fn save(tag: Text, collection: Text, key: Option<Text>, document: Text) -> Order {
    Order::Save { tag, collection, key, document }
}

fn fetch(collection: &str, before: Option<Text>, limit: u32) -> Order {
    Order::Fetch { tag: "t".into(), collection: collection.into(), before, limit }
}

fn acknowledged(to: &[AudienceSpec], tag: Text, timeout_ms: u64) -> Order {
    Order::Emit(EmitSpec { acknowledge: Some((tag, timeout_ms)), ..said(to) })
}

/// Outcomes at the limit of weight: an effect of known weight beside a payload that fills the rest, and the same with
/// one byte more.
fn weights() -> Vec<(Case, &'static str)> {
    const MAX: usize = 1024 * 1024;
    let filled = |effect: Order, weight: usize| {
        let reply =
            |rest| Case::of(RICH, vec![effect.clone(), Order::Emit(EmitSpec { args: args_of(rest), ..said(&[]) })]);
        let rest = MAX - "said".len() - weight;
        [(reply(rest), ""), (reply(rest + 1), "effects of more than 1048576 bytes")]
    };
    let except = EmitSpec { except: vec![AudienceSpec::User(long(100))], args: "[]".into(), ..said(&[]) };
    [
        filled(Order::Emit(except), 4 + 2 + 100),
        filled(Order::ReachedUsers(long(50)), 50),
        filled(fetch("c", Some(long(40)), 1), 1 + 40),
        // The names of the collection and the key have no weight.
        filled(save("t".into(), long(128), Some(long(1000)), "d".into()), 1 + 3),
        filled(Order::SetTimer("n".into(), 1000, "p".into()), 1 + 3),
    ]
    .concat()
}

/// Outcomes, each with the rule that it breaks, or an empty text.
fn table() -> Vec<(Case, &'static str)> {
    let poor = |effects: Vec<Order>| Case::of(POOR, effects);
    let rich = |effects: Vec<Order>| Case::of(RICH, effects);
    let emit = |to: AudienceSpec| vec![Order::Emit(said(&[to]))];
    let mut table = vec![
        (poor(emit(room("#a"))), ""),
        (poor(emit(room("#b"))), ""),
        (poor(emit(room("poor:"))), "which its manifest does not ask for"),
        (poor(emit(room("poor:a b"))), "which its manifest does not ask for"),
        (poor(emit(room("hall"))), "which its manifest does not ask for"),
        (poor(emit(connection("@ana"))), ""),
        (poor(emit(connection("@ben"))), "nothing to do with"),
        (poor(emit(connection("nonsense"))), "the host never gave"),
        (poor(emit(AudienceSpec::All)), "the audience all"),
        (poor(emit(AudienceSpec::User("ben".into()))), "the audience user"),
        (poor(emit(room("user:ben"))), "which its manifest does not ask for"),
        (poor(vec![Order::Emit(EmitSpec { event: "other".into(), ..said(&[]) })]), "its manifest lists"),
        (poor(vec![Order::Emit(EmitSpec { except: vec![connection("@ben")], ..said(&[room("#a")]) })]), ""),
        (poor(vec![Order::Emit(EmitSpec { except: vec![room("hall"), AudienceSpec::All], ..said(&[]) })]), ""),
        (poor(vec![Order::Emit(EmitSpec { attachments: 1, ..said(&[]) })]), "no placeholder"),
        (poor(vec![Order::Emit(EmitSpec { attachments: 11, ..said(&[]) })]), "at most 10 attachments"),
        (poor(vec![Order::Emit(EmitSpec { args: "{}".into(), ..said(&[]) })]), "not a JSON array"),
        (poor(vec![Order::Emit(EmitSpec { args: "[\"\\ud800\"]".into(), ..said(&[room("#a")]) })]), ""),
        (poor(vec![Order::Reply("[2]".into())]), ""),
        (poor(vec![Order::Reply("[2]".into()), Order::ReachedUsers("n".into())]), "two replies"),
        (poor([emit(room("#a")), vec![Order::ReachedConnections("n".into())]].concat()), ""),
        (poor(vec![acknowledged(&[connection("@ana")], "t".into(), 5000), Order::ReachedConnections("n".into())]), ""),
        (poor(vec![acknowledged(&[connection("@ana")], "t".into(), MAX_ACKNOWLEDGE_MS)]), ""),
        (poor(vec![acknowledged(&[connection("@ana")], "t".into(), MAX_ACKNOWLEDGE_MS + 1)]), "more than 10 minutes"),
        (poor(vec![acknowledged(&[connection("@ana")], long(1025), 1)]), "a tag of more than 1024 bytes"),
        (poor(vec![acknowledged(&[room("#a")], "t".into(), 1)]), "not a connection"),
        (poor(vec![Order::SetTimer("t".into(), MAX_TIMER_MS, "p".into())]), ""),
        (poor(vec![Order::SetTimer("t".into(), MAX_TIMER_MS + 1, "p".into())]), "more than 31 days"),
        (poor(vec![Order::SetTimer(long(1025), 1, "p".into())]), "more than 31 days"),
        (poor(vec![Order::SetTimers(1000)]), ""),
        (poor(vec![Order::SetTimers(1001)]), "1001 effects"),
        (poor(vec![join("@ana", None), watch("@ana"), Order::Leave("@ana".to_owned(), None)]), ""),
        (poor(vec![join("@ben", None)]), "nothing to do with"),
        (poor(vec![watch("@ben")]), "nothing to do with"),
        (poor(vec![join("@ana", Some("hall"))]), "a membership of the room"),
        (poor(vec![join("@ana", Some("#b"))]), ""),
        (poor(vec![join("@ana", Some("poor:x y"))]), "a membership of the room"),
        // Watched by another scope, the only one to which the connection has sent an event.
        (
            Case { plugin: POOR, steps: vec![("ana", "b", vec![join("@zoe", None)], None)] }.after(
                "zoe",
                "a",
                vec![watch("@zoe")],
            ),
            "which sent it nothing",
        ),
        (poor(vec![join("@zoe", None)]).after("zoe", "a", vec![watch("@zoe")]), ""),
        (poor(vec![join("@zoe", None)]).after("zoe", "b", vec![join("@zoe", None)]), ""),
        (poor(vec![Order::Disconnect("@ana".to_owned(), "r".into())]), "a disconnect"),
        (poor(vec![save("t".into(), "c".into(), None, "d".into())]), "the document store"),
        (poor(vec![fetch("c", None, 1)]), "the document store"),
        (poor(vec![]).with_state(Text::Repeated("x".to_owned(), 65_534, String::new(), String::new())), ""),
        (poor(vec![]).with_state(long(65_535)), "a state of 65537 bytes"),
        (rich(emit(room("hall"))), ""),
        (rich(emit(room("hall:x"))), ""),
        (rich(emit(room("halls"))), "which its manifest does not ask for"),
        (rich(emit(room("user:ben"))), ""),
        (rich(emit(AudienceSpec::All)), ""),
        (rich(emit(AudienceSpec::Users(vec!["ben".into(), "zoe".into()]))), ""),
        (rich(emit(AudienceSpec::Roles(vec!["agent".into()]))), ""),
        (rich(vec![join("@ana", Some("user:ben"))]), "the user's own connections"),
        (rich(vec![join("@ana", Some("user:*"))]), "the user's own connections"),
        (rich(vec![join("@ben", None)]), "nothing to do with"),
        (rich(vec![Order::Disconnect("@ben".to_owned(), "r".into())]), "nothing to do with"),
        (rich(vec![save("t".into(), "c".into(), Some("k".into()), "d".into())]), ""),
        (rich(vec![save("t".into(), "no id".into(), None, "d".into())]), "a collection"),
        (rich(vec![save("t".into(), long(129), None, "d".into())]), "a collection"),
        (rich(vec![save("t".into(), "c".into(), Some(long(1025)), "d".into())]), "more than 1024 bytes"),
        (rich(vec![fetch("c", None, 1000)]), ""),
        (rich(vec![fetch("c", None, 0)]), "a fetch of 0 documents"),
        (rich(vec![fetch("c", None, 1001)]), "a fetch of 1001 documents"),
        (rich(vec![fetch("c", None, 1); 2]), "two fetches"),
    ];
    table.extend(weights());
    table
}

#[tokio::test]
async fn host_and_simulator_judge_outcomes_alike() {
    let mut host = RealHost::start().await;
    for (n, (case, rule)) in table().into_iter().enumerate() {
        let user = host.user();
        let simulated = simulated::judge(&case, n, &user);
        assert_eq!(host.judge(&case, n).await, simulated, "{case:?}");
        match simulated {
            Verdict::Fault(fault) => assert!(!rule.is_empty() && fault.contains(rule), "{case:?}: {fault}"),
            verdict => assert!(rule.is_empty(), "{case:?}: {verdict:?}"),
        }
    }
}

#[tokio::test]
async fn host_and_simulator_judge_random_outcomes_alike() {
    let mut host = RealHost::start().await;
    let seed = seed();
    let mut random = Random::new(seed);
    for n in 0..N_RANDOM {
        let case = any_case(&mut random);
        let user = host.user();
        let simulated = simulated::judge(&case, n, &user);
        assert_eq!(host.judge(&case, n).await, simulated, "seed {seed}, number {n}: {case:?}");
    }
}

fn any_case(random: &mut Random) -> Case {
    let plugin = if random.in_hundred(50) { POOR } else { RICH };
    let n = 1 + random.below(3);
    let case = Case::of(plugin, (0..n).map(|_| any_order(random)).collect());
    match random.below(3) {
        0 => case,
        1 => case.after("zoe", "a", vec![watch("@zoe")]),
        _ => case.after("zoe", "b", vec![join("@zoe", None)]),
    }
}

fn any_connection(random: &mut Random) -> String {
    let names = ["@ana", "@ana", "@zoe", "@zoe", "@ben", "nonsense"];
    (*random.pick(&names)).to_owned()
}

fn any_text(random: &mut Random) -> Text {
    match random.below(6) {
        0 => long(1024 + random.below(2)),
        1 => "a b".into(),
        _ => (*random.pick(&["c", "said", "x\u{200b}", "é"])).into(),
    }
}

fn any_room(random: &mut Random) -> Text {
    (*random.pick(&["#a", "#b", "hall", "hall:x", "halls", "user:ben", "rich:", "poor:x"])).into()
}

fn any_audience(random: &mut Random) -> AudienceSpec {
    match random.below(8) {
        0 => AudienceSpec::All,
        1 => AudienceSpec::User((*random.pick(&ACTORS)).into()),
        2 => AudienceSpec::Roles(vec!["agent".into()]),
        3 | 4 => AudienceSpec::Connection(any_connection(random)),
        _ => AudienceSpec::Room(any_room(random)),
    }
}

fn any_order(random: &mut Random) -> Order {
    match random.below(12) {
        0 => Order::Reply((*random.pick(&["[1]", "[]", "[[1,2]]", "{}", "[\"\\udc00\"]"])).into()),
        1 => join(&any_connection(random), None),
        2 => Order::Join(any_connection(random), Some(any_room(random))),
        3 => Order::Leave(any_connection(random), Some(any_room(random))),
        4 => watch(&any_connection(random)),
        5 => Order::SetTimer(any_text(random), MAX_TIMER_MS + random.below(2) as u64, "p".into()),
        6 => Order::CancelTimer(any_text(random)),
        7 => save(any_text(random), any_text(random), Some(any_text(random)), "d".into()),
        8 => fetch("c", None, *random.pick(&[0, 1, 1000, 1001])),
        9 => {
            let tag = any_text(random);
            acknowledged(&[any_audience(random)], tag, MAX_ACKNOWLEDGE_MS + random.below(2) as u64)
        }
        _ => {
            let to: Vec<_> = (0..1 + random.below(2)).map(|_| any_audience(random)).collect();
            let except = if random.in_hundred(30) { vec![any_audience(random)] } else { Vec::new() };
            let event = if random.in_hundred(90) { "said".into() } else { any_text(random) };
            let attachments = if random.in_hundred(10) { random.below(12) } else { 0 };
            Order::Emit(EmitSpec { except, event, attachments, ..said(&to) })
        }
    }
}
