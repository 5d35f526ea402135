//! The server of the private messaging example in the Socket.IO documentation, as a feature: a client connects with the
//! name that its user has chosen, or with the session that it was given, and else comes back to the form for the name.

use std::collections::BTreeMap;

use roundhouse_sdk::{
    Audiences, Context, Failure, Feature, LeaveReason, Manifest, Member, Scope, Sender, messages, outgoing,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The feature.
#[derive(Debug)]
pub struct PrivateMessaging;

roundhouse_sdk::export!(PrivateMessaging);

/// All sessions.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Sessions {
    by_id: BTreeMap<String, Session>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Session {
    user_id: String,
    username: String,
    connections: Vec<String>,
}

/// What a client connects with.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Auth {
    #[serde(rename = "sessionID")]
    session_id: Option<String>,
    username: Option<String>,
}

messages! {
    /// Messages of clients, and their connections.
    #[derive(Debug)]
    pub enum Message {
        /// A client wants to connect.
        host "connect" => Connect {
            /// The client's `auth`.
            auth: Auth
        },
        /// Sends a message to a user.
        client "private message" => PrivateMessage {
            /// The message.
            content: String,
            /// The user.
            to: String
        },
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionEvent<'a> {
    #[serde(rename = "sessionID")]
    session_id: &'a str,
    #[serde(rename = "userID")]
    user_id: &'a str,
}

#[derive(Serialize)]
struct User<'a> {
    #[serde(rename = "userID")]
    user_id: &'a str,
    username: &'a str,
    connected: bool,
}

#[derive(Serialize)]
struct Users<'a>(Vec<User<'a>>);

#[derive(Serialize)]
struct UserDisconnected<'a>(&'a str);

#[derive(Serialize)]
struct PrivateMessageEvent<'a> {
    content: &'a str,
    from: &'a str,
    to: &'a str,
}

outgoing! {
    const EMITS;
    SessionEvent<'_> => "session",
    Users<'_> => "users",
    User<'_> => "user connected",
    UserDisconnected<'_> => "user disconnected",
    PrivateMessageEvent<'_> => "private message",
}

impl Sessions {
    /// The connections of everybody but one user.
    fn others(&self, user_id: &str) -> Audiences {
        let others = self.by_id.values().filter(|session| session.user_id != user_id);
        Audiences::connections(others.flat_map(|session| session.connections.iter().cloned()))
    }

    fn of_connection(&self, connection: &str) -> Option<(&String, &Session)> {
        self.by_id.iter().find(|(_, session)| session.connections.iter().any(|own| own == connection))
    }
}

impl Feature for PrivateMessaging {
    type Settings = serde_json::Map<String, serde_json::Value>;
    type State = Sessions;
    type Message = Message;

    fn describe() -> Manifest {
        roundhouse_sdk::manifest!().scope(Scope::volatile("private-messaging").takes::<Message>().admits()).emits(EMITS)
    }

    fn message(state: &mut Sessions, cx: &mut Context<Self>, sender: &Sender, message: Message) -> Result<(), Failure> {
        let member = sender.client()?;
        match message {
            Message::Connect { auth } => connect(state, cx, member, auth),
            Message::PrivateMessage { content, to } => {
                let no_session = || Failure::unauthorized("the connection has no session");
                let (_, own) = state.of_connection(&member.connection).ok_or_else(no_session)?;
                let event = PrivateMessageEvent { content: &content, from: &own.user_id, to: &to };
                let theirs =
                    state.by_id.values().filter(|session| session.user_id == to || session.user_id == own.user_id);
                let connections =
                    Audiences::connections(theirs.flat_map(|session| session.connections.iter().cloned()));
                cx.emit(connections, &event).except(member);
                Ok(())
            }
        }
    }

    fn left(
        state: &mut Sessions,
        cx: &mut Context<Self>,
        member: &Member,
        _reason: LeaveReason,
    ) -> Result<(), Failure> {
        for session in state.by_id.values_mut() {
            session.connections.retain(|connection| *connection != member.connection);
        }
        let gone: Vec<_> = state.by_id.values().filter(|session| session.connections.is_empty()).collect();
        for session in gone {
            cx.emit(state.others(&session.user_id), &UserDisconnected(&session.user_id));
        }
        Ok(())
    }
}

