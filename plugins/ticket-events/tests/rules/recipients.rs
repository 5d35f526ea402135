//! Who hears of what.

use serde_json::json;

use super::{People, Sim, about_t1, events, heard, tell, with_role};

#[test]
fn of_a_new_ticket_the_admins_hear() {
    let mut sim = Sim::new();
    let people = People::connect(&mut sim);
    assert_eq!(heard(&mut sim, &people, "ticket:created", json!({"creatorId": "ana"})), ["adam", "sue"]);
}

#[test]
fn of_changes_the_creator_and_the_admins_hear() {
    let mut sim = Sim::new();
    let people = People::create(&mut sim);
    for (event, data) in &events()[1..4] {
        assert_eq!(heard(&mut sim, &people, event, data.clone()), ["ana", "adam", "sue"], "{event}");
    }
}

#[test]
fn of_an_urgent_ticket_everybody_hears() {
    for urgent in ["urgent", "Urgent"] {
        let mut sim = Sim::new();
        let people = People::create(&mut sim);
        let data = json!({"oldPriority": null, "newPriority": urgent});
        assert_eq!(
            heard(&mut sim, &people, "ticket:priorityChanged", data),
            ["ana", "bob", "adam", "sue", "eve"],
            "{urgent}"
        );
        // That it no longer is concerns fewer.
        let data = json!({"oldPriority": urgent, "newPriority": "low"});
        assert_eq!(heard(&mut sim, &people, "ticket:priorityChanged", data), ["ana", "adam", "sue"]);
    }
}

#[test]
fn of_comments_and_attachments_those_who_take_part_hear() {
    for (event, data) in &events()[4..] {
        let mut sim = Sim::new();
        let people = People::create(&mut sim);
        assert_eq!(heard(&mut sim, &people, event, data.clone()), ["ana", "bob"], "{event}");
    }
}

#[test]
fn what_the_service_says_goes_on_whole() {
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
fn of_a_ticket_of_which_nothing_is_known_the_admins_hear() {
    for (event, data) in events() {
        let mut sim = Sim::new();
        let people = People::connect(&mut sim);
        let cleo = sim.connect("cleo", "Cleo");
        assert_eq!(heard(&mut sim, &people, event, data), ["adam", "sue"], "{event}");
        assert!(sim.received(cleo).is_empty());
    }
}

#[test]
fn of_an_urgent_ticket_everybody_hears_though_nothing_is_known_of_it() {
    let mut sim = Sim::new();
    let people = People::connect(&mut sim);
    let data = json!({"oldPriority": "low", "newPriority": "urgent"});
    assert_eq!(heard(&mut sim, &people, "ticket:priorityChanged", data), ["ana", "bob", "adam", "sue", "eve"]);
}

#[test]
fn each_hears_once_however_many_reasons_there_are() {
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
fn recipients_are_people_and_each_of_their_tabs_hears() {
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
fn nobody_connected_is_nobody_told() {
    let mut sim = Sim::new();
    for (event, data) in events() {
        assert_eq!(tell(&mut sim, event, about_t1(data)).unwrap(), json!({"recipients": 0}), "{event}");
    }
}

#[test]
fn whoever_caused_it_hears_too_unless_the_operator_spares_them() {
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
fn an_urgent_ticket_spares_its_actor_too() {
    let mut sim = Sim::new().with_settings(json!({"excludeActor": true}));
    let people = People::create(&mut sim);
    let data = json!({"newPriority": "urgent", "updatedBy": {"_id": "adam", "name": "Adam"}});
    assert_eq!(heard(&mut sim, &people, "ticket:priorityChanged", data), ["ana", "bob", "sue", "eve"]);
}

#[test]
fn who_the_admins_are_is_a_setting() {
    let mut sim = Sim::new().with_settings(json!({"adminRoles": ["support_lead"]}));
    let people = People::connect(&mut sim);
    let lead = with_role(&mut sim, "lia", "support_lead");
    assert!(heard(&mut sim, &people, "ticket:created", json!({})).is_empty());
    assert_eq!(sim.received(lead).len(), 1);
}
