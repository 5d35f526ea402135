//! JSON Web Tokens (RFC 7519), signed with a shared secret (HMAC, RFC 7518 section 3.2).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::claims;
use super::session::{AuthError, CredentialIds, Session};
use crate::model::without_lone_surrogates;

/// The longest token, in bytes: the longest header line that common servers accept.
const MAX_TOKEN_BYTES: usize = 8192;

/// Why a token with critical extensions (RFC 7515, section 4.1.11) is refused: this host understands none.
const CRITICAL: &str = "its header has crit, which names extensions that this host does not understand";

/// The rules for valid tokens.
#[derive(Clone, Default)]
pub struct JwtConfig {
    /// Secrets to check signatures with. A token signed with any of them is valid, so that secrets can be rotated.
    pub secrets: Vec<String>,
    /// The algorithms that a token may name. HS256 alone where this is empty.
    pub algorithms: Vec<Algorithm>,
    /// The value that `iss` must have.
    pub issuer: Option<String>,
    /// The value that `aud` must contain.
    pub audience: Option<String>,
    /// How far the clocks of the issuer and of this host may differ: the tolerance for `exp`, `nbf` and `iat`.
    pub leeway: Duration,
}

impl fmt::Debug for JwtConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets must not be logged.
        f.debug_struct("JwtConfig")
            .field("secrets", &self.secrets.len())
            .field("algorithms", &self.algorithms)
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("leeway", &self.leeway)
            .finish()
    }
}

/// Checks tokens against the configured secrets.
pub(super) struct Verifier {
    keys: Vec<DecodingKey>,
    validation: Validation,
    leeway: Duration,
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
        // Times are checked below, on the host's clock, and the expiry again while the connection lasts.
        validation.validate_exp = false;
        validation.validate_nbf = false;
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
        Self { keys, validation, leeway: config.leeway }
    }

    pub(super) fn has_secrets(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Checks a token, at a time in milliseconds since 1970.
    pub(super) fn verify(&self, token: &str, now_ms: u64) -> Result<Session, AuthError> {
        let claims = self.claims(token)?;
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str).map(Box::from);
        let ids = CredentialIds { issued_ms: None, token_id: text("jti"), session_id: text("sid") };
        let (identity, times) = claims::read(claims).map_err(AuthError::Invalid)?;
        let leeway_ms = self.leeway.as_millis() as u64;
        let ms = |seconds: f64| (seconds * 1000.0).max(0.0) as u64;
        let expires_ms = times.expires.map(|seconds| ms(seconds).saturating_add(leeway_ms));
        if expires_ms.is_some_and(|expires| expires <= now_ms) {
            return Err(AuthError::Expired);
        }
        for (time, claim) in [(times.not_before, "nbf"), (times.issued_at, "iat")] {
            if time.is_some_and(|seconds| ms(seconds) > now_ms.saturating_add(leeway_ms)) {
                let reason =
                    format!("it is from the future ({claim}): are the clocks of its issuer and this host right?");
                return Err(AuthError::Invalid(reason));
            }
        }
        let credential = CredentialIds { issued_ms: times.issued_at.map(ms), ..ids }.shared();
        Ok(Session { identity: Arc::new(identity), expires_ms, credential, is_anonymous: false })
    }

    fn claims(&self, token: &str) -> Result<Map<String, Value>, AuthError> {
        let invalid = |reason: &str| AuthError::Invalid(reason.to_owned());
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid("it is longer than 8192 bytes"));
        }
        let mut refusal = invalid("this host is configured with no secret to check it");
        for key in &self.keys {
            match jsonwebtoken::decode::<Box<RawValue>>(token, key, &self.validation) {
                Ok(token) if token.header.crit.is_some() => return Err(invalid(CRITICAL)),
                Ok(token) => return read_claims(&token.claims),
                Err(error) => {
                    refusal = AuthError::Invalid(match error.kind() {
                        ErrorKind::InvalidSignature => {
                            "its signature is not by a secret that this host knows".to_owned()
                        }
                        ErrorKind::InvalidToken | ErrorKind::Base64(_) => "it is not a JSON Web Token".to_owned(),
                        ErrorKind::InvalidAlgorithm => {
                            "it is signed with an algorithm that this host does not accept".to_owned()
                        }
                        ErrorKind::InvalidIssuer => "its issuer (iss) is not the one that this host takes".to_owned(),
                        ErrorKind::InvalidAudience => "its audience (aud) does not name this host".to_owned(),
                        ErrorKind::MissingRequiredClaim(claim) => format!("it has no {claim}, which this host wants"),
                        ErrorKind::Json(error) => not_an_object(error),
                        _ => error.to_string(),
                    });
                    // Any other error does not depend on the secret.
                    if !matches!(error.kind(), ErrorKind::InvalidSignature) {
                        break;
                    }
                }
            }
        }
        Err(refusal)
    }
}

