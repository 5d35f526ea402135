//! Refused messages, which change and emit nothing.

use serde_json::{Value, json};

use super::{ROOM, Sim, ana_and_bob, nameless, names, t1, view};

/// Sends a message of Ana's that is refused: nothing is emitted or changed. Returns the code and message of the error.
fn refused(sim: &mut Sim, event: &str, data: Value) -> (String, String) {
    let (ana, bob) = ana_and_bob(sim);
    let before = format!("{:?}", sim.state(ROOM));
    let failure = sim.emit_with_ack(ana, event, data).unwrap_err();
    assert!(names(sim, ana).is_empty());
    assert!(names(sim, bob).is_empty());
    assert_eq!(format!("{:?}", sim.state(ROOM)), before);
    (failure.code, failure.message)
}

#[test]
fn foreign_sender_id_is_forbidden() {
    for event in ["ticket:view", "ticket:typing", "ticket:stop_typing", "ticket:leave"] {
        for field in ["agentId", "userId", "senderId"] {
            for bob in [json!("bob"), json!({"_id": "bob"}), json!({"id": "bob"})] {
                let claim = json!({"ticketId": "t1", field: bob});
                assert_eq!(refused(&mut Sim::new(), event, claim).0, "forbidden");
            }
        }
    }
}

#[test]
fn own_sender_id_is_accepted() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    sim.emit_with_ack(ana, "ticket:view", json!({"ticketId": "t1", "agentId": "ana"})).unwrap();
}

#[test]
fn invalid_ticket_id_is_bad_request() {
    for id in [json!(null), json!(7), json!(""), json!("a b"), json!("x".repeat(129))] {
        let (code, message) = refused(&mut Sim::new(), "ticket:view", json!({"ticketId": id}));
        assert_eq!(code, "bad_request");
        assert!(message.contains("ticketId"), "{message}");
    }
}

#[test]
fn invalid_name_is_bad_request() {
    for name in [json!(7), json!(""), json!("x".repeat(129)), json!("a\u{0}b")] {
        let data = json!({"ticketId": "t1", "agentName": name});
        let (code, message) = refused(&mut Sim::new(), "ticket:view", data);
        assert_eq!(code, "bad_request");
        assert!(message.contains("agentName"), "{message}");
    }
}

#[test]
fn refusal_without_acknowledgement_is_an_error_event() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    sim.emit(ana, "ticket:typing", t1());
    let (name, error) = sim.received(ana).remove(0);
    assert_eq!(name, "error");
    assert_eq!(error["code"], "conflict");
    assert_eq!(error["event"], "ticket:typing");
}

#[test]
fn clients_cannot_send_server_events() {
    for event in ["viewers:updated", "agent:joined", "collision:warning"] {
        assert_eq!(refused(&mut Sim::new(), event, t1()).0, "unknown_event");
    }
}

#[test]
fn services_cannot_view_tickets() {
    let mut sim = Sim::new();
    assert_eq!(sim.service("billing", "ticket:view", t1()).unwrap_err().code, "forbidden");
}

#[test]
fn invalid_settings_are_named() {
    for (settings, named) in [
        (json!({"typingSecond": 3}), "typingSecond"),
        (json!({"typingSeconds": 0}), "typingSeconds"),
        (json!({"staleMinutes": "30"}), "staleMinutes"),
    ] {
        let mut sim = Sim::new().with_settings(settings);
        let ana = sim.connect("ana", "Ana");
        let failure = sim.emit_with_ack(ana, "ticket:view", t1()).unwrap_err();
        assert_eq!(failure.code, "feature_unavailable");
        assert!(failure.message.contains(named), "{failure}");
    }
}

#[test]
fn full_ticket_refuses_another_agent() {
    let mut sim = Sim::new();
    let mut n_let_in = 0;
    let failure = loop {
        let agent = sim.connect(&format!("agent-{n_let_in}"), "An Agent");
        match sim.emit_with_ack(agent, "ticket:view", t1()) {
            Ok(_) => n_let_in += 1,
            Err(failure) => break failure,
        }
    };
    assert_eq!((n_let_in, failure.code.as_str()), (250, "conflict"));
}

#[test]
fn full_typing_ticket_fits_state_limit() {
    let mut sim = Sim::new();
    // Names and ids of the greatest length; the simulator panics if the state exceeds its limit.
    let mut agents = Vec::new();
    loop {
        let n = agents.len();
        let agent = sim.connect_as(nameless(&format!("{n:0>128}")));
        let data = json!({"ticketId": "t1", "agentName": "é".repeat(128)});
        match sim.emit_with_ack(agent, "ticket:view", data) {
            Ok(_) => agents.push(agent),
            Err(failure) => break assert_eq!(failure.code, "conflict"),
        }
    }
    for agent in agents {
        sim.emit_with_ack(agent, "ticket:typing", t1()).unwrap();
    }
}

#[test]
fn tabs_per_agent_are_bounded() {
    let mut sim = Sim::new();
    for _ in 0..16 {
        let tab = sim.connect("ana", "Ana");
        view(&mut sim, tab);
    }
    let tab = sim.connect("ana", "Ana");
    assert_eq!(sim.emit_with_ack(tab, "ticket:view", t1()).unwrap_err().code, "conflict");
}
