//! Case files of a host as tests of a feature.

use roundhouse_sdk::simulator::replay_case;
use roundhouse_sdk::{Context, Failure, Feature, Manifest, Scope, Sender, StateChange};
use serde::{Deserialize, Serialize};

/// A feature that greets by name.
struct Greeter<const IS_MENDED: bool>;

#[derive(Default, Serialize, Deserialize)]
struct State {
    greeted: u32,
}

#[derive(Deserialize)]
enum Message {
    #[serde(rename = "greet")]
    Greet { name: String },
}

impl<const IS_MENDED: bool> Feature for Greeter<IS_MENDED> {
    type Settings = serde_json::Map<String, serde_json::Value>;
    type State = State;
    type Message = Message;

    fn describe() -> Manifest {
        Manifest::new("greeter", "1.0.0", "Greets").scope(Scope::volatile("door:{id}").from_clients(["greet"]))
    }

    fn message(state: &mut State, cx: &mut Context<Self>, _: &Sender, message: Message) -> Result<(), Failure> {
        let Message::Greet { name } = message;
        let initial = name.chars().next();
        if IS_MENDED && initial.is_none() {
            return Err(Failure::bad_request("a name is missing"));
        }
        state.greeted += 1;
        cx.reply(&initial.expect("everybody has a name"));
        Ok(())
    }
}

const EMPTY_NAME: &str = include_str!("empty-name.case");

roundhouse_sdk::case!(empty_name_is_no_fault_any_more: Greeter<true>, "empty-name.case");

#[test]
fn case_file_repeats_the_call_of_the_host() {
    let refusal = replay_case::<Greeter<true>>(EMPTY_NAME).unwrap_err();
    assert_eq!(refusal.code, "bad_request");
    let outcome = replay_case::<Greeter<true>>(&EMPTY_NAME.replace(r#""name":"""#, r#""name":"Ana""#)).unwrap();
    assert_eq!(outcome.state, StateChange::Put(br#"{"greeted":8}"#.to_vec()), "it goes on from the state of the case");
}

#[test]
#[should_panic(expected = "everybody has a name")]
fn case_file_fails_on_the_fault() {
    // The panic is what counts.
    let _ = replay_case::<Greeter<false>>(EMPTY_NAME);
}

#[test]
#[should_panic(expected = "it is no case file")]
fn other_files_are_no_case_files() {
    let _ = replay_case::<Greeter<true>>("{}");
}
