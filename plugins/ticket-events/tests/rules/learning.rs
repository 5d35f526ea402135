//! The participants that the feature learns from a ticket's events.

use std::time::Duration;

use roundhouse_sdk::simulator::Connection;
use serde_json::{Value, json};

use super::{People, SCOPE, Sim, heard, tell};

/// Whether Cleo is a participant after these events of the ticket: she receives a comment without an author.
fn cleo_takes_part(messages: &[(&str, Value)]) -> bool {
    let mut sim = Sim::new();
    let people = People::create(&mut sim);
    let cleo = sim.connect("cleo", "Cleo");
    for (event, data) in messages {
        heard(&mut sim, &people, event, data.clone());
    }
    hears_comments(&mut sim, cleo)
}

fn hears_comments(sim: &mut Sim, who: Connection) -> bool {
    sim.received(who);
    tell(sim, "ticket:commentAdded", json!({"ticketId": "t1", "comment": {}})).unwrap();
    !sim.received(who).is_empty()
}

#[test]
fn creators_assignees_commenters_and_uploaders_become_participants() {
    for (event, data) in [
        ("ticket:created", json!({"creatorId": "cleo"})),
        ("ticket:created", json!({"createdBy": "cleo"})),
        ("ticket:created", json!({"createdBy": {"_id": "cleo", "name": "Cleo"}})),
        ("ticket:created", json!({"creator": {"id": "cleo"}})),
        ("ticket:created", json!({"creatorId": "ana", "assigneeId": "cleo"})),
        ("ticket:created", json!({"assignedTo": {"userId": "cleo"}})),
        ("ticket:created", json!({"assignee": {"id": "cleo"}})),
        ("ticket:updated", json!({"changes": {"assignedTo": "cleo"}})),
        ("ticket:updated", json!({"changes": {"assignee": {"_id": "cleo"}}})),
        ("ticket:commentAdded", json!({"comment": {"user": {"id": "cleo"}}})),
        ("ticket:commentAdded", json!({"comment": {"userId": "cleo"}})),
        ("ticket:commentAdded", json!({"comment": {"author": "cleo"}})),
        ("ticket:attachmentAdded", json!({"attachment": {}, "uploadedBy": "cleo"})),
        ("ticket:attachmentAdded", json!({"attachment": {}, "uploadedBy": {"id": "cleo"}})),
        ("ticket:attachmentAdded", json!({"attachment": {"uploadedBy": {"id": "cleo"}}})),
    ] {
        assert!(cleo_takes_part(&[(event, data.clone())]), "{event} {data}");
    }
}

#[test]
fn editing_or_deleting_does_not_make_a_participant() {
    for (event, data) in [
        ("ticket:updated", json!({"changes": {"title": "It burns"}, "updatedBy": "cleo"})),
        ("ticket:statusChanged", json!({"newStatus": "closed", "updatedBy": "cleo"})),
        ("ticket:priorityChanged", json!({"newPriority": "low", "updatedBy": "cleo"})),
        ("ticket:attachmentDeleted", json!({"attachmentId": "f1", "deletedBy": "cleo"})),
        ("ticket:commentAdded", json!({"comment": {"user": "Cleo Smith"}})),
        ("ticket:commentAdded", json!({"comment": {"user": {"name": "cleo"}}})),
        ("ticket:created", json!({"assignee": null, "assignedTo": 7})),
    ] {
        assert!(!cleo_takes_part(&[(event, data.clone())]), "{event} {data}");
    }
}

#[test]
fn any_payload_may_name_creator_and_participants() {
    for (event, data) in super::events() {
        let mut sim = Sim::new();
        People::connect(&mut sim);
        let (cleo, dora) = (sim.connect("cleo", "Cleo"), sim.connect("dora", "Dora"));
        let mut data = super::about_t1(data);
        data["creatorId"] = json!("cleo");
        data["participants"] = json!([{"id": "dora", "name": "Dora"}, "frank"]);
        tell(&mut sim, event, data).unwrap();
        assert!(hears_comments(&mut sim, cleo), "{event}");
        assert!(hears_comments(&mut sim, dora), "{event}");
    }
}

#[test]
fn named_participants_receive_the_event_naming_them() {
    let mut sim = Sim::new();
    let people = People::connect(&mut sim);
    let comment = |more: Value| {
        let mut data = json!({"comment": {"user": {"id": "bob"}}});
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        data
    };
    assert_eq!(heard(&mut sim, &people, "ticket:commentAdded", comment(json!({"creatorId": "ana"}))), ["ana", "bob"]);
    let eves = comment(json!({"participants": ["eve"]}));
    assert_eq!(heard(&mut sim, &people, "ticket:commentAdded", eves), ["ana", "bob", "eve"]);
}

