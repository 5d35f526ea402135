//! A token's claims (RFC 7519, section 4.1), in the shapes that issuers use.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::{Identity, harmless_name, is_valid_id};

/// The first second of the year 3000. No token lasts until then, so a larger time is taken as milliseconds.
pub(super) const YEAR_3000: f64 = 32_503_680_000.0;

/// The claims of a token.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Claims {
    /// The user's id.
    pub sub: String,
    /// The display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The expiry, in seconds since 1970; without one the token never expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<f64>,
    /// All other claims.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Which claims have the user's id, name and roles. Each is a claim's name, or a path with dots into objects; a claim whose
/// whole name is that text comes first. Of several names the first that is present counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimNames {
    /// The user's id.
    pub id: Vec<String>,
    /// The display name.
    pub name: Vec<String>,
    /// The roles.
    pub roles: Vec<String>,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self::of(&["sub"], &["name"], &["roles"])
    }
}

impl ClaimNames {
    /// Where the answers of session endpoints usually have them.
    pub fn of_sessions() -> Self {
        Self::of(
            &["user.id", "userId", "id", "sub"],
            &["user.name", "name"],
            &["user.roles", "user.role", "roles", "role"],
        )
    }

    fn of(id: &[&str], name: &[&str], roles: &[&str]) -> Self {
        Self { id: owned(id), name: owned(name), roles: owned(roles) }
    }
}

/// Names or paths of claims.
pub(super) fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The first of these names or paths that is present and not null.
pub(super) fn find_any<'a>(claims: &'a Map<String, Value>, names: &[String]) -> Option<&'a Value> {
    names.iter().find_map(|name| find(claims, name).filter(|value| !value.is_null()))
}

/// The claim of a name or path.
fn find<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    path.match_indices('.').find_map(|(at, _)| find(claims.get(&path[..at])?.as_object()?, &path[at + 1..]))
}

/// The times in a token, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Times {
    pub(super) expires: Option<f64>,
    pub(super) not_before: Option<f64>,
    pub(super) issued_at: Option<f64>,
}

/// Reads a token's claims.
///
/// # Errors
/// Where a claim has the wrong shape, with its name and the right shape.
pub(super) fn read(mut claims: Map<String, Value>, names: &ClaimNames) -> Result<(Identity, Times), String> {
    let times = Times {
        expires: time(claims.remove("exp"), "its expiry (exp)")?,
        not_before: time(claims.get("nbf").cloned(), "its beginning (nbf)")?,
        issued_at: time(claims.get("iat").cloned(), "its time of issue (iat)")?,
    };
    let identity = read_identity(&claims, names)?;
    for name in [&names.id, &names.name, &names.roles].into_iter().flatten() {
        claims.remove(name);
    }
    Ok((Identity { claims: Value::Object(claims).to_string(), ..identity }, times))
}

/// Reads the user's id, name and roles.
///
/// # Errors
/// Where one has the wrong shape, with its name and the right shape.
pub(super) fn read_identity(claims: &Map<String, Value>, names: &ClaimNames) -> Result<Identity, String> {
    let id = match names.id.join(", ") {
        only if only == "sub" => "subject (sub)".to_owned(),
        names => format!("user id ({names})"),
    };
    let user = match find_any(claims, &names.id) {
        Some(Value::String(sub)) => sub.clone(),
        // Many back-ends have numeric user ids.
        Some(Value::Number(sub)) if !sub.is_f64() => sub.to_string(),
        None if id == "subject (sub)" => return Err(format!("it has no {id}, which is the user's id")),
        None => return Err(format!("it has no {id}")),
        Some(_) => return Err(format!("its {id} must be text or a whole number")),
    };
    if !is_valid_id(&user) {
        return Err(format!("its {id} must be a user id of 1 to 128 printable characters without whitespace"));
    }
    let name = match find_any(claims, &names.name) {
        None => None,
        // Other users see the name, so control characters and the like are removed.
        Some(Value::String(name)) => Some(harmless_name(name).into_owned()).filter(|name| !name.trim().is_empty()),
        Some(_) => return Err(format!("its {} must be text", names.name.join(", "))),
    };
    let roles = roles(find_any(claims, &names.roles).cloned())
        .ok_or_else(|| format!("its {} must be a list of texts, or one text", names.roles.join(", ")))?;
    Ok(Identity { name, roles, ..Identity::of_user(user) })
}

