//! The status of messages, which never goes backwards.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Sim, delivered, names, on_account, on_contact, push};

fn update(sim: &mut Sim, message_id: &str, status: &str) -> Value {
    push(sim, "message:status:update", &json!({"contactId": "k1", "messageId": message_id, "status": status}))
}

fn dropped(status: &str) -> Value {
    json!({"delivered": 0, "dropped": true, "status": status})
}

#[test]
fn backward_status_is_dropped_and_reported_to_service() {
    let all = ["Queued", "Sent", "Delivered", "Read", "Failed"];
    for (at, present) in all.iter().enumerate() {
        for (to, next) in all.iter().enumerate() {
            let mut sim = Sim::new();
            let ana = on_contact(&mut sim, "ana");
            update(&mut sim, "m1", present);
            sim.received(ana);
            let reply = update(&mut sim, "m1", next);
            if to < at {
                assert_eq!(reply, dropped(present));
                assert!(names(&mut sim, ana).is_empty());
            } else {
                assert_eq!(reply, delivered(1));
                assert_eq!(names(&mut sim, ana), ["message:status:update"]);
            }
        }
    }
}

#[test]
fn dropped_status_leaves_current_status_unchanged() {
    let mut sim = Sim::new();
    update(&mut sim, "m1", "Delivered");
    update(&mut sim, "m1", "Queued");
    assert_eq!(update(&mut sim, "m1", "Sent"), dropped("Delivered"));
    assert_eq!(update(&mut sim, "m1", "Read"), delivered(0));
}

#[test]
fn message_statuses_are_independent() {
    let mut sim = Sim::new();
    on_contact(&mut sim, "ana");
    update(&mut sim, "m1", "Read");
    assert_eq!(update(&mut sim, "m2", "Queued"), delivered(1));
}

#[test]
fn lowercase_status_is_accepted_and_forwarded_unchanged() {
    let mut sim = Sim::new();
    let ana = on_contact(&mut sim, "ana");
    update(&mut sim, "m1", "read");
    assert_eq!(sim.received(ana)[0].1["status"], "read");
    assert_eq!(update(&mut sim, "m1", "SENT"), dropped("Read"));
}

#[test]
fn events_other_than_status_updates_are_always_forwarded() {
    let mut sim = Sim::new();
    on_contact(&mut sim, "ana");
    update(&mut sim, "m1", "Read");
    assert_eq!(push(&mut sim, "message:sent", &json!({"contactId": "k1", "messageId": "m1"})), delivered(1));
    assert_eq!(push(&mut sim, "message:read", &json!({"contactId": "k1", "messageId": "m2"})), delivered(1));
    assert_eq!(update(&mut sim, "m2", "Sent"), delivered(1));
}

#[test]
fn message_status_is_remembered_for_a_day() {
    let mut sim = Sim::new();
    let ana = on_account(&mut sim, "ana");
    let of = |status: &str| json!({"accountId": "a1", "messageId": "m1", "status": status});
    assert_eq!(push(&mut sim, "message:status:update", &of("Read")), delivered(1));
    sim.advance(Duration::from_secs(23 * 3600));
    assert_eq!(push(&mut sim, "message:status:update", &of("Delivered")), dropped("Read"));
    // The status is kept by message, whichever contact the event names.
    assert_eq!(update(&mut sim, "m1", "Sent"), dropped("Read"));
    assert_eq!(names(&mut sim, ana), ["message:status:update"]);
    sim.advance(Duration::from_secs(25 * 3600));
    assert_eq!(push(&mut sim, "message:status:update", &of("Queued")), delivered(1));
}
