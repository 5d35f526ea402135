//! Payloads from a seed that cost a feature as much as an event's limits allow.

use roundhouse::plugin::PayloadLimits;
use serde_json::json;

use crate::Random;

/// Bytes reserved for the known fields and the text around them.
const RESERVED_BYTES: usize = 2000;

/// Values and keys reserved for the known fields.
const RESERVED_VALUES: usize = 40;

/// The greatest length of the text in a payload whose event has no limit of bytes.
const MAX_TEXT_BYTES: usize = 900_000;

/// Field names that features read, besides the placeholders of their scopes.
const KNOWN_FIELDS: [&str; 11] = [
    "accountId",
    "agentId",
    "agentName",
    "before",
    "body",
    "clientId",
    "limit",
    "senderId",
    "userId",
    "userName",
    "whatsappAccountId",
];

/// A payload, and the shape that it was built in.
#[derive(Debug, Clone)]
pub struct Built {
    /// The JSON array of arguments.
    pub args: String,
    /// The name of the shape that most of the payload has.
    pub shape: &'static str,
}

/// The remaining bytes, values and keys of a payload.
#[derive(Debug, Clone, Copy)]
struct Budget {
    bytes: usize,
    values: usize,
    keys: usize,
    depth: usize,
}

type Shape = fn(&mut Random, Budget) -> String;

