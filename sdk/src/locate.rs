//! The field of a decoding error: `serde_json` gives the line and column, senders need the field.

use serde_json::Error;

/// The path of the field in which `error` occurred, if any, and the error's text without its position.
pub(crate) fn locate(text: &str, error: &Error) -> (Option<String>, String) {
    let full = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let complaint = full.strip_suffix(&position).unwrap_or(&full).to_owned();
    if error.line() == 0 {
        return (None, complaint);
    }
    let line_start: usize = text.split_inclusive('\n').take(error.line() - 1).map(str::len).sum();
    let end = (line_start + error.column()).min(text.len());
    (path(&text.as_bytes()[..end]), complaint)
}

enum Level {
    Object { key: String, expects_key: bool },
    Array { index: usize },
}

/// The path of the field at the end of a truncated JSON text.
fn path(text: &[u8]) -> Option<String> {
    let mut levels: Vec<Level> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'{' => levels.push(Level::Object { key: String::new(), expects_key: true }),
            b'[' => levels.push(Level::Array { index: 0 }),
            b'}' | b']' => drop(levels.pop()),
            b',' => match levels.last_mut() {
                Some(Level::Object { expects_key, .. }) => *expects_key = true,
                Some(Level::Array { index }) => *index += 1,
                None => {}
            },
            b'"' => {
                let start = at + 1;
                at = start;
                while at < text.len() && text[at] != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                if let Some(Level::Object { key, expects_key }) = levels.last_mut()
                    && *expects_key
                {
                    *key = String::from_utf8_lossy(&text[start..at.min(text.len())]).into_owned();
                    *expects_key = false;
                }
            }
            _ => {}
        }
        at += 1;
    }
    let mut path = String::new();
    for level in &levels {
        match level {
            Level::Object { key, .. } if key.is_empty() => {}
            Level::Object { key, .. } => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
            Level::Array { index } => path.push_str(&format!("[{index}]")),
        }
    }
    (!path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::locate;

    #[derive(Deserialize, Debug)]
    struct Outer {
        #[serde(rename = "list")]
        _list: Vec<Inner>,
    }

    #[derive(Deserialize, Debug)]
    struct Inner {
        #[serde(rename = "name")]
        _name: String,
    }

    #[test]
    fn locate_names_nested_fields() {
        for (text, field, complaint) in [
            (r#"{"list": 1}"#, Some("list"), "invalid type: integer `1`, expected a sequence"),
            (
                "{\"x\": \"\\\"{\",\n \"list\": [{\"name\": \"a\"}, {\"name\": true}]}",
                Some("list[1].name"),
                "invalid type: boolean `true`, expected a string",
            ),
            (r"{}", None, "missing field `list`"),
            (r#"{"list": [{}]}"#, Some("list[0]"), "missing field `name`"),
        ] {
            let error = serde_json::from_str::<Outer>(text).unwrap_err();
            let (found, said) = locate(text, &error);
            assert_eq!((found.as_deref(), said.as_str()), (field, complaint), "{text}");
        }
    }
}
