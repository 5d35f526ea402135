//! What is refused, and that nothing comes of it.

use serde_json::{Value, json};

use super::{ROOM, Sim, ana_and_bob, nameless, names, t1, view};

/// A message of Ana's that is refused: nobody hears of it and nothing changes.
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
fn a_payload_that_claims_to_come_from_another_agent_is_forbidden() {
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
fn ones_own_id_may_be_claimed() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    sim.emit_with_ack(ana, "ticket:view", json!({"ticketId": "t1", "agentId": "ana"})).unwrap();
}

#[test]
fn a_payload_without_a_usable_ticket_id_is_a_bad_request_that_names_it() {
    for id in [json!(null), json!(7), json!(""), json!("a b"), json!("x".repeat(129))] {
        let (code, message) = refused(&mut Sim::new(), "ticket:view", json!({"ticketId": id}));
        assert_eq!(code, "bad_request");
        assert!(message.contains("ticketId"), "{message}");
    }
}

#[test]
fn a_name_that_is_none_is_a_bad_request_that_names_it() {
    for name in [json!(7), json!(""), json!("x".repeat(129)), json!("a\u{0}b")] {
        let data = json!({"ticketId": "t1", "agentName": name});
        let (code, message) = refused(&mut Sim::new(), "ticket:view", data);
        assert_eq!(code, "bad_request");
        assert!(message.contains("agentName"), "{message}");
    }
}

#[test]
fn a_refusal_is_an_error_event_where_no_acknowledgement_was_asked_for() {
    let mut sim = Sim::new();
    let ana = sim.connect("ana", "Ana");
    sim.emit(ana, "ticket:typing", t1());
    let (name, error) = sim.received(ana).remove(0);
    assert_eq!(name, "error");
    assert_eq!(error["code"], "conflict");
    assert_eq!(error["event"], "ticket:typing");
}

#[test]
fn clients_cannot_send_what_the_server_sends() {
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
fn wrong_settings_are_named() {
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
fn a_full_ticket_lets_nobody_else_in() {
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
fn a_full_ticket_stays_within_the_hosts_limit_on_state_though_all_type() {
    let mut sim = Sim::new();
    // As long as names and ids may be; the simulator panics where the state grows too large.
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
fn an_agent_has_a_bounded_number_of_tabs() {
    let mut sim = Sim::new();
    for _ in 0..16 {
        let tab = sim.connect("ana", "Ana");
        view(&mut sim, tab);
    }
    let tab = sim.connect("ana", "Ana");
    assert_eq!(sim.emit_with_ack(tab, "ticket:view", t1()).unwrap_err().code, "conflict");
}