/// The shapes of a payload. Each fills its field up to the budget.
const SHAPES: [(&str, Shape); 16] = [
    ("small objects", |_, budget| repeated("{}", budget.bytes / 3, budget.values)),
    ("small arrays", |_, budget| repeated("[]", budget.bytes / 3, budget.values)),
    ("numbers", |_, budget| repeated("1", budget.bytes / 2, budget.values)),
    ("texts", |_, budget| repeated("\"\"", budget.bytes / 3, budget.values)),
    ("objects with a key", |_, budget| repeated(r#"{"":0}"#, budget.bytes / 7, (budget.values / 2).min(budget.keys))),
    ("keys", |_, budget| fields(budget, |n| format!("\"k{n}\""))),
    ("a key again and again", |_, budget| fields(budget, |_| "\"id\"".to_owned())),
    ("keys with escapes", |_, budget| fields(budget, |n| format!("\"\\u006b\\n{n}\""))),
    ("deep arrays", |_, budget| nested("[", "]", "", budget)),
    ("deep objects", |_, budget| nested("{\"a\":", "}", "0", budget)),
    ("deep and wide", deep_and_wide),
    ("a long text", |_, budget| format!("\"{}\"", "x".repeat(budget.bytes))),
    ("a long text of escapes", |random, budget| {
        let escape = random.pick(&["\\u0041", "\\n", "\\ud83d\\ude00", "\\u0000", "\\\\", "\\\"", "\\ud800"]);
        format!("\"{}\"", escape.repeat(budget.bytes / escape.len()))
    }),
    ("a long key", |random, budget| {
        let part = random.pick(&["x", "\\u0041", "é", "\\ud83d\\ude00"]);
        format!("{{\"{}\":0}}", part.repeat(budget.bytes / part.len()))
    }),
    ("a number of many digits", |random, budget| {
        let n = budget.bytes.min(100_000);
        match random.below(4) {
            0 => "9".repeat(n),
            1 => format!("0.{}1", "0".repeat(n)),
            2 => format!("1e-{}", "9".repeat(n.min(5000))),
            _ => format!("-{}.{}e+1", "1".repeat(n / 2), "7".repeat(n / 2)),
        }
    }),
    ("numbers of many digits", |_, budget| {
        let each = (budget.bytes / budget.values.max(1)).clamp(1, 60);
        repeated(&"7".repeat(each), budget.bytes / (each + 1), budget.values)
    }),
];

fn repeated(item: &str, fits: usize, allowed: usize) -> String {
    format!("[{}]", vec![item; fits.min(allowed.saturating_sub(1)).max(1)].join(","))
}

fn fields(budget: Budget, name: impl Fn(usize) -> String) -> String {
    let each = name(budget.keys).len() + 3;
    let n = (budget.bytes / each).min(budget.keys).min(budget.values.saturating_sub(1)).max(1);
    let fields: Vec<String> = (0..n).map(|n| format!("{}:0", name(n))).collect();
    format!("{{{}}}", fields.join(","))
}

fn nested(open: &str, close: &str, innermost: &str, budget: Budget) -> String {
    let n = (budget.bytes / (open.len() + close.len())).min(budget.depth).min(budget.values).min(budget.keys);
    let n = n.saturating_sub(1).max(1);
    format!("{}{innermost}{}", open.repeat(n), close.repeat(n))
}

/// The deepest nesting, with the remaining values at its innermost level.
fn deep_and_wide(_: &mut Random, budget: Budget) -> String {
    let n = budget.depth.saturating_sub(2);
    let inner = repeated("{}", budget.bytes.saturating_sub(2 * n) / 3, budget.values.saturating_sub(n));
    format!("{}{inner}{}", "[".repeat(n), "]".repeat(n))
}

/// A payload from `user` within `limits`, for an event whose scopes have `placeholders`.
pub(super) fn payload(random: &mut Random, limits: PayloadLimits, placeholders: &[String], user: &str) -> Built {
    let bytes = limits.bytes.unwrap_or(MAX_TEXT_BYTES).min(MAX_TEXT_BYTES);
    let mut known = known_fields(random, placeholders, user);
    let n_known: usize = known.iter().map(|field| field.len() + 1).sum();
    let mut budget = Budget {
        bytes: bytes.saturating_sub(n_known + RESERVED_BYTES),
        values: limits.values.saturating_sub(RESERVED_VALUES),
        keys: limits.keys.saturating_sub(RESERVED_VALUES),
        depth: limits.depth.saturating_sub(1),
    };
    if random.in_hundred(20) {
        budget.bytes = random.below(budget.bytes.max(1)).max(16);
    }
    let &(shape, build) = random.pick(&SHAPES);
    let filler = build(random, budget);
    let args = match random.below(12) {
        // A bare id, followed by arguments that features ignore.
        0 => format!("[{},{filler}]", id(random)),
        1 => format!("[{filler}]"),
        2 => format!("[{{{}}},{filler}]", known.join(",")),
        // A value in place of a field that the feature reads.
        3 | 4 => {
            let name = random.pick(&KNOWN_FIELDS);
            known.retain(|field| !field.starts_with(&format!("\"{name}\"")));
            format!("[{{{},\"{name}\":{filler}}}]", known.join(","))
        }
        // A text field as long as the limits allow.
        5 => {
            known.retain(|field| !field.starts_with("\"body\""));
            let part = *random.pick(&["x", "\\u0041", "\\ud83d\\ude00", "\\u0001"]);
            let n = (budget.bytes / part.len()).min(16_384 - random.below(2));
            format!("[{{{},\"body\":\"{}\"}}]", known.join(","), part.repeat(n))
        }
        // A field that occurs twice, the second time at the end.
        6 => {
            let twice = random.pick(&known).clone();
            format!("[{{{},\"more\":{filler},{twice}}}]", known.join(","))
        }
        7..=9 => format!("[{{\"more\":{filler},{}}}]", known.join(",")),
        _ => format!("[{{{},\"more\":{filler}}}]", known.join(",")),
    };
    Built { args, shape }
}

/// A small payload that the event accepts, for the filling of states.
pub(super) fn plain(random: &mut Random, placeholders: &[String], user: &str) -> String {
    let mut fields: Vec<String> = placeholders.iter().map(|name| field(random, name, user, true)).collect();
    fields
        .extend(["accountId", "body", "clientId", "agentName", "userName"].map(|name| field(random, name, user, true)));
    format!("[{{{}}}]", fields.join(","))
}

fn known_fields(random: &mut Random, placeholders: &[String], user: &str) -> Vec<String> {
    let mut fields: Vec<_> = placeholders.iter().map(|name| field(random, name, user, false)).collect();
    let is_other = |name: &&&str| !placeholders.iter().any(|placeholder| placeholder == *name);
    for name in KNOWN_FIELDS.iter().filter(is_other) {
        if random.in_hundred(50) {
            fields.push(field(random, name, user, false));
        }
    }
    for at in (1..fields.len()).rev() {
        fields.swap(at, random.below(at + 1));
    }
    fields
}

/// A known field with a valid value.
fn field(random: &mut Random, name: &str, user: &str, is_plain: bool) -> String {
    let value = match name {
        "entityType" => json!("client").to_string(),
        "limit" => json!(100).to_string(),
        "agentId" | "senderId" | "userId" => match random.below(2) {
            0 => json!(user).to_string(),
            _ => json!({ "name": "x", "_id": user }).to_string(),
        },
        "agentName" | "userName" => json!("\u{1f600}".repeat(1 + random.below(128))).to_string(),
        "body" => json!("hello").to_string(),
        "clientId" => json!(format!("c{}", random.below(1_000_000))).to_string(),
        _ if is_plain => json!(SCOPES[0]).to_string(),
        _ => id(random),
    };
    format!("\"{name}\":{value}")
}

/// The ids of the scopes that get most events, so that their states grow.
const SCOPES: [&str; 2] = ["s1", "s2"];

/// An id in JSON: mostly one of a few, else one of the greatest length or a new one.
fn id(random: &mut Random) -> String {
    match random.below(20) {
        0 => format!("\"{}\"", "\\ud83d\\ude00".repeat(128)),
        1 => json!("\u{1f600}".repeat(128)).to_string(),
        2 => json!(format!("n{}", random.below(1000))).to_string(),
        _ => json!(random.pick(&SCOPES)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn same_seed_gives_same_payloads() {
        let limits = PayloadLimits { bytes: Some(16_384), values: 256, keys: 256, depth: 8 };
        let built = |seed| {
            let mut random = Random::new(seed);
            (0..50).map(|_| payload(&mut random, limits, &["id".to_owned()], "ana").args).collect::<Vec<_>>()
        };
        assert_eq!(built(1), built(1));
        assert_ne!(built(1), built(2));
    }

    #[test]
    fn payloads_are_json_within_the_byte_limit() {
        let limits = PayloadLimits { bytes: Some(65_536), values: 1024, keys: 1024, depth: 16 };
        let mut random = Random::new(7);
        for _ in 0..2000 {
            let built = payload(&mut random, limits, &["roomId".to_owned()], "ana");
            assert!(built.args.len() <= 65_536, "{}: {}", built.shape, built.args.len());
            // Numbers out of range and lone surrogates are valid JSON, which a `RawValue` accepts.
            let raw: Result<Vec<&serde_json::value::RawValue>, _> = serde_json::from_str(&built.args);
            assert!(raw.is_ok(), "{}: {}", built.shape, &built.args[..200]);
        }
        let _: Value = serde_json::from_str(&plain(&mut random, &["roomId".to_owned()], "ana")).unwrap();
    }
}
