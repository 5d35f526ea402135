//! The `auth` of a handshake without credentials, as features see it.

use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of `auth` that are for the host, in lower case: the token, and the two by which a client resumes a session.
const FOR_HOST: [&str; 3] = ["token", "pid", "offset"];

/// The first characters of every JSON Web Token: `{"` in base64url.
const TOKEN_BEGINS: &str = "eyJ";

/// The `auth` of a handshake, JSON text, as a feature may see it: without the fields for the host, in any case, and with an
/// empty string in place of each string at any depth that contains a signed token. Everything else stays as it came.
pub fn without_credentials(auth: &str) -> String {
    let Ok(fields) = serde_json::from_str::<Fields<'_>>(auth) else { return without_tokens(auth) };
    let kept: Vec<_> = fields.0.iter().filter(|(name, _)| !is_for_host(name)).collect();
    let text = match kept.len() == fields.0.len() {
        true => auth.to_owned(),
        false => {
            let field =
                |(name, value): &&(String, &RawValue)| format!("{}:{value}", serde_json::Value::from(name.as_str()));
            format!("{{{}}}", kept.iter().map(field).collect::<Vec<_>>().join(","))
        }
    };
    without_tokens(&text)
}

fn is_for_host(name: &str) -> bool {
    FOR_HOST.iter().any(|field| name.eq_ignore_ascii_case(field))
}

/// JSON text with an empty string in place of each string that contains a token. One pass without recursion, because
/// the text may be nested as deep as it is long.
fn without_tokens(json: &str) -> String {
    let mut kept = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(start) = rest.find('"') {
        let (before, text) = rest.split_at(start + 1);
        let end = end_of_text(text);
        let (text, behind) = text.split_at(end);
        kept.push_str(before);
        if !text.contains(TOKEN_BEGINS) || !text.split(|c| !is_of_token(c)).any(is_token) {
            kept.push_str(text);
        }
        kept.push_str(&behind[..behind.len().min(1)]);
        rest = behind.get(1..).unwrap_or_default();
    }
    kept.push_str(rest);
    kept
}

/// The position of the quotation mark that ends the string whose content is at the beginning of `text`.
fn end_of_text(text: &str) -> usize {
    let mut escaped = false;
    let ends = |c: char| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    };
    text.find(ends).unwrap_or(text.len())
}

fn is_of_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Whether a text is a JSON Web Token: header, claims and signature.
fn is_token(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| !part.is_empty()) && text.starts_with(TOKEN_BEGINS)
}

/// The fields of an object, with their values as text.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::without_credentials;

    const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbmEifQ.c2lnbmF0dXJl-_";

    #[test]
    fn top_level_host_fields_are_removed() {
        for (auth, seen) in [
            ("{}", "{}"),
            (r#"{"token":"t"}"#, "{}"),
            (r#"{"Token":"t","TOKEN":{"a":1},"a":1.10,"pid":"p","offset":"o","b":[]}"#, r#"{"a":1.10,"b":[]}"#),
            (r#"{ "tok\u0065n" : "t", "a\"b" : 1 }"#, r#"{"a\"b":1}"#),
            (r#"{"deep":{"token":"t","offset":7},"tokens":1}"#, r#"{"deep":{"token":"t","offset":7},"tokens":1}"#),
            ("[]", "[]"),
        ] {
            assert_eq!(without_credentials(auth), seen, "{auth}");
        }
    }

    #[test]
    fn strings_with_a_token_are_blanked() {
        for (auth, seen) in [
            (r#"{"jwt":"TOKEN","n":1}"#, r#"{"jwt":"","n":1}"#),
            (r#"{"deep":[{"authorization":"Bearer TOKEN"},"x"]}"#, r#"{"deep":[{"authorization":""},"x"]}"#),
            (r#"{"cookie":"a=b; session=TOKEN; c=\"d\""}"#, r#"{"cookie":""}"#),
            (r#"{"TOKEN":"a\\"}"#, r#"{"":"a\\"}"#),
            (r#"{"q\"":"?token=TOKEN&x"}"#, r#"{"q\"":""}"#),
            (r#""TOKEN""#, r#""""#),
        ] {
            assert_eq!(without_credentials(&auth.replace("TOKEN", TOKEN)), seen, "{auth}");
        }
    }

    #[test]
    fn strings_without_complete_token_are_unchanged() {
        for auth in [r#"{"a":"eyJ","b":"eyJ.a","c":"eyJ..a","d":"x.y.z","ü":"1.2.3"}"#, r#"{"a":"eyJ a.b.c"}"#] {
            assert_eq!(without_credentials(auth), auth);
        }
    }
}