#[test]
fn participant_list_makes_ticket_known_unless_empty() {
    let mut sim = Sim::new();
    let people = People::connect(&mut sim);
    let named = |ids: Value| json!({"comment": {"user": {"id": "bob"}}, "participants": ids});
    assert_eq!(heard(&mut sim, &people, "ticket:commentAdded", named(json!([]))), ["adam", "sue"]);
    let mut sim = Sim::new();
    let people = People::connect(&mut sim);
    assert_eq!(heard(&mut sim, &people, "ticket:commentAdded", named(json!(["eve"]))), ["bob", "eve"]);
}

#[test]
fn commenter_on_unknown_ticket_gets_next_comment() {
    let mut sim = Sim::new();
    let people = People::connect(&mut sim);
    let comment = || json!({"comment": {"user": {"id": "bob"}}});
    assert_eq!(heard(&mut sim, &people, "ticket:commentAdded", comment()), ["adam", "sue"]);
    assert_eq!(heard(&mut sim, &people, "ticket:commentAdded", comment()), ["bob"]);
}

#[test]
fn new_creator_replaces_the_old() {
    let mut sim = Sim::new();
    let people = People::create(&mut sim);
    let data = json!({"changes": {"title": "It burns"}, "creatorId": "eve"});
    assert_eq!(heard(&mut sim, &people, "ticket:updated", data), ["adam", "sue", "eve"]);
    // The creator is not kept a second time as a participant.
    heard(&mut sim, &people, "ticket:commentAdded", json!({"comment": {"userId": "eve"}}));
    let data = json!({"changes": {}, "creatorId": "ana"});
    assert_eq!(heard(&mut sim, &people, "ticket:updated", data), ["ana", "adam", "sue"]);
}

#[test]
fn participants_survive_host_restart() {
    let mut sim = Sim::new();
    People::create(&mut sim);
    sim.restart();
    let people = People::connect(&mut sim);
    assert_eq!(heard(&mut sim, &people, "ticket:commentAdded", json!({"comment": {}})), ["ana", "bob"]);
    assert_eq!(heard(&mut sim, &people, "ticket:updated", json!({"changes": {}})), ["ana", "adam", "sue"]);
}

#[test]
fn tickets_are_independent() {
    let mut sim = Sim::new();
    let people = People::create(&mut sim);
    tell(&mut sim, "ticket:commentAdded", json!({"ticketId": "t2", "comment": {"userId": "eve"}})).unwrap();
    assert_eq!(people.who_heard(&mut sim), ["adam", "sue"]);
    assert_eq!(heard(&mut sim, &people, "ticket:commentAdded", json!({"comment": {}})), ["ana", "bob"]);
}

#[test]
fn ticket_is_forgotten_after_an_idle_month() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let mut sim = Sim::new();
    People::create(&mut sim);
    sim.advance(29 * DAY);
    assert!(sim.exists(SCOPE));
    sim.advance(DAY);
    assert!(!sim.exists(SCOPE));
}

#[test]
fn least_recently_active_participants_are_evicted() {
    let mut sim = Sim::new();
    let (ana, bob) = (sim.connect("ana", "Ana"), sim.connect("bob", "Bob"));
    let first = sim.connect("first", "First");
    let comment = |sim: &mut Sim, user_id: &str| {
        let data = json!({"ticketId": "t1", "comment": {"userId": user_id}});
        tell(sim, "ticket:commentAdded", data).unwrap();
    };
    tell(&mut sim, "ticket:created", json!({"ticketId": "t1", "creatorId": "ana"})).unwrap();
    comment(&mut sim, "bob");
    comment(&mut sim, "first");
    // Ids of the greatest length, each character escaped; the simulator panics if the state exceeds its limit.
    for n in 0..100 {
        comment(&mut sim, &format!("{n:\"<128}"));
    }
    comment(&mut sim, "bob");
    for n in 100..140 {
        comment(&mut sim, &format!("{n:\"<128}"));
    }
    assert!(hears_comments(&mut sim, ana));
    assert!(hears_comments(&mut sim, bob));
    assert!(!hears_comments(&mut sim, first));
}

#[test]
fn largest_payload_to_most_recipients_fits_effects_limit() {
    let mut sim = Sim::new();
    let ids: Vec<String> = (0..63).map(|n| format!("{n:𝄞>128}")).collect();
    let last = sim.connect(&ids[62], "Last");
    tell(&mut sim, "ticket:created", json!({"ticketId": "t1", "creatorId": "𝄞".repeat(128), "participants": ids}))
        .unwrap();
    // The simulator panics if the effects exceed their limit.
    let data = json!({"ticketId": "t1", "comment": {"body": "x".repeat(999_900)}});
    assert_eq!(tell(&mut sim, "ticket:commentAdded", data).unwrap(), json!({"recipients": 1}));
    assert_eq!(sim.received(last).len(), 1);
}
