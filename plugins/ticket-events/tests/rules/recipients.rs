//! The recipients of each event.

use serde_json::json;

use super::{People, Sim, about_t1, events, heard, tell, with_role};

#[test]
fn new_ticket_reaches_admins() {
    let mut sim = Sim::new();
    let people = People::connect(&mut sim);
    assert_eq!(heard(&mut sim, &people, "ticket:created", json!({"creatorId": "ana"})), ["adam", "sue"]);
}

#[test]
fn change_reaches_creator_and_admins() {
    let mut sim = Sim::new();
    let people = People::create(&mut sim);
    for (event, data) in &events()[1..4] {
        assert_eq!(heard(&mut sim, &people, event, data.clone()), ["ana", "adam", "sue"], "{event}");
    }
}

#[test]
fn urgent_ticket_reaches_everyone() {
    for urgent in ["urgent", "Urgent"] {
        let mut sim = Sim::new();
        let people = People::create(&mut sim);
        let data = json!({"oldPriority": null, "newPriority": urgent});
        assert_eq!(
            heard(&mut sim, &people, "ticket:priorityChanged", data),
            ["ana", "bob", "adam", "sue", "eve"],
            "{urgent}"
        );
        // A priority that is no longer urgent goes to the participants and admins alone.
        let data = json!({"oldPriority": urgent, "newPriority": "low"});
        assert_eq!(heard(&mut sim, &people, "ticket:priorityChanged", data), ["ana", "adam", "sue"]);
    }
}

#[test]
fn comments_and_attachments_reach_participants() {
    for (event, data) in &events()[4..] {
        let mut sim = Sim::new();
        let people = People::create(&mut sim);
        assert_eq!(heard(&mut sim, &people, event, data.clone()), ["ana", "bob"], "{event}");
    }
}

#[test]
fn service_payload_is_forwarded_unchanged() {
    for (event, data) in events() {
        let mut sim = Sim::new();
        let adam = with_role(&mut sim, "adam", "admin");
        let mut data = about_t1(data);
        data["more"] = json!([{"weight": 0.1}]);
        tell(&mut sim, event, data.clone()).unwrap();
        assert_eq!(sim.received(adam), [(event.to_owned(), data)]);
    }
}

#[test]
fn unknown_ticket_reaches_admins() {
    for (event, data) in events() {
        let mut sim = Sim::new();
        let people = People::connect(&mut sim);
        let cleo = sim.connect("cleo", "Cleo");
        assert_eq!(heard(&mut sim, &people, event, data), ["adam", "sue"], "{event}");
        assert!(sim.received(cleo).is_empty());
    }
}

#[test]
fn unknown_urgent_ticket_reaches_everyone() {
    let mut sim = Sim::new();
    let people = People::connect(&mut sim);
    let data = json!({"oldPriority": "low", "newPriority": "urgent"});
    assert_eq!(heard(&mut sim, &people, "ticket:priorityChanged", data), ["ana", "bob", "adam", "sue", "eve"]);
}

#[test]
fn recipient_with_several_reasons_receives_once() {
    let mut sim = Sim::new();
    let both = sim.connect_as(roundhouse_sdk::Identity {
        user_id: "ana".to_owned(),
        name: None,
        roles: vec!["admin".to_owned(), "super_admin".to_owned()],
        claims: "{}".to_owned(),
    });
    let data = json!({"ticketId": "t1", "creatorId": "ana", "participants": ["ana", "ana"], "assigneeId": "ana"});
    tell(&mut sim, "ticket:created", data).unwrap();
    for (event, data) in &events()[1..] {
        sim.received(both);
        assert_eq!(tell(&mut sim, event, about_t1(data.clone())).unwrap(), json!({"recipients": 1}), "{event}");
        assert_eq!(sim.received(both).len(), 1, "{event}");
    }
}

#[test]
fn every_tab_of_recipient_receives_the_event() {
    let mut sim = Sim::new();
    let people = People::create(&mut sim);
    let tab = sim.connect("ana", "Ana");
    let data = || json!({"ticketId": "t1", "changes": {"title": "It burns"}});
    assert_eq!(tell(&mut sim, "ticket:updated", data()).unwrap(), json!({"recipients": 3}));
    assert_eq!(sim.received(tab).len(), 1);
    sim.disconnect(people.ana_creator);
    assert_eq!(tell(&mut sim, "ticket:updated", data()).unwrap(), json!({"recipients": 3}));
    sim.disconnect(tab);
    assert_eq!(tell(&mut sim, "ticket:updated", data()).unwrap(), json!({"recipients": 2}));
}

#[test]
fn event_without_connected_recipients_reports_zero_recipients() {
    let mut sim = Sim::new();
    for (event, data) in events() {
        assert_eq!(tell(&mut sim, event, about_t1(data)).unwrap(), json!({"recipients": 0}), "{event}");
    }
}

#[test]
fn actor_receives_unless_setting_excludes_actors() {
    for exclude in [false, true] {
        for (event, data) in events() {
            let mut sim = Sim::new().with_settings(json!({"excludeActor": exclude}));
            People::create(&mut sim);
            let tabs = [with_role(&mut sim, "cleo", "admin"), with_role(&mut sim, "cleo", "admin")];
            let mut data = about_t1(data);
            data["participants"] = json!(["cleo"]);
            tell(&mut sim, event, data).unwrap();
            for tab in tabs {
                assert_eq!(sim.received(tab).is_empty(), exclude, "{event}");
            }
        }
    }
}

#[test]
fn urgent_ticket_also_excludes_its_actor() {
    let mut sim = Sim::new().with_settings(json!({"excludeActor": true}));
    let people = People::create(&mut sim);
    let data = json!({"newPriority": "urgent", "updatedBy": {"_id": "adam", "name": "Adam"}});
    assert_eq!(heard(&mut sim, &people, "ticket:priorityChanged", data), ["ana", "bob", "sue", "eve"]);
}

#[test]
fn admin_roles_are_a_setting() {
    let mut sim = Sim::new().with_settings(json!({"adminRoles": ["support_lead"]}));
    let people = People::connect(&mut sim);
    let lead = with_role(&mut sim, "lia", "support_lead");
    assert!(heard(&mut sim, &people, "ticket:created", json!({})).is_empty());
    assert_eq!(sim.received(lead).len(), 1);
}
