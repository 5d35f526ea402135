//! A feature that misbehaves on demand: in its handlers by its events, and in `describe` by the bytes of [`BEHAVIOUR`],
//! which a test overwrites in the built component.

mod breach;
mod feature;
mod greed;

use std::hint::black_box;
use std::time::Duration;

use roundhouse_sdk::{
    Acknowledgement, Answer, Answers, Audience, Audiences, Context, Failure, Feature, LeaveReason, Manifest, Member,
    Outgoing, Query, Scope, Sender, Timer, log,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use feature::Hostile;
use feature::Noise;
use greed::{eat, recurse, spin};

/// The behaviour of `describe`, padded with dots. Tests search for its first word and overwrite the rest.
static BEHAVIOUR: [u8; 32] = *b"describe=normal.................";

roundhouse_sdk::export!(Hostile);

/// The number of counted events, the notifications that the scope received, and ballast for a large state.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    count: u64,
    told: Vec<String>,
    ballast: String,
}

/// The messages of clients, services and the host.
#[derive(Debug, Deserialize)]
pub enum Message {
    /// Behaves well: counts, joins, and acknowledges with the count.
    #[serde(rename = "hostile:count")]
    Count {},
    /// Acknowledges with the received notifications.
    #[serde(rename = "hostile:told")]
    Told {},
    /// Counts, and behaves as `how` says.
    #[serde(rename = "hostile:do")]
    Do {
        /// See `misbehave`.
        how: String,
        /// The parameters of `how`.
        #[serde(default)]
        with: Value,
    },
    /// A service's message: counts.
    #[serde(rename = "hostile:service")]
    Service {},
    /// The host's `connect`, for the builds that route it. `auth` says how to behave.
    #[serde(rename = "connect")]
    Connect {
        /// The namespace of the connection.
        namespace: String,
        /// See `on_connect`.
        auth: Value,
        /// The other facts of the handshake.
        #[serde(flatten)]
        handshake: serde_json::Map<String, Value>,
    },
    /// Acknowledges with the connections.
    #[serde(rename = "hostile:greeted")]
    Greeted {},
    /// An event of another feature.
    #[serde(rename = "ticket:view")]
    Foreign {},
}

