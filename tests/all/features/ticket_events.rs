//! ticket-events over real sockets: its section of the contract once. Each rule has a native test too.

use roundhouse_tests::{TestClient, TestHost};
use serde_json::{Value, json};

/// Connected users of each kind.
struct Team {
    admin: TestClient,
    super_admin: TestClient,
    cleo: TestClient,
    /// Cleo's second tab.
    cleos_tab: TestClient,
    ana: TestClient,
    ben: TestClient,
    eve: TestClient,
}

/// The clients' names, in the order of [`Team::received`].
const TEAM: [&str; 7] = ["admin", "super_admin", "cleo", "cleos_tab", "ana", "ben", "eve"];

impl Team {
    async fn of(host: &TestHost) -> Self {
        Self {
            admin: host.client_with("root", &["--role", "admin"]).await,
            super_admin: host.client_with("sue", &["--role", "super_admin", "--role", "admin"]).await,
            cleo: host.client("cleo").await,
            cleos_tab: host.client("cleo").await,
            ana: host.client_with("ana", &["--role", "agent"]).await,
            ben: host.client("ben").await,
            eve: host.client("eve").await,
        }
    }

    /// The clients that have received exactly this event, once. The others have received nothing.
    async fn received(&mut self, host: &TestHost, frame: &Value) -> Vec<&'static str> {
        let Self { admin, super_admin, cleo, cleos_tab, ana, ben, eve } = self;
        let all_received = host.received([admin, super_admin, cleo, cleos_tab, ana, ben, eve]).await;
        for frames in &all_received {
            assert!(frames.is_empty() || frames[..] == [frame.clone()], "{frames:?} instead of {frame}");
        }
        TEAM.into_iter().zip(all_received).filter(|(_, frames)| !frames.is_empty()).map(|(name, _)| name).collect()
    }
}

/// Sends events of `t1`, and checks the recipients of each and their number in the answer.
async fn check(host: &TestHost, team: &mut Team, events: &[(&str, Value, &[&str], u32)]) {
    for (event, data, who, recipients) in events {
        let mut data = data.clone();
        data["ticketId"] = json!("t1");
        assert_eq!(
            host.post_event(event, data.clone()).await,
            Ok(json!({ "recipients": recipients })),
            "{event} {data}"
        );
        assert_eq!(team.received(host, &json!({ "event": event, "data": data })).await, *who, "{event} {data}");
    }
}

const ADMINS: &[&str] = &["admin", "super_admin"];
const ADMINS_AND_CREATOR: &[&str] = &["admin", "super_admin", "cleo", "cleos_tab"];
const PARTICIPANTS: &[&str] = &["admin", "cleo", "cleos_tab", "ana", "ben"];

