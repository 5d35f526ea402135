//! The differences between what two builds made of the same call, in words.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::case::{CaseEffect, CaseEnd};

/// The most differences that are told of one call.
const MOST: usize = 8;

/// The differences between what was made of a call `then` and `now`, in words without the values: so that the same
/// difference at many calls reads the same. Empty if there is none.
pub fn differences(then: &CaseEnd, now: &CaseEnd) -> Vec<String> {
    let (effects, state) = match (then, now) {
        (CaseEnd::Handled { effects: then, state: before }, CaseEnd::Handled { effects: now, state: after }) => {
            ((then, now), (before, after))
        }
        _ if then == now => return Vec::new(),
        (then, now) => return vec![format!("{}, and now {}", then.kind(), now.kind())],
    };
    let mut found = BTreeSet::new();
    compare_effects(effects.0, effects.1, &mut found);
    match state {
        (Some(then), Some(now)) => compare(then, now, "the state", &mut found),
        (Some(_), None) => drop(found.insert("the state stays".to_owned())),
        (None, Some(_)) => drop(found.insert("the state changes".to_owned())),
        (None, None) => {}
    }
    found.into_iter().take(MOST).collect()
}

fn compare_effects(then: &[CaseEffect], now: &[CaseEffect], found: &mut BTreeSet<String>) {
    let kinds = |effects: &[CaseEffect]| effects.iter().map(|effect| effect.what.clone()).collect::<Vec<_>>();
    if kinds(then) != kinds(now) {
        let (before, after) = (kinds(then), kinds(now));
        let (lost, new): (Vec<_>, Vec<_>) = (without(&before, &after), without(&after, &before));
        found.extend(lost.iter().map(|what| format!("it no longer {what}")));
        found.extend(new.iter().map(|what| format!("it also {what}")));
        if lost.is_empty() && new.is_empty() {
            found.insert("the effects come in another order".to_owned());
        }
        return;
    }
    for (then, now) in then.iter().zip(now) {
        if then.to != now.to {
            found.insert(format!("{} to others", then.what));
        }
        compare(&then.value, &now.value, &then.what, found);
    }
}

/// What one list has more of than another.
fn without(all: &[String], less: &[String]) -> Vec<String> {
    let mut less = less.to_vec();
    let is_more = |what: &&String| match less.iter().position(|other| other == *what) {
        Some(at) => {
            less.swap_remove(at);
            false
        }
        None => true,
    };
    all.iter().filter(is_more).cloned().collect()
}

fn compare(then: &Value, now: &Value, what: &str, found: &mut BTreeSet<String>) {
    let mut paths = BTreeSet::new();
    differ(then, now, "", &mut paths);
    found.extend(paths.into_iter().map(|path| format!("{what} {path}")));
}

fn differ(then: &Value, now: &Value, path: &str, found: &mut BTreeSet<String>) {
    let field = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            for (name, value) in then {
                match now.get(name) {
                    Some(other) => differ(value, other, &field(name), found),
                    None => drop(found.insert(format!("without `{}`", field(name)))),
                }
            }
            let new = now.keys().filter(|name| !then.contains_key(*name));
            found.extend(new.map(|name| format!("with `{}`", field(name))));
        }
        (Value::Array(then), Value::Array(now)) => {
            then.iter().zip(now).for_each(|(then, now)| differ(then, now, path, found));
            if then.len() != now.len() {
                found.insert(format!("with {} in `{path}`", if now.len() < then.len() { "less" } else { "more" }));
            }
        }
        (then, now) if then != now => drop(found.insert(format!("with another `{path}`"))),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn handled(effects: &[(&str, Value)], state: Option<Value>) -> CaseEnd {
        let effect = |(what, value): &(&str, Value)| CaseEffect {
            what: (*what).to_owned(),
            to: String::new(),
            value: value.clone(),
        };
        CaseEnd::Handled { effects: effects.iter().map(effect).collect(), state }
    }

    #[test]
    fn differences_are_told_without_values() {
        let then = handled(&[("emits viewers:updated", json!([{ "viewers": [{ "id": "a", "since": 5 }] }]))], None);
        assert_eq!(differences(&then, &then), [""; 0]);
        for (now, words) in [
            (
                handled(&[("emits viewers:updated", json!([{ "viewers": [{ "id": "a" }] }]))], None),
                "emits viewers:updated without `viewers.since`",
            ),
            (
                handled(&[("emits viewers:updated", json!([{ "viewers": [{ "id": "b", "since": 5 }] }]))], None),
                "emits viewers:updated with another `viewers.id`",
            ),
            (
                handled(&[("emits viewers:updated", json!([{ "viewers": [] }]))], None),
                "emits viewers:updated with less in `viewers`",
            ),
            (handled(&[], None), "it no longer emits viewers:updated"),
            (CaseEnd::Failed("it trapped".to_owned()), "handled it, and now failed"),
        ] {
            assert_eq!(differences(&then, &now), [words]);
        }
        let state = |n| handled(&[], Some(json!({ "n": n })));
        assert_eq!(differences(&state(1), &state(2)), ["the state with another `n`"]);
        assert_eq!(differences(&state(1), &handled(&[], None)), ["the state stays"]);
        let two = |a, b| handled(&[(a, json!([])), (b, json!([]))], None);
        assert_eq!(
            differences(&two("replies", "emits x"), &two("emits x", "replies")),
            ["the effects come in another order"]
        );
    }
}