roundhouse_sdk::outgoing! { Noise<'_> => "hostile:noise" }

#[derive(Serialize)]
struct Undeclared {}

roundhouse_sdk::outgoing! { Undeclared => "viewers:updated" }

impl Feature for Hostile {
    type Settings = serde_json::Map<String, Value>;
    type State = State;
    type Message = Message;

    fn describe() -> Manifest {
        let routed = |scope: Scope| {
            scope
                .idle(Duration::from_secs(60))
                .from_clients(["hostile:count", "hostile:told", "hostile:do"])
                .from_services(["hostile:service"])
                .queries(["count"])
        };
        let scope = routed(Scope::volatile("hostile:{id}"));
        let greeted = || Scope::volatile("greeted").on_connect().from_clients(["hostile:greeted"]);
        let manifest = |scope| {
            Manifest::new("hostile", "1.0.0", "Misbehaves on demand").scope(scope).gathers("stats").emits([Noise::NAME])
        };
        match behaviour() {
            "describe=panic" => panic!("describe was told to panic"),
            "describe=loop" => spin(),
            "describe=eat" => eat(),
            "describe=name" => Manifest::new("No Name!", "1.0.0", ""),
            "describe=version" => Manifest::new("hostile", "one", ""),
            "describe=route" => manifest(scope.from_clients(["ticket:view"])),
            "describe=reserved" => manifest(scope.from_clients(["authenticate"])),
            "describe=scope" => Manifest::new("hostile", "1.0.0", "").scope(Scope::volatile("ticket:{id}")),
            "describe=user" => Manifest::new("hostile", "1.0.0", "").scope(Scope::volatile("user:{id}")),
            "describe=us" => Manifest::new("hostile", "1.0.0", "").scope(Scope::volatile("us{id}")),
            "describe=moved" => Manifest::new("hostile", "1.0.0", "").scope(Scope::volatile("moved:{id}")),
            "describe=forward" => manifest(scope).state_version(2),
            "describe=durable" | "describe=durable-traps" => manifest(routed(Scope::durable("hostile:{id}"))),
            "describe=durable-forward" | "describe=durable-schema" | "describe=durable-traps-2" => {
                manifest(routed(Scope::durable("hostile:{id}"))).state_version(2)
            }
            "describe=durable-third" => manifest(routed(Scope::durable("hostile:{id}"))).state_version(3),
            "describe=durable-both-ways" => {
                manifest(routed(Scope::durable("hostile:{id}"))).state_version(2).migrates_down_to([1])
            }
            "describe=durable-partly" => {
                manifest(routed(Scope::durable("hostile:{id}"))).state_version(2).migrates_partially()
            }
            "describe=greets" | "describe=takes" => manifest(scope).scope(greeted()),
            "describe=greets-joins" => manifest(scope).scope(greeted()).needs_actions(["join"]),
            "describe=admits" => manifest(scope).scope(Scope::volatile("greeted").admits()),
            "describe=roles" => manifest(scope.roles(["hostile:do", "hostile:told"], ["lead", "admin"])),
            "describe=presence" => manifest(scope.on_away()),
            "describe=needs" => manifest(scope).needs_rooms(["ticket:*"]).needs_audiences(["all"]),
            "describe=reaches" => manifest(scope).needs_rooms(["ticket:*"]).needs_audiences(["user", "roles", "all"]),
            "describe=greedy" => manifest(scope).needs_audiences(["all"]).needs_actions(["save"]),
            "describe=disconnects" => manifest(scope).needs_actions(["disconnect"]),
            "describe=schema" => manifest(scope).state_version(2),
            _ => manifest(scope),
        }
    }

    fn message(state: &mut State, cx: &mut Context<Self>, sender: &Sender, message: Message) -> Result<(), Failure> {
        greed::tire();
        match behaviour() {
            "describe=traps" | "describe=durable-traps" => panic!("this build always fails"),
            "describe=fails-b" if cx.scope().starts_with("hostile:b") => {
                panic!("this build fails on scopes that begin with b")
            }
            "describe=slow" => greed::dawdle(),
            // The panic comes at the event after one that changed the state.
            "describe=durable-traps-2" if state.count % 2 == 1 => panic!("this build fails on odd counts"),
            _ => {}
        }
        match message {
            Message::Count {} => {
                state.count += 1;
                cx.join(sender.client()?);
                if behaviour().starts_with("describe=mark-") {
                    cx.emit(cx.room(), &Noise { noise: &behaviour()["describe=".len()..] });
                }
                cx.reply(&json!({ "count": state.count }));
                Ok(())
            }
            Message::Connect { auth, handshake, .. } if auth["how"] == "handshake" => {
                cx.emit(sender.client()?, &Noise { noise: &Value::Object(handshake).to_string() });
                Ok(())
            }
            Message::Connect { namespace, auth, .. } => on_connect(state, cx, sender.client()?, &namespace, &auth),
            Message::Told {} | Message::Greeted {} => {
                match behaviour() {
                    "describe=takes" => drop(cx.emit(cx.room(), &Noise { noise: &"x".repeat(10_000) })),
                    "describe=noisy" => drop(cx.emit(cx.room(), &Noise { noise: "noisy" })),
                    _ => {}
                }
                cx.reply(&state.told);
                Ok(())
            }
            Message::Do { how, with } => {
                state.count += 1;
                misbehave(state, cx, sender.client()?, &how, &with)
            }
            Message::Service {} | Message::Foreign {} => {
                state.count += 1;
                cx.reply(&json!({ "service": true }));
                Ok(())
            }
        }
    }

    fn joined(state: &mut State, _: &mut Context<Self>, member: &Member) -> Result<(), Failure> {
        state.told.push(format!("joined {}", member.user_id()));
        Ok(())
    }

    fn left(state: &mut State, _: &mut Context<Self>, member: &Member, reason: LeaveReason) -> Result<(), Failure> {
        state.told.push(format!("left {} {}", member.user_id(), reason.as_str()));
        Ok(())
    }

    fn away(state: &mut State, cx: &mut Context<Self>, member: &Member) -> Result<(), Failure> {
        state.told.push(format!("away {}", member.user_id()));
        cx.emit(cx.room(), &Noise { noise: "away" });
        Ok(())
    }

    fn back(state: &mut State, cx: &mut Context<Self>, member: &Member) -> Result<(), Failure> {
        state.told.push(format!("back {} {}", member.user_id(), member.identity.roles.join(",")));
        cx.emit(cx.room(), &Noise { noise: "back" });
        Ok(())
    }

    fn timer(state: &mut State, cx: &mut Context<Self>, timer: &Timer) -> Result<(), Failure> {
        let how: String = timer.decode()?;
        if let Some(connection) = how.strip_prefix("grab ") {
            cx.join_room(connection, "hostile:den");
        }
        match how.as_str() {
            "panic" => panic!("the timer was told to panic"),
            "again" => {
                cx.set_timer("t", Duration::ZERO, &how);
                return Ok(());
            }
            _ if greed::timer(&how) => return Ok(()),
            _ => {}
        }
        state.told.push(format!("timer {how}"));
        Ok(())
    }

    fn acknowledged(state: &mut State, _: &mut Context<Self>, answer: &Acknowledgement) -> Result<(), Failure> {
        let said = match &answer.answer {
            Ok(payload) => payload.args.clone(),
            Err(failure) => failure.code.clone(),
        };
        state.told.push(format!("acknowledged {} {said}", answer.tag));
        Ok(())
    }

    fn query(state: &State, _: &Context<Self>, _: &Query) -> Result<Answer, Failure> {
        Ok(Answer::of(&json!({ "count": state.count })))
    }

    fn gathered(_: &Context<Self>, _: &Query, answers: &Answers) -> Result<Answer, Failure> {
        let counts: Vec<Value> = answers.decode()?;
        Ok(Answer::of(&counts))
    }

    fn migrate(from: u32, state: &[u8]) -> Result<State, Failure> {
        let read = || serde_json::from_slice(state).map_err(|error| Failure::internal(error.to_string()));
        if behaviour() == "describe=durable-partly" {
            return read().and_then(|state: State| match state.count {
                2 => Err(Failure::conflict("it was told to refuse 2")),
                _ => Ok(state),
            });
        }
        if let "describe=forward"
        | "describe=durable-forward"
        | "describe=durable-third"
        | "describe=durable-both-ways"
        | "describe=durable-traps-2" = behaviour()
        {
            return read();
        }
        Err(Failure::conflict(format!("it was told to refuse schema {from}")))
    }

    fn migrate_down(_: u32, state: State) -> Result<Value, Failure> {
        if state.count == 13 {
            return Err(Failure::conflict("it was told to refuse 13"));
        }
        Ok(json!(state))
    }
}

/// The behaviour of this build.
fn behaviour() -> &'static str {
    std::str::from_utf8(black_box(&BEHAVIOUR)).unwrap_or_default().trim_end_matches('.')
}

