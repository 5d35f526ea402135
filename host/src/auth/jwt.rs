//! JSON Web Tokens (RFC 7519), signed with a shared secret (HMAC, RFC 7518 section 3.2).

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{AuthError, Session};
use crate::model::{Identity, is_valid_id, without_lone_surrogates};

/// The longest token that is looked at, in bytes: what common servers accept as a header line.
const MAX_TOKEN_BYTES: usize = 8192;

/// Which tokens are believed.
#[derive(Clone, Default)]
pub struct JwtConfig {
    /// Secrets to check a signature with; any will do, so that they can be rotated.
    pub secrets: Vec<String>,
    /// The algorithms that a token may name. HS256 alone where this is empty.
    pub algorithms: Vec<Algorithm>,
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What `aud` must name.
    pub audience: Option<String>,
}

impl fmt::Debug for JwtConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets belong in no log.
        f.debug_struct("JwtConfig")
            .field("secrets", &self.secrets.len())
            .field("algorithms", &self.algorithms)
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish()
    }
}

/// What a token says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Claims {
    /// The user's id.
    pub sub: String,
    /// The display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Until when it is valid, in seconds since 1970. Valid for ever where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<f64>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Checks tokens against the configured secrets.
pub(super) struct Verifier {
    keys: Vec<DecodingKey>,
    validation: Validation,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Verifier {
    pub(super) fn new(config: &JwtConfig) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        if !config.algorithms.is_empty() {
            validation.algorithms.clone_from(&config.algorithms);
        }
        validation.required_spec_claims.clear();
        // The expiry is checked by the caller, on the host's clock, and again while the connection lasts.
        validation.validate_exp = false;
        validation.validate_nbf = true;
        validation.validate_aud = config.audience.is_some();
        if let Some(audience) = &config.audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        if let Some(issuer) = &config.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        let keys = config.secrets.iter().map(|secret| DecodingKey::from_secret(secret.as_bytes())).collect();
        Self { keys, validation }
    }

    pub(super) fn has_secrets(&self) -> bool {
        !self.keys.is_empty()
    }

    pub(super) fn verify(&self, token: &str) -> Result<Session, AuthError> {
        let invalid = |reason: &str| AuthError::Invalid(reason.to_owned());
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid("it is longer than 8192 bytes"));
        }
        let mut refusal = invalid("this host is configured with no secret to check it");
        for key in &self.keys {
            match jsonwebtoken::decode::<Box<RawValue>>(token, key, &self.validation) {
                Ok(token) => return session(read_claims(&token.claims)?),
                Err(error) => {
                    refusal = AuthError::Invalid(match error.kind() {
                        ErrorKind::InvalidSignature => {
                            "its signature is not by a secret that this host knows".to_owned()
                        }
                        ErrorKind::ExpiredSignature => return Err(AuthError::Expired),
                        ErrorKind::InvalidToken | ErrorKind::Base64(_) => "it is not a JSON Web Token".to_owned(),
                        ErrorKind::InvalidAlgorithm => {
                            "it is signed with an algorithm that this host does not accept".to_owned()
                        }
                        ErrorKind::Json(error) => not_claims(error),
                        _ => error.to_string(),
                    });
                    // Another secret cannot mend anything else.
                    if !matches!(error.kind(), ErrorKind::InvalidSignature) {
                        break;
                    }
                }
            }
        }
        Err(refusal)
    }
}

/// Reads claims, in which a lone surrogate counts as U+FFFD: it must not keep anybody out who cut an emoji in a name.
fn read_claims(json: &RawValue) -> Result<Claims, AuthError> {
    serde_json::from_str(&without_lone_surrogates(json.get())).map_err(|error| AuthError::Invalid(not_claims(&error)))
}

fn not_claims(error: &serde_json::Error) -> String {
    format!("its claims are not what they should be: {error}")
}

fn session(claims: Claims) -> Result<Session, AuthError> {
    if !is_valid_id(&claims.sub) {
        let reason = "its subject (sub) must be a user id of 1 to 128 printable characters without whitespace";
        return Err(AuthError::Invalid(reason.to_owned()));
    }
    let identity = Identity {
        user: claims.sub.into(),
        name: claims.name.filter(|name| !name.trim().is_empty()),
        roles: claims.roles,
        claims: Value::Object(claims.other).to_string(),
    };
    Ok(Session {
        identity: Arc::new(identity),
        expires_ms: claims.exp.map(|seconds| (seconds * 1000.0).max(0.0) as u64),
        is_anonymous: false,
    })
}

/// A token that says `claims`, signed with `secret` (HS256).
///
/// # Errors
/// Where the claims cannot be serialised.
pub fn sign(claims: &Claims, secret: &str) -> Result<String, jsonwebtoken::errors::Error> {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> JwtConfig {
        JwtConfig { secrets: vec!["old".into(), "new".into()], ..JwtConfig::default() }
    }

    fn claims(user: &str) -> Claims {
        Claims { sub: user.into(), ..Claims::default() }
    }

    #[test]
    fn a_token_of_any_known_secret_becomes_an_identity() {
        let mut claims = claims("ana");
        claims.name = Some("Ana".into());
        claims.roles = vec!["admin".into()];
        claims.exp = Some(2_000_000_000.5);
        claims.other.insert("team".into(), "blue".into());
        for secret in ["old", "new"] {
            let session = Verifier::new(&config()).verify(&sign(&claims, secret).unwrap()).unwrap();
            assert_eq!(&*session.identity.user, "ana");
            assert_eq!(session.identity.name.as_deref(), Some("Ana"));
            assert_eq!(session.identity.roles, ["admin"]);
            assert_eq!(session.identity.claims, r#"{"team":"blue"}"#);
            assert_eq!(session.expires_ms, Some(2_000_000_000_500));
        }
    }

    #[test]
    fn lone_surrogates_in_claims_refuse_no_token() {
        let claims: Box<RawValue> =
            serde_json::from_str(r#"{"sub":"ana","name":"A\ud83d","unread":{"n\udc00":["\ud83d\ude00"]}}"#).unwrap();
        let key = EncodingKey::from_secret(b"new");
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
        let session = Verifier::new(&config()).verify(&token).unwrap();
        assert_eq!(session.identity.name.as_deref(), Some("A\u{fffd}"));
        assert_eq!(session.identity.claims, "{\"unread\":{\"n\u{fffd}\":[\"\u{1f600}\"]}}");
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said() {
        let verifier = Verifier::new(&JwtConfig { issuer: Some("us".into()), ..config() });
        let check = |token: &str, reason: &str| match verifier.verify(token) {
            Err(AuthError::Invalid(said)) => assert!(said.contains(reason), "{said}"),
            other => panic!("{other:?}"),
        };
        check("nonsense", "not a JSON Web Token");
        check(&sign(&claims("ana"), "other").unwrap(), "signature");
        check(&sign(&claims("ana"), "new").unwrap(), "iss");
        let mut ours = claims("a b");
        ours.other.insert("iss".into(), "us".into());
        check(&sign(&ours, "new").unwrap(), "sub");
        let key = EncodingKey::from_secret(b"new");
        check(&jsonwebtoken::encode(&Header::new(Algorithm::HS512), &ours, &key).unwrap(), "algorithm");
        check(&"x".repeat(9000), "8192");
    }
}
