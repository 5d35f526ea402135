//! The stats for operators.

use serde_json::json;

use super::{Sim, joined, say, store};

#[test]
fn stats_cover_all_occupied_rooms_and_channels() {
    let mut sim = Sim::new();
    let nothing = json!({"activeRooms": 0, "activeChannels": 0, "connections": 0, "rooms": [], "channels": []});
    assert_eq!(sim.stats().unwrap(), nothing);
    let ana = joined(&mut sim, "ana");
    joined(&mut sim, "ana");
    let bob = joined(&mut sim, "bob");
    for (event, place) in [("joinChannel", "channelId"), ("joinRoom", "roomId"), ("leaveRoom", "roomId")] {
        sim.emit_with_ack(bob, event, json!({place: "x"})).unwrap();
    }
    say(&mut sim, ana, "hi");
    store(&mut sim);
    assert_eq!(
        sim.stats().unwrap(),
        json!({
            "activeRooms": 1,
            "activeChannels": 1,
            "connections": 4,
            "rooms": [{"roomId": "r1", "connectedUsers": 2, "connections": 3}],
            "channels": [{"channelId": "x", "connectedUsers": 1, "connections": 1}],
        })
    );
}
