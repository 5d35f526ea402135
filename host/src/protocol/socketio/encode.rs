//! Packets to clients, as WebSocket frames.

use bytes::Bytes;

use super::MAIN_NAMESPACE;
use crate::model::Payload;
use crate::protocol::{quoted, websocket};

/// The part of a packet before its JSON, behind the type of an Engine.IO message.
fn head(packet_type: char, attachments: usize, namespace: &str, id: Option<u64>) -> String {
    let mut head = String::with_capacity(namespace.len() + 32);
    head.push('4');
    head.push(packet_type);
    if attachments > 0 {
        head.push_str(&attachments.to_string());
        head.push('-');
    }
    if namespace != MAIN_NAMESPACE {
        head.push_str(namespace);
        head.push(',');
    }
    if let Some(id) = id {
        head.push_str(&id.to_string());
    }
    head
}

/// An event, as WebSocket frames: its text, and each attachment. `id` requests an acknowledgement. `offset` is an
/// additional last argument, which a client returns to resume after this event.
pub fn event_frames(namespace: &str, event: &str, payload: &Payload, id: Option<u64>, offset: Option<&str>) -> Bytes {
    let packet_type = if payload.attachments.is_empty() { '2' } else { '5' };
    let head = head(packet_type, payload.attachments.len(), namespace, id);
    let event = quoted(event);
    let args = payload.args().trim_ascii();
    let args = args.strip_prefix('[').and_then(|args| args.strip_suffix(']')).unwrap_or_default();
    // An empty array may have whitespace between the brackets.
    let comma = |text: &str| if text.trim_ascii().is_empty() { "" } else { "," };
    let offset = offset.map(quoted).unwrap_or_default();
    let text = [&head, "[", &event, comma(args), args, comma(&offset), &offset, "]"];
    websocket::message_frames(&text, &payload.attachments)
}

/// An acknowledgement, as WebSocket frames: its text, and each attachment.
pub fn ack_frames(namespace: &str, id: u64, payload: &Payload) -> Bytes {
    let packet_type = if payload.attachments.is_empty() { '3' } else { '6' };
    let head = head(packet_type, payload.attachments.len(), namespace, Some(id));
    websocket::message_frames(&[&head, payload.args().trim_ascii()], &payload.attachments)
}

/// Confirms the connection to the namespace. `sid` is the public id of the connection, `pid` the secret key to resume.
pub fn connect_frame(namespace: &str, sid: &str, pid: Option<&str>) -> Bytes {
    let pid = pid.map(|pid| format!(",\"pid\":{}", quoted(pid))).unwrap_or_default();
    let head = head('0', 0, namespace, None);
    websocket::message_frames(&[&head, "{\"sid\":", &quoted(sid), &pid, "}"], &[])
}

/// Refuses the connection to the namespace. `data` accompanies the message; null is left out.
pub fn connect_error_frame(namespace: &str, message: &str, data: &serde_json::Value) -> Bytes {
    let data = if data.is_null() { String::new() } else { format!(",\"data\":{data}") };
    let head = head('4', 0, namespace, None);
    websocket::message_frames(&[&head, "{\"message\":", &quoted(message), &data, "}"], &[])
}

/// Disconnects the client from the namespace.
pub fn disconnect_frame(namespace: &str) -> Bytes {
    websocket::message_frames(&[&head('1', 0, namespace, None)], &[])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::websocket::{Content, contents};

    /// The contents of the frames, whose buffer must have no spare byte.
    fn read(frames: &Bytes) -> Vec<String> {
        let contents = contents(frames).map(|content| match content {
            Content::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
            Content::Binary(bytes) => format!("{bytes:?}"),
        });
        contents.collect()
    }

    fn payload(args: &str, attachments: &[&'static [u8]]) -> Payload {
        Payload::from_args(args, attachments.iter().map(|bytes| Bytes::from_static(bytes)).collect()).unwrap()
    }

    #[test]
    fn event_text_precedes_its_attachments() {
        let check = |frames: Bytes, text: &[&str]| assert_eq!(read(&frames), text);
        check(event_frames("/", "a", &payload("[]", &[]), None, None), &[r#"42["a"]"#]);
        check(event_frames("/", "a", &payload(" [ ] ", &[]), Some(0), Some("o")), &[r#"420["a" ,"o"]"#]);
        check(event_frames("/n", "é\"", &payload("[1, {}]", &[]), Some(7), None), &[r#"42/n,7["é\"",1, {}]"#]);
        check(event_frames("/", "a", &payload("[[]]", &[]), None, Some("o")), &[r#"42["a",[],"o"]"#]);
        let args = r#"[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
        check(
            event_frames("/n", "a", &payload(args, &[b"", &[1, 2]]), Some(u64::MAX), Some("o")),
            &[
                r#"452-/n,18446744073709551615["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1},"o"]"#,
                "[]",
                "[1, 2]",
            ],
        );
    }

    #[test]
    fn acknowledgement_text_precedes_its_attachments() {
        assert_eq!(read(&ack_frames("/", 7, &payload("[]", &[]))), ["437[]"]);
        let binary = payload(r#"[{"_placeholder":true,"num":0}]"#, &[b"x"]);
        assert_eq!(read(&ack_frames("/n", 7, &binary)), [r#"461-/n,7[{"_placeholder":true,"num":0}]"#, "[120]"]);
    }

    #[test]
    fn connect_and_disconnect_packets_name_their_namespace() {
        assert_eq!(read(&connect_frame("/", "s", None)), [r#"40{"sid":"s"}"#]);
        assert_eq!(read(&connect_frame("/n", "s", Some("p"))), [r#"40/n,{"sid":"s","pid":"p"}"#]);
        assert_eq!(read(&connect_error_frame("/", "a \"b\"", &Value::Null)), [r#"44{"message":"a \"b\""}"#]);
        assert_eq!(
            read(&connect_error_frame("/n", "no", &json!({"code": 1}))),
            [r#"44/n,{"message":"no","data":{"code":1}}"#]
        );
        assert_eq!(read(&disconnect_frame("/")), ["41"]);
        assert_eq!(read(&disconnect_frame("/n")), ["41/n,"]);
    }
}