/// Admits a client with a known session, or with a name.
fn connect(
    state: &mut Sessions,
    cx: &mut Context<PrivateMessaging>,
    member: &Member,
    auth: Auth,
) -> Result<(), Failure> {
    let known = auth.session_id.filter(|id| state.by_id.contains_key(id));
    let id = match (known, auth.username.filter(|name| !name.trim().is_empty())) {
        (Some(id), _) => id,
        (None, Some(username)) => {
            let (id, user_id) = (format!("{:016x}{:016x}", cx.random(), cx.random()), format!("{:016x}", cx.random()));
            state.by_id.insert(id.clone(), Session { user_id, username, connections: Vec::new() });
            id
        }
        (None, None) => {
            let data = json!({ "content": "Please retry with a name" });
            return Err(Failure::unauthorized("invalid username").with_data(&data));
        }
    };
    let Some(session) = state.by_id.get_mut(&id) else { return Err(Failure::internal("the session is gone")) };
    session.connections.push(member.connection.clone());
    cx.watch(member);
    cx.emit(member, &SessionEvent { session_id: &id, user_id: &session.user_id });
    let users = state.by_id.values().map(|session| User {
        user_id: &session.user_id,
        username: &session.username,
        connected: !session.connections.is_empty(),
    });
    cx.emit(member, &Users(users.collect()));
    let session = &state.by_id[&id];
    let announced = User { user_id: &session.user_id, username: &session.username, connected: true };
    cx.emit(state.others(&session.user_id), &announced);
    Ok(())
}

#[cfg(test)]
mod tests {
    use roundhouse_sdk::Identity;
    use roundhouse_sdk::simulator::{Connection, Simulation};
    use serde_json::Value;

    use super::*;

    fn connect(sim: &mut Simulation<PrivateMessaging>, user: &str, auth: &Value) -> Connection {
        let identity = Identity { user_id: user.to_owned(), name: None, roles: Vec::new(), claims: "{}".to_owned() };
        sim.connect_to("/", identity, auth)
    }

    #[test]
    fn clients_connect_by_name_or_session() {
        let mut sim = Simulation::<PrivateMessaging>::new();
        let ana = connect(&mut sim, "a1", &json!({ "username": "ana" }));
        let heard = sim.received(ana);
        assert_eq!((&*heard[0].0, &*heard[1].0), ("session", "users"));
        let session = heard[0].1["sessionID"].clone();
        sim.disconnect(ana);
        let back = connect(&mut sim, "a2", &json!({ "sessionID": session }));
        assert_eq!(sim.received(back)[0].1["sessionID"], session);
    }

    #[test]
    fn clients_without_name_or_known_session_are_refused() {
        let mut sim = Simulation::<PrivateMessaging>::new();
        for auth in [json!({}), json!({ "username": " " }), json!({ "sessionID": "forged" })] {
            let refused = connect(&mut sim, "eve", &auth);
            let (event, error) = sim.received(refused).remove(0);
            assert_eq!((&*event, &error["message"]), ("connect_error", &json!("invalid username")));
            assert_eq!(error["data"]["content"], "Please retry with a name");
        }
    }

    #[test]
    fn messages_reach_both_users() {
        let mut sim = Simulation::<PrivateMessaging>::new();
        let [ana, ben] = ["ana", "ben"].map(|name| connect(&mut sim, name, &json!({ "username": name })));
        let to = sim.received(ben)[0].1["userID"].clone();
        sim.emit(ana, "private message", json!({ "content": "hello", "to": to }));
        let (event, message) = sim.received(ben).remove(0);
        assert_eq!((&*event, &message["content"]), ("private message", &json!("hello")));
        sim.disconnect(ana);
        assert_eq!(sim.received(ben)[0].0, "user disconnected");
    }
}
