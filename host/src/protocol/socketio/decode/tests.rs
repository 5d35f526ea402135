//! Each rule of the protocol on literal packets.

use super::*;

const MAX_BYTES: usize = 1000;

/// A short form of a packet without attachments.
fn read(text: &str) -> String {
    match Decoder::default().text(text, MAX_BYTES) {
        Ok(Some(packet)) => short(&packet),
        other => panic!("{text}: {other:?}"),
    }
}

fn short(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Connect { namespace, auth } => {
            format!("connect {namespace} {:?}", auth.as_deref().map(RawValue::get))
        }
        Packet::Disconnect { namespace } => format!("disconnect {namespace}"),
        Packet::Event { namespace, event, payload, id } => {
            format!("event {namespace} {event} {} {:?} {id:?}", payload.args(), payload.attachments)
        }
        Packet::Overfull { namespace, event, id } => format!("overfull {namespace} {event:?} {id:?}"),
        Packet::Ack { namespace, id, payload } => {
            format!("ack {namespace} {} {:?} {id}", payload.args(), payload.attachments)
        }
    }
}

fn refused(text: &str) -> &'static str {
    Decoder::default().text(text, MAX_BYTES).expect_err(text).reason
}

#[test]
fn packets_are_decoded_in_any_namespace() {
    for (text, packet) in [
        ("0", "connect / None"),
        (r#"0{"token":"x"}"#, r#"connect / Some("{\"token\":\"x\"}")"#),
        (r#"0/admin,{"sid":"1"}"#, r#"connect /admin Some("{\"sid\":\"1\"}")"#),
        ("0/admin,", "connect /admin None"),
        ("0/admin", "connect /admin None"),
        ("0/admin?token=1&uid=2,{}", r#"connect /admin Some("{}")"#),
        ("0/?token=1", "connect / None"),
        ("1", "disconnect /"),
        ("1/admin,", "disconnect /admin"),
        (r#"2["hello",1]"#, "event / hello [1] [] None"),
        (r#"2/admin,456["hello",{"a":[]}]"#, r#"event /admin hello [{"a":[]}] [] Some(456)"#),
        ("3456[]", "ack / [] [] 456"),
        ("3/admin,18446744073709551615[1, 2]", "ack /admin [1, 2] [] 18446744073709551615"),
    ] {
        assert_eq!(read(text), packet, "{text}");
    }
}

#[test]
fn event_arguments_follow_the_name_verbatim() {
    for (json, name, args) in [
        (r#"["a"]"#, "a", "[]"),
        (r#"[ "a" ]"#, "a", "[]"),
        (r#"["a" , {"x" : 1.50} ,2 ] "#, "a", r#"[ {"x" : 1.50} ,2 ]"#),
        (r#"["a\"b\u00e9","]"]"#, "a\"bé", r#"["]"]"#),
        (r#"["",null]"#, "", "[null]"),
        (r#"["é",1e999]"#, "é", "[1e999]"),
        ("[7,8]", "7", "[8]"),
        ("[-1.5]", "-1.5", "[]"),
        (r#"["a",{"_placeholder":true,"num":5}]"#, "a", r#"[{"_placeholder":true,"num":5}]"#),
    ] {
        assert_eq!(read(&format!("2{json}")), format!("event / {name} {args} [] None"), "{json}");
    }
    let long = "x".repeat(500);
    assert_eq!(read(&format!(r#"2["{long}"]"#)), format!("event / {long} [] [] None"));
}

#[test]
fn attachments_over_the_limit_are_skipped() {
    let mut decoder = Decoder::default();
    for (text, packet) in [
        (r#"511-/n,7["a",{"_placeholder":true,"num":0}]"#, r#"overfull /n Some("a") Some(7)"#),
        (r#"611-7[{"_placeholder":true,"num":0}]"#, "overfull / None None"),
    ] {
        assert_eq!(short(&decoder.text(text, MAX_BYTES).unwrap().unwrap()), packet);
        for _ in 0..11 {
            assert!(decoder.binary(b"x".into()).unwrap().is_none());
        }
        assert_eq!(short(&decoder.text("1", MAX_BYTES).unwrap().unwrap()), "disconnect /");
        assert!(decoder.binary(b"x".into()).unwrap_err().reason.contains("no packet waits for"));
    }
    decoder.text(r#"511-["a"]"#, MAX_BYTES).unwrap();
    assert!(decoder.text("1", MAX_BYTES).unwrap_err().reason.contains("an attachment was to come"));
}

#[test]
fn packet_waits_for_its_attachments() {
    let mut decoder = Decoder::default();
    let text = r#"52-/admin,7["a",{"_placeholder":true,"num":1},{"x":{"num":0,"_placeholder":true}}]"#;
    assert!(decoder.text(text, MAX_BYTES).unwrap().is_none());
    assert!(decoder.binary(b"zero".into()).unwrap().is_none());
    let packet = decoder.binary(vec![1].into()).unwrap().unwrap();
    let args = r#"[{"_placeholder":true,"num":1},{"x":{"num":0,"_placeholder":true}}]"#;
    assert_eq!(short(&packet), format!(r#"event /admin a {args} [b"zero", b"\x01"] Some(7)"#));
    assert!(decoder.text(r#"61-9[{"_placeholder":true,"num":0}]"#, MAX_BYTES).unwrap().is_none());
    let packet = decoder.binary(b"".into()).unwrap().unwrap();
    assert_eq!(short(&packet), r#"ack / [{"_placeholder":true,"num":0}] [b""] 9"#);
    assert_eq!(short(&decoder.text("1", MAX_BYTES).unwrap().unwrap()), "disconnect /");
}

#[test]
fn malformed_packets_are_refused() {
    for (text, reason) in [
        ("", "is empty"),
        ("7", "a digit from 0 to 6"),
        ("é", "a digit from 0 to 6"),
        ("abc", "a digit from 0 to 6"),
        (r#"4{"message":"x"}"#, "no connect errors"),
        ("0[]", "a JSON object or nothing"),
        (r#"0"x""#, "a JSON object or nothing"),
        ("0null", "a JSON object or nothing"),
        ("0{", "a JSON object or nothing"),
        ("0{}x", "a JSON object or nothing"),
        ("05{}", "a JSON object or nothing"),
        ("0/admin,x", "a JSON object or nothing"),
        ("0/a\x1e4b", "no control characters"),
        ("1{}", "carries nothing"),
        ("11", "carries nothing"),
        ("1/admin,[]", "carries nothing"),
        ("2", "an event is a JSON array"),
        ("2/admin", "an event is a JSON array"),
        ("2{}", "an event is a JSON array"),
        ("2[]", "an event is a JSON array"),
        ("2[null]", "an event is a JSON array"),
        ("2[true]", "an event is a JSON array"),
        ("2[{}]", "an event is a JSON array"),
        (r#"2[["a"]]"#, "an event is a JSON array"),
        (r#"2["a""#, "an event is a JSON array"),
        (r#"2["a",]"#, "an event is a JSON array"),
        (r#"2["a" 1]"#, "an event is a JSON array"),
        (r#"2["a"]x"#, "an event is a JSON array"),
        (r#"2["\ud800"]"#, "an event is a JSON array"),
        (r#"2 ["a"]"#, "an event is a JSON array"),
        (r#"2-1["a"]"#, "an event is a JSON array"),
        (r#"21.5["a"]"#, "an event is a JSON array"),
        (r#"218446744073709551616["a"]"#, "at most 64 bits"),
        ("3[]", "has an id"),
        ("3abc[]", "has an id"),
        ("3/admin,[]", "has an id"),
        ("399999999999999999999[]", "at most 64 bits"),
        ("31", "is a JSON array"),
        ("31{}", "is a JSON array"),
        ("31[", "is a JSON array"),
        ("31[]]", "is a JSON array"),
        (r#"5["a"]"#, "and then -"),
        (r#"51["a",{"_placeholder":true,"num":0}]"#, "and then -"),
        (r#"5-["a"]"#, "and not thousands"),
        (r#"50-["a"]"#, "and not thousands"),
        (r#"5+1-["a",{"_placeholder":true,"num":0}]"#, "and not thousands"),
        (r#"5a1-["a",{"_placeholder":true,"num":0}]"#, "and not thousands"),
        (r#"51.0-["a",{"_placeholder":true,"num":0}]"#, "and not thousands"),
        (r#"51001-["a"]"#, "and not thousands"),
        (r#"599999999999999999999-["a"]"#, "and not thousands"),
        (r#"51-["a"]"#, "one placeholder"),
        (r#"51-["a",{"_placeholder":true,"num":1}]"#, "one placeholder"),
        (r#"51-["a",{"_placeholder":true,"num":-1}]"#, "one placeholder"),
        (r#"51-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#, "one placeholder"),
        (r#"52-["a",{"_placeholder":true,"num":0}]"#, "one placeholder"),
        ("61-1[]", "one placeholder"),
        ("61-[]", "has an id"),
    ] {
        assert!(refused(text).contains(reason), "{text}: {}", refused(text));
    }
}

#[test]
fn reserved_event_names_are_refused() {
    for name in RESERVED_EVENTS {
        assert!(refused(&format!(r#"2["{name}"]"#)).contains("keeps for itself"), "{name}");
    }
    assert!(refused(r#"2["\u0063onnect"]"#).contains("keeps for itself"));
}

#[test]
fn text_and_attachments_out_of_order_are_refused() {
    let waits = r#"52-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    let mut decoder = Decoder::default();
    assert!(decoder.binary(b"x".into()).unwrap_err().reason.contains("that no packet waits for"));
    assert!(decoder.text(waits, MAX_BYTES).unwrap().is_none());
    assert!(decoder.binary(b"x".into()).unwrap().is_none());
    assert!(decoder.text("1", MAX_BYTES).unwrap_err().reason.contains("an attachment was to come"));
    assert!(decoder.binary(b"x".into()).is_err(), "nothing is left of what was broken off");
}

#[test]
fn packet_and_attachments_are_bounded() {
    let text = r#"52-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    for (length, is_good) in [(text.len(), true), (text.len() + 1, false)] {
        let mut decoder = Decoder::default();
        assert!(decoder.text(text, text.len()).unwrap().is_none());
        assert!(decoder.binary(vec![0; text.len()].into()).unwrap().is_none());
        assert_eq!(decoder.binary(vec![0; length].into()).is_ok(), is_good);
    }
    assert!(Decoder::default().text(text, text.len() - 1).unwrap_err().reason.contains("over the size limit"));
}

#[test]
fn refused_packets_skip_their_attachments() {
    let event = r#"52-/a,7["x",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    for unread in [false, true] {
        let mut decoder = Decoder::default();
        if unread {
            decoder.skip(event).unwrap();
        } else {
            let refused = decoder.refuse(event, MAX_BYTES).unwrap();
            assert!(matches!(&refused, Packet::Event { event, id: Some(7), .. } if event == "x"), "{refused:?}");
        }
        for left in [true, false] {
            assert!(decoder.binary(Cow::Borrowed(&[1])).unwrap().is_none());
            assert_eq!(decoder.passes_over(), left);
        }
        assert_eq!(decoder.buffered(), 0);
        assert!(decoder.text("2[\"x\"]", MAX_BYTES).unwrap().is_some(), "what follows is read");
    }
    let mut decoder = Decoder::default();
    decoder.skip("2 whatever").unwrap();
    assert!(decoder.text("2[\"x\"]", MAX_BYTES).unwrap().is_some());
    decoder.skip(event).unwrap();
    assert!(decoder.skip("2").is_err(), "an attachment was to come");
    assert!(decoder.skip("5x-").is_err());
}

#[test]
fn buffered_attachment_bytes_are_counted() {
    let mut decoder = Decoder::default();
    let event = r#"52-["x",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    decoder.text(event, MAX_BYTES).unwrap();
    let before = decoder.buffered();
    assert!(before > 0);
    decoder.binary(Cow::Owned(vec![0; 10])).unwrap();
    assert!(decoder.buffered() >= before + 10);
    decoder.binary(Cow::Owned(vec![0; 10])).unwrap();
    assert_eq!(decoder.buffered(), 0);
}