/// Records a connection, or behaves as its `auth` says.
fn on_connect(
    state: &mut State,
    cx: &mut Context<Hostile>,
    member: &Member,
    namespace: &str,
    auth: &Value,
) -> Result<(), Failure> {
    if behaviour() == "describe=takes" {
        cx.join(member);
    }
    match auth["how"].as_str() {
        Some("panic") if cx.now() < auth["until"].as_u64().unwrap_or(u64::MAX) => panic!("it was told to panic"),
        Some("misfit") => Err(Failure::bad_request("connect: auth: missing field `team`")),
        // Joins a connection that has sent the feature nothing: at once, or after a watch.
        Some("join") => {
            cx.join(member);
            Ok(())
        }
        Some("watch") => {
            cx.watch(member);
            cx.set_timer("grab", Duration::from_millis(1), &format!("grab {}", member.connection));
            Ok(())
        }
        Some("refuse") => Err(Failure::forbidden("it was told to refuse")),
        _ => {
            state.told.push(format!("{} in {namespace} with {auth}", member.user_id()));
            Ok(())
        }
    }
}

fn misbehave(
    state: &mut State,
    cx: &mut Context<Hostile>,
    member: &Member,
    how: &str,
    with: &Value,
) -> Result<(), Failure> {
    let noise = Noise { noise: "x" };
    if breach::breach(cx, member, how) {
        return Ok(());
    }
    match how {
        "spin" => spin(),
        "tired" => greed::rest(),
        "burn" => greed::burn(with.as_u64().unwrap_or_default()),
        "sleep" => std::thread::sleep(Duration::from_secs(60)),
        "eat" => eat(),
        "recurse" => drop(recurse(black_box(1))),
        "panic" => panic!("it was told to panic\u{1b}[31m\nover two lines"),
        "flood" => {
            for _ in 0..1_000_000 {
                cx.emit(cx.room(), &noise);
            }
        }
        "too-many" => {
            for _ in 0..1001 {
                cx.emit(cx.room(), &noise);
            }
        }
        "too-much" => {
            let noise = "x".repeat(600_000);
            for _ in 0..2 {
                cx.emit(cx.room(), &Noise { noise: &noise });
            }
        }
        "elsewhere" => {
            cx.emit(Audience::room("ticket:t1"), &noise);
        }
        "everybody" => {
            cx.emit(Audience::All, &noise);
        }
        "stranger" => {
            cx.emit(Audience::connection(with.as_str().unwrap_or_default()), &noise);
        }
        "lost-attachment" => drop(cx.emit(cx.room(), &noise).attachments(vec![vec![1]])),
        "undeclared" => {
            cx.emit(cx.room(), &Undeclared {});
        }
        "join-elsewhere" => cx.join_room(&member.connection, "ticket:t1"),
        "disconnect" => cx.disconnect(member, "because"),
        "save" => drop(cx.save("tag", "collection", &json!({}))),
        "large-state" => state.ballast = "x".repeat(with["bytes"].as_u64().unwrap_or_default() as usize),
        "fat-state" => state.ballast = "x".repeat(100_000),
        "failure" => return Err(Failure::conflict("it was told to refuse")),
        "strange-failure" => return Err(Failure::new("no_such_code", "it was told to refuse")),
        "log" => {
            for n in 0..10_000 {
                log::write(log::Level::Info, &format!("line {n} \u{1b}[31mred\r\nsecond line"));
            }
        }
        "flood-room" => {
            let noise = "x".repeat(with.as_u64().unwrap_or_default() as usize);
            cx.emit(cx.room(), &Noise { noise: &noise });
        }
        "timer" => {
            let after = Duration::from_millis(with["after"].as_u64().unwrap_or_default());
            cx.set_timer(
                with["name"].as_str().unwrap_or("t"),
                after,
                &match with["bytes"].as_u64() {
                    Some(bytes) => "x".repeat(bytes as usize),
                    None => with["how"].as_str().unwrap_or_default().to_owned(),
                },
            );
        }
        "timers" => {
            for n in with["from"].as_u64().unwrap_or_default()..with["to"].as_u64().unwrap_or_default() {
                cx.set_timer(n.to_string(), Duration::from_secs(3600), &String::new());
            }
        }
        "ask" => {
            cx.emit(member, &noise).acknowledged("question", Duration::from_secs(30));
        }
        "watch" => cx.watch(member),
        "watch-and-grab" => {
            cx.watch(member);
            cx.set_timer("grab", Duration::from_millis(1), &format!("grab {}", member.connection));
        }
        "join-room" => cx.join_room(&member.connection, with.as_str().unwrap_or_default()),
        "leave-room" => cx.leave_room(&member.connection, with.as_str().unwrap_or_default()),
        "emit" => {
            cx.emit(audiences(&with["to"]), &noise).except(audiences(&with["except"]));
        }
        other => return greed::take(cx, member, other, with),
    }
    Ok(())
}

/// `[{"user": "ana"}, {"roles": ["admin"]}, {"room": "hostile:a"}, "all"]`
fn audiences(list: &Value) -> Audiences {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let audience = |value: &Value| match value.as_object().and_then(|object| object.iter().next()) {
        Some((kind, value)) if kind == "user" => Audience::user(text(value)),
        Some((kind, value)) if kind == "users" => Audience::users(texts(value)),
        Some((kind, value)) if kind == "roles" => Audience::roles(texts(value)),
        Some((_, value)) => Audience::room(text(value)),
        None => Audience::All,
    };
    Audiences(list.as_array().into_iter().flatten().map(audience).collect())
}