/// Reads claims, with U+FFFD for lone surrogates: so that a user whose name was cut within an emoji can connect.
fn read_claims(json: &RawValue) -> Result<Map<String, Value>, AuthError> {
    serde_json::from_str(&without_lone_surrogates(json.get()))
        .map_err(|error| AuthError::Invalid(not_an_object(&error)))
}

fn not_an_object(error: &serde_json::Error) -> String {
    format!("its claims are not a JSON object: {error}")
}

/// A token with `claims` (see [`claims::Claims`]), signed with `secret` (HS256).
///
/// # Errors
/// Where the claims cannot be serialised.
pub fn sign(claims: &impl Serialize, secret: &str) -> Result<String, jsonwebtoken::errors::Error> {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::Claims;
    use super::*;

    fn config() -> JwtConfig {
        JwtConfig { secrets: vec!["old".into(), "new".into()], ..JwtConfig::default() }
    }

    fn claims(user: &str) -> Claims {
        Claims { sub: user.into(), ..Claims::default() }
    }

    #[test]
    fn token_of_any_configured_secret_gives_an_identity() {
        let mut claims = claims("ana");
        claims.name = Some("Ana".into());
        claims.roles = vec!["admin".into()];
        claims.exp = Some(2_000_000_000.5);
        claims.other.insert("team".into(), "blue".into());
        for secret in ["old", "new"] {
            let session = Verifier::new(&config()).verify(&sign(&claims, secret).unwrap(), 0).unwrap();
            assert_eq!(&*session.identity.user, "ana");
            assert_eq!(session.identity.name.as_deref(), Some("Ana"));
            assert_eq!(session.identity.roles, ["admin"]);
            assert_eq!(session.identity.claims, r#"{"team":"blue"}"#);
            assert_eq!(session.expires_ms, Some(2_000_000_000_500));
        }
    }

    #[test]
    fn lone_surrogates_in_claims_are_replaced() {
        let claims: Box<RawValue> =
            serde_json::from_str(r#"{"sub":"ana","name":"A\ud83d","unread":{"n\udc00":["\ud83d\ude00"]}}"#).unwrap();
        let key = EncodingKey::from_secret(b"new");
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
        let session = Verifier::new(&config()).verify(&token, 0).unwrap();
        assert_eq!(session.identity.name.as_deref(), Some("A\u{fffd}"));
        assert_eq!(session.identity.claims, "{\"unread\":{\"n\u{fffd}\":[\"\u{1f600}\"]}}");
    }

    #[test]
    fn invalid_tokens_are_refused_with_the_reason() {
        let verifier = Verifier::new(&JwtConfig { issuer: Some("us".into()), ..config() });
        let check = |token: &str, reason: &str| match verifier.verify(token, 0) {
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

    #[test]
    fn critical_extensions_are_refused() {
        let key = EncodingKey::from_secret(b"new");
        for crit in [vec![], vec!["exp".to_owned()], vec!["b64".to_owned()]] {
            let header = Header { crit: Some(crit), ..Header::new(Algorithm::HS256) };
            let token = jsonwebtoken::encode(&header, &claims("ana"), &key).unwrap();
            let refused = Verifier::new(&config()).verify(&token, 0).unwrap_err();
            assert!(refused.to_string().contains("crit"), "{refused}");
        }
    }

    #[test]
    fn leeway_applies_to_exp_nbf_and_iat() {
        let leeway = Duration::from_secs(60);
        let verifier = Verifier::new(&JwtConfig { leeway, ..config() });
        let at = |claim: &str, seconds: f64| {
            let mut claims = claims("ana");
            match claim {
                "exp" => claims.exp = Some(seconds),
                claim => drop(claims.other.insert(claim.into(), seconds.into())),
            }
            verifier.verify(&sign(&claims, "new").unwrap(), 1_000_000_000)
        };
        assert_eq!(at("exp", 999_941.0).unwrap().expires_ms, Some(1_000_001_000));
        assert_eq!(at("exp", 999_940.0).unwrap_err(), AuthError::Expired);
        for claim in ["nbf", "iat"] {
            assert!(at(claim, 1_000_060.0).is_ok(), "{claim}");
            assert!(at(claim, 1_000_061.0).unwrap_err().to_string().contains(claim));
        }
    }
}