fn time(value: Option<Value>, claim: &str) -> Result<Option<f64>, String> {
    let seconds = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_f64().ok_or_else(|| format!("{claim} must be a number of seconds since 1970"))?,
    };
    if seconds >= YEAR_3000 {
        return Err(format!("{claim} lies after the year 3000: it counts seconds, not milliseconds"));
    }
    Ok(Some(seconds))
}

fn roles(value: Option<Value>) -> Option<Vec<String>> {
    match value {
        None => Some(Vec::new()),
        Some(Value::String(role)) => Some(Some(role).filter(|role| !role.trim().is_empty()).into_iter().collect()),
        Some(Value::Array(roles)) => roles.into_iter().map(|role| role.as_str().map(str::to_owned)).collect(),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_json(claims: Value) -> Result<(Identity, Times), String> {
        read(claims.as_object().unwrap().clone(), &ClaimNames::default())
    }

    #[test]
    fn usual_shapes_of_claims_are_read() {
        for (claims, user, name, roles) in [
            (json!({ "sub": 42 }), "42", None, &[][..]),
            (json!({ "sub": -1, "name": null, "roles": null }), "-1", None, &[]),
            (json!({ "sub": "ana", "name": " ", "roles": "admin" }), "ana", None, &["admin"]),
            (json!({ "sub": "ana", "name": "Ana", "roles": ["a", "b"], "exp": null }), "ana", Some("Ana"), &["a", "b"]),
            (json!({ "sub": "ana", "roles": "" }), "ana", None, &[]),
            (json!({ "sub": "ana", "name": "\u{202e}an\u{200b}A" }), "ana", Some("anA"), &[]),
            (json!({ "sub": "ana", "name": "\u{200b}" }), "ana", None, &[]),
        ] {
            let (identity, _) = read_json(claims.clone()).unwrap_or_else(|error| panic!("{claims}: {error}"));
            assert_eq!((&*identity.user, identity.name.as_deref()), (user, name), "{claims}");
            assert_eq!(identity.roles, roles, "{claims}");
        }
    }

    #[test]
    fn malformed_claims_are_refused_by_name() {
        for (claims, reason) in [
            (json!({}), "no subject (sub)"),
            (json!({ "sub": null }), "no subject (sub)"),
            (json!({ "sub": "" }), "(sub)"),
            (json!({ "sub": "a b" }), "(sub)"),
            (json!({ "sub": "a\u{200b}" }), "(sub)"),
            (json!({ "sub": 1.5 }), "(sub)"),
            (json!({ "sub": ["ana"] }), "(sub)"),
            (json!({ "sub": "ana", "name": 5 }), "name"),
            (json!({ "sub": "ana", "roles": [1] }), "roles"),
            (json!({ "sub": "ana", "roles": {} }), "roles"),
            (json!({ "sub": "ana", "exp": "soon" }), "(exp)"),
            (json!({ "sub": "ana", "exp": 1_900_000_000_000_u64 }), "(exp) lies after the year 3000"),
            (json!({ "sub": "ana", "nbf": 1_700_000_000_000_u64 }), "not milliseconds"),
            (json!({ "sub": "ana", "iat": 1_700_000_000_000_u64 }), "(iat)"),
            (json!({ "sub": "ana", "iat": true }), "(iat)"),
        ] {
            let refused = read_json(claims.clone()).expect_err("refused");
            assert!(refused.contains(reason), "{claims}: {refused}");
        }
    }

    #[test]
    fn remaining_claims_are_kept_as_json() {
        let (identity, times) =
            read_json(json!({ "sub": "ana", "exp": 5.5, "nbf": 1, "iat": 2, "team": "blue" })).unwrap();
        assert_eq!(identity.claims, r#"{"iat":2,"nbf":1,"team":"blue"}"#);
        assert_eq!(times, Times { expires: Some(5.5), not_before: Some(1.0), issued_at: Some(2.0) });
    }
}
