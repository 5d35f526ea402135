//! Whether a payload's arguments refer to its attachments as the host wants it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::Payload;

/// The host's limit on the attachments of one event.
const MAX_ATTACHMENTS: usize = 10;

/// Checks that the arguments are an array, and refer to each attachment, where there are any, exactly once.
pub(super) fn check(payload: &Payload) -> Result<(), String> {
    let args: Vec<Value> =
        serde_json::from_str(&payload.args).map_err(|error| format!("are not a JSON array: {error}"))?;
    let n = payload.attachments.len();
    if n == 0 {
        // What looks like a placeholder is data then.
        return Ok(());
    }
    if n > MAX_ATTACHMENTS {
        return Err(format!("have {n} attachments, more than {MAX_ATTACHMENTS}"));
    }
    let mut missing: BTreeSet<u64> = (0..).take(n).collect();
    args.iter().try_for_each(|arg| strike_out(arg, &mut missing))?;
    match missing.first() {
        Some(number) => Err(format!("do not refer to attachment {number}")),
        None => Ok(()),
    }
}

/// Strikes the attachments that a value refers to off those that are still missing.
fn strike_out(value: &Value, missing: &mut BTreeSet<u64>) -> Result<(), String> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| strike_out(item, missing)),
        Value::Object(fields) if fields.get("_placeholder") == Some(&Value::Bool(true)) => {
            let number = number(fields).ok_or_else(|| format!("have {value}, which is no placeholder"))?;
            let is_due = missing.remove(&number);
            is_due.then_some(()).ok_or_else(|| format!("refer to attachment {number} twice, or there is none"))
        }
        Value::Object(fields) => fields.values().try_for_each(|field| strike_out(field, missing)),
        _ => Ok(()),
    }
}

fn number(placeholder: &Map<String, Value>) -> Option<u64> {
    placeholder.get("num").filter(|_| placeholder.len() == 2)?.as_u64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::check;
    use crate::{Attachment, Payload};

    fn checked(args: &serde_json::Value, n: usize) -> Result<(), String> {
        check(&Payload::spread(args).unwrap().with_attachments(vec![vec![7]; n]))
    }

    #[test]
    fn attachments_are_where_the_arguments_refer_to_them() {
        let [zero, one] = [Attachment::new(0), Attachment::new(1)];
        assert_eq!(checked(&json!([1, {"deep": [one]}, zero]), 2), Ok(()));
        assert_eq!(checked(&json!([]), 0), Ok(()));
        assert_eq!(checked(&json!([zero, zero]), 0), Ok(()));
        assert_eq!(checked(&json!([{"_placeholder": false, "num": 9}, zero]), 1), Ok(()));
    }

    #[test]
    fn what_does_not_fit_the_attachments_is_said() {
        let [zero, one] = [Attachment::new(0), Attachment::new(1)];
        for (args, n, message) in [
            (json!([]), 1, "do not refer to attachment 0"),
            (json!([zero]), 2, "do not refer to attachment 1"),
            (json!([zero, zero]), 1, "refer to attachment 0 twice, or there is none"),
            (json!([one]), 1, "refer to attachment 1 twice, or there is none"),
            (json!([{"_placeholder": true}]), 1, "which is no placeholder"),
            (json!([{"_placeholder": true, "num": 0, "more": 1}]), 1, "which is no placeholder"),
            (json!([]), 11, "have 11 attachments, more than 10"),
        ] {
            let said = checked(&args, n).expect_err(message);
            assert!(said.ends_with(message), "{args}: {said}");
        }
    }
}
