//! What a feature hears of clients that have lost their transport and may come back.

use std::panic::catch_unwind;
use std::time::Duration;

use roundhouse_sdk::simulator::Simulation;
use roundhouse_sdk::{Context, Failure, Feature, LeaveReason, Manifest, Member, Scope, Sender, Timer};
use serde::Deserialize;
use serde_json::{Value, json};

/// A feature that writes down what it is told, in scopes that ask to be told and in others.
struct Porch;

#[derive(Deserialize)]
enum Message {
    #[serde(rename = "porch:sit")]
    Sit,
    #[serde(rename = "porch:watch")]
    Watch,
    #[serde(rename = "porch:later")]
    Later,
    #[serde(rename = "yard:sit")]
    Yard,
}

impl Feature for Porch {
    type Settings = Value;
    type State = Vec<String>;
    type Message = Message;

    fn describe() -> Manifest {
        let porch = Scope::volatile("porch:{id}").on_away().from_clients(["porch:sit", "porch:watch", "porch:later"]);
        let yard = Scope::volatile("yard:{id}").from_clients(["yard:sit"]);
        Manifest::new("porch", "1.0.0", "").scope(porch).scope(yard)
    }

    fn message(_: &mut Vec<String>, cx: &mut Context<Self>, sender: &Sender, message: Message) -> Result<(), Failure> {
        let member = sender.client()?;
        match message {
            Message::Sit | Message::Yard => cx.join(member),
            Message::Watch => cx.watch(member),
            Message::Later => cx.set_timer("sit", Duration::from_secs(5), &member.connection),
        }
        Ok(())
    }

    fn timer(_: &mut Vec<String>, cx: &mut Context<Self>, timer: &Timer) -> Result<(), Failure> {
        let connection: String = timer.decode()?;
        let room = cx.scope().to_owned();
        cx.join_room(&connection, &room);
        Ok(())
    }

    fn away(told: &mut Vec<String>, cx: &mut Context<Self>, member: &Member) -> Result<(), Failure> {
        told.push(format!("away {} of {}", member.user_id(), cx.user_connections()));
        Ok(())
    }

    fn back(told: &mut Vec<String>, _: &mut Context<Self>, member: &Member) -> Result<(), Failure> {
        told.push(format!("back {}", member.user_id()));
        Ok(())
    }

    fn left(
        told: &mut Vec<String>,
        _: &mut Context<Self>,
        member: &Member,
        reason: LeaveReason,
    ) -> Result<(), Failure> {
        told.push(format!("left {} {}", member.user_id(), reason.as_str()));
        Ok(())
    }
}

#[test]
fn only_presence_scopes_receive_away_and_back() {
    let mut sim = Simulation::<Porch>::new();
    let ana = sim.connect("ana", "Ana");
    sim.emit_with_ack(ana, "porch:sit", json!({"id": "a"})).unwrap();
    sim.emit_with_ack(ana, "porch:watch", json!({"id": "b"})).unwrap();
    sim.emit_with_ack(ana, "yard:sit", json!({"id": "c"})).unwrap();
    for _ in 0..2 {
        sim.lose(ana);
        sim.come_back(ana);
    }
    sim.lose(ana);
    sim.disconnect(ana);
    let told = |connections| {
        let away = format!("away ana of {connections}");
        Some(vec![
            away.clone(),
            "back ana".to_owned(),
            away.clone(),
            "back ana".to_owned(),
            away,
            "left ana disconnected".to_owned(),
        ])
    };
    assert_eq!(sim.state("porch:a"), told(1));
    assert_eq!(sim.state("porch:b"), told(0), "it watches, and is not in the room");
    assert_eq!(sim.state("yard:c"), Some(vec!["left ana disconnected".to_owned()]));
}

#[test]
fn join_while_detached_is_followed_by_away() {
    let mut sim = Simulation::<Porch>::new();
    let ana = sim.connect("ana", "Ana");
    // A connection in one of the feature's rooms is known to it, which the timer's join needs.
    sim.join(ana, "porch:c");
    sim.emit_with_ack(ana, "porch:later", json!({"id": "a"})).unwrap();
    sim.lose(ana);
    assert_eq!(sim.state("porch:a"), None);
    sim.advance(Duration::from_secs(5));
    assert_eq!(sim.state("porch:a"), Some(vec!["away ana of 1".to_owned()]));
    // So it is where another feature takes it into the room.
    sim.join(ana, "porch:b");
    assert_eq!(sim.state("porch:b"), Some(vec!["away ana of 1".to_owned()]));
    sim.come_back(ana);
    assert_eq!(sim.state("porch:b").unwrap().last().unwrap(), "back ana");
}

#[test]
fn sending_as_detached_client_panics() {
    let sent = catch_unwind(|| {
        let mut sim = Simulation::<Porch>::new();
        let ana = sim.connect("ana", "Ana");
        sim.lose(ana);
        drop(sim.emit_with_ack(ana, "porch:sit", json!({"id": "a"})));
    });
    let said = *sent.unwrap_err().downcast::<String>().unwrap();
    assert!(said.contains("c1 is away"), "{said}");
}