#[tokio::test]
async fn each_event_reaches_its_recipients_once() {
    let host = TestHost::start();
    let mut team = Team::of(&host).await;
    let comment = |user: &str| json!({ "comment": { "id": "c", "text": "hm", "user": { "id": user, "name": "N" } } });
    check(
        &host,
        &mut team,
        &[
            // This ticket has no known participants.
            ("ticket:updated", json!({ "changes": { "title": "x" }, "updatedBy": "eve" }), ADMINS, 2),
            ("ticket:created", json!({ "title": "It burns", "createdBy": { "id": "cleo" } }), ADMINS, 2),
            (
                "ticket:updated",
                json!({ "changes": { "assigneeId": "ana" }, "updatedBy": "root" }),
                ADMINS_AND_CREATOR,
                3,
            ),
            (
                "ticket:statusChanged",
                json!({ "oldStatus": "open", "newStatus": "closed", "updatedBy": "ana" }),
                ADMINS_AND_CREATOR,
                3,
            ),
            (
                "ticket:priorityChanged",
                json!({ "oldPriority": "low", "newPriority": "high", "updatedBy": "ana" }),
                ADMINS_AND_CREATOR,
                3,
            ),
            (
                "ticket:priorityChanged",
                json!({ "oldPriority": "high", "newPriority": "urgent", "updatedBy": "ana" }),
                &TEAM,
                6,
            ),
            ("ticket:commentAdded", comment("ana"), &["cleo", "cleos_tab", "ana"], 2),
            ("ticket:commentAdded", comment("root"), &["admin", "cleo", "cleos_tab", "ana"], 3),
            ("ticket:attachmentAdded", json!({ "attachment": { "id": "a1" }, "uploadedBy": "ben" }), PARTICIPANTS, 4),
            ("ticket:attachmentDeleted", json!({ "attachmentId": "a1", "deletedBy": "eve" }), PARTICIPANTS, 4),
            // Ids in the payload set the creator and add participants. An admin who is also the creator gets the event
            // once.
            ("ticket:updated", json!({ "changes": {}, "creatorId": "root" }), ADMINS, 2),
            (
                "ticket:commentAdded",
                json!({ "comment": {}, "participants": ["eve"] }),
                &["admin", "ana", "ben", "eve"],
                4,
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn refused_events_reach_and_record_nothing() {
    let host = TestHost::start();
    let mut team = Team::of(&host).await;
    let on_t1 = |more: Value| {
        let mut data = json!({ "ticketId": "t1" });
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        data
    };
    for event in ["ticket:created", "ticket:updated", "ticket:statusChanged", "ticket:priorityChanged"] {
        assert_eq!(team.eve.emit_refused(event, on_t1(json!({ "creatorId": "eve" }))).await, "forbidden");
    }
    for event in ["ticket:commentAdded", "ticket:attachmentAdded", "ticket:attachmentDeleted"] {
        assert_eq!(team.eve.emit_refused(event, on_t1(json!({ "participants": ["eve"] }))).await, "forbidden");
    }
    assert_eq!(host.post_event_refused("ticket:created", json!({ "creatorId": "eve" })).await, "bad_request");
    assert_eq!(
        host.post_event_refused("ticket:statusChanged", on_t1(json!({ "creatorId": "eve" }))).await,
        "bad_request"
    );
    let too_many: Vec<String> = (0..1000).map(|n| format!("{n:0100}")).collect();
    let crowd = on_t1(json!({ "comment": {}, "participants": too_many }));
    assert_eq!(host.post_event_refused("ticket:commentAdded", crowd).await, "too_large");
    check(&host, &mut team, &[("ticket:updated", json!({ "changes": {} }), ADMINS, 2)]).await;
}

#[tokio::test]
async fn exclude_actor_and_admin_roles_are_settings() {
    let config =
        "auth.jwt.secret = \"s\"\n[plugins.ticket-events.settings]\nexcludeActor = true\nadminRoles = [\"agent\"]";
    let host = TestHost::start_with(config, &[]);
    let mut team = Team::of(&host).await;
    check(
        &host,
        &mut team,
        &[
            ("ticket:created", json!({ "createdBy": "cleo" }), &["ana"], 1),
            ("ticket:statusChanged", json!({ "newStatus": "closed", "updatedBy": "cleo" }), &["ana"], 1),
            ("ticket:statusChanged", json!({ "newStatus": "open", "updatedBy": "ana" }), &["cleo", "cleos_tab"], 1),
        ],
    )
    .await;
}

#[tokio::test]
async fn participants_survive_shutdown_and_kill() {
    let mut host = TestHost::start();
    host.post_event("ticket:created", json!({ "ticketId": "t1", "createdBy": "cleo", "assigneeId": "ana" }))
        .await
        .unwrap();
    host.terminate();
    assert!(host.wait_for_exit().success());
    host.restart();
    let ben_comments = json!({ "ticketId": "t1", "comment": { "userId": "ben" } });
    host.post_event("ticket:commentAdded", ben_comments).await.expect("it is on disk when it is answered");
    host.kill();
    host.restart();
    let mut team = Team::of(&host).await;
    check(
        &host,
        &mut team,
        &[
            ("ticket:attachmentDeleted", json!({ "attachmentId": "a" }), &["cleo", "cleos_tab", "ana", "ben"], 3),
            ("ticket:updated", json!({ "changes": {} }), ADMINS_AND_CREATOR, 3),
        ],
    )
    .await;
}
