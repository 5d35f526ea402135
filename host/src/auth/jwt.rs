//! JSON Web Tokens (RFC 7519), signed with a shared secret (HMAC) or a private key (RSA, ECDSA, EdDSA; RFC 7518, RFC 8037).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header, Validation};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::claims::{self, ClaimNames};
use super::jwks::Jwks;
use super::keys::VerificationKey;
use super::session::{AuthError, CredentialIds, Session};
use crate::model::without_lone_surrogates;

/// The longest token, in bytes: the longest header line that common servers accept.
const MAX_TOKEN_BYTES: usize = 8192;

/// Why a token with critical extensions (RFC 7515, section 4.1.11) is refused: this host understands none.
const CRITICAL: &str = "its header has crit, which names extensions that this host does not understand";

/// Checks of signatures that one request may cost, over all of its tokens. A check by a public key takes a hundred times as
/// long as one by a secret, on the thread that serves other clients too.
#[derive(Debug)]
pub(super) struct CheckBudget {
    by_public_key: usize,
    by_secret: usize,
}

impl Default for CheckBudget {
    fn default() -> Self {
        Self { by_public_key: 4, by_secret: 32 }
    }
}

impl CheckBudget {
    /// Takes one check. Returns false where none is left.
    fn take(&mut self, algorithm: Algorithm) -> bool {
        let left = match algorithm.family() {
            AlgorithmFamily::Hmac => &mut self.by_secret,
            _ => &mut self.by_public_key,
        };
        *left = match left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

/// The rules for valid tokens.
#[derive(Clone, Default)]
pub struct JwtConfig {
    /// Secrets to check signatures with. A token signed with any of them is valid, so that secrets can be rotated.
    pub secrets: Vec<String>,
    /// Further keys: secrets with ids, and public keys.
    pub keys: Vec<VerificationKey>,
    /// The URL of a JWK set.
    pub jwks_url: Option<Uri>,
    /// The algorithms that keys may be used with. Where this is empty, HS256 for secrets, and for a public key the usual
    /// ones of its kind.
    pub algorithms: Vec<Algorithm>,
    /// The values of which `iss` must be one; any where this is empty.
    pub issuers: Vec<String>,
    /// The values of which `aud` must contain one; any where this is empty.
    pub audiences: Vec<String>,
    /// How far the clocks of the issuer and of this host may differ: the tolerance for `exp`, `nbf` and `iat`.
    pub leeway: Duration,
    /// The greatest age of tokens without `exp`, which then need `iat`. Without it they last for ever.
    pub max_age: Option<Duration>,
    /// The claims that have the identity.
    pub claims: ClaimNames,
}

impl JwtConfig {
    /// The number of secrets that are shorter than the hash, and can be guessed from a token (RFC 7518, section 3.2).
    pub fn weak_secrets(&self) -> usize {
        const LEAST_BYTES: usize = 32;
        self.secrets.iter().filter(|secret| secret.len() < LEAST_BYTES).count()
    }

    /// Whether no secret, key or key set is configured.
    pub fn has_no_key(&self) -> bool {
        self.secrets.is_empty() && self.keys.is_empty() && self.jwks_url.is_none()
    }
}

impl fmt::Debug for JwtConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets must not be logged.
        f.debug_struct("JwtConfig")
            .field("secrets", &self.secrets.len())
            .field("keys", &self.keys)
            .field("jwks_url", &self.jwks_url)
            .field("algorithms", &self.algorithms)
            .field("issuers", &self.issuers)
            .field("audiences", &self.audiences)
            .field("leeway", &self.leeway)
            .field("max_age", &self.max_age)
            .field("claims", &self.claims)
            .finish()
    }
}

/// Checks tokens against the configured keys.
#[derive(Debug)]
pub(super) struct Verifier {
    keys: Vec<VerificationKey>,
    jwks: Option<Jwks>,
    issuers: Vec<String>,
    audiences: Vec<String>,
    leeway: Duration,
    max_age: Option<Duration>,
    claims: ClaimNames,
}

impl Verifier {
    pub(super) fn new(config: &JwtConfig, jwks: Option<Jwks>) -> Self {
        let of_secret = |secret: &String| VerificationKey::of_secret(secret, None, &config.algorithms);
        let keys = config.secrets.iter().map(of_secret).chain(config.keys.iter().cloned()).collect();
        let JwtConfig { issuers, audiences, leeway, max_age, claims, .. } = config.clone();
        Self { keys, jwks, issuers, audiences, leeway, max_age, claims }
    }

    /// Whether a check may be by a public key, which takes far longer than one by a secret.
    pub(super) fn has_public_keys(&self) -> bool {
        let is_public =
            |key: &VerificationKey| key.algorithms.iter().any(|algorithm| algorithm.family() != AlgorithmFamily::Hmac);
        self.jwks.is_some() || self.keys.iter().any(is_public)
    }

    pub(super) fn has_keys(&self) -> bool {
        !self.keys.is_empty() || self.jwks.is_some()
    }

    #[cfg(test)]
    fn verify(&self, token: &str, now_ms: u64) -> Result<Session, AuthError> {
        self.verify_within(&mut CheckBudget::default(), token, now_ms)
    }

    /// Checks a token, at a time in milliseconds since 1970, within what the request may still cost.
    pub(super) fn verify_within(
        &self,
        budget: &mut CheckBudget,
        token: &str,
        now_ms: u64,
    ) -> Result<Session, AuthError> {
        let claims = self.claims(token, budget)?;
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str).map(Box::from);
        let ids = CredentialIds { token_id: text("jti"), session_id: text("sid"), ..CredentialIds::default() };
        self.check_issuer(&claims)?;
        let (identity, times) = claims::read(claims, &self.claims).map_err(AuthError::Invalid)?;
        let leeway_ms = self.leeway.as_millis() as u64;
        let ms = |seconds: f64| (seconds * 1000.0).max(0.0) as u64;
        let ends = match (times.expires, self.max_age, times.issued_at) {
            (Some(seconds), _, _) => Some(ms(seconds)),
            (None, None, _) => None,
            (None, Some(age), Some(issued)) => Some(ms(issued).saturating_add(age.as_millis() as u64)),
            (None, Some(_), None) => {
                let reason =
                    "it has neither an expiry (exp) nor a time of issue (iat), and this host wants one of them";
                return Err(AuthError::Invalid(reason.to_owned()));
            }
        };
        let expires_ms = ends.map(|ends| ends.saturating_add(leeway_ms));
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

    /// The claims of a token whose signature one of the keys has made. The keys that are tried are those whose own
    /// algorithms have the token's, and whose id is the token's where both have one.
    fn claims(&self, token: &str, budget: &mut CheckBudget) -> Result<Map<String, Value>, AuthError> {
        let invalid = |reason: &str| AuthError::Invalid(reason.to_owned());
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid("it is longer than 8192 bytes"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| invalid(header_refusal(error.kind())))?;
        if header.crit.is_some() {
            return Err(invalid(CRITICAL));
        }
        let fetched = self.jwks.as_ref().map(Jwks::keys);
        let all = || self.keys.iter().chain(fetched.iter().flat_map(|keys| keys.iter()));
        let is_known = |key: &&VerificationKey| {
            key.kid.is_none() || header.kid.is_none() || key.kid.as_deref() == header.kid.as_deref()
        };
        let usable = |key: &&VerificationKey| key.algorithms.contains(&header.alg);
        let mut is_tried = false;
        let is_exact = |key: &&VerificationKey| header.kid.is_some() && key.kid.as_deref() == header.kid.as_deref();
        let others = all().filter(|key| !is_exact(key)).filter(is_known);
        for key in all().filter(is_exact).chain(others).filter(usable) {
            if !budget.take(header.alg) {
                return Err(invalid(
                    "too many signatures were to be checked for one request: name the key (kid), and send one token",
                ));
            }
            is_tried = true;
            match jsonwebtoken::decode::<Box<RawValue>>(token, &key.decoding, &validation(header.alg)) {
                Ok(token) => return read_claims(&token.claims),
                Err(error) => match error.kind() {
                    ErrorKind::Base64(_) | ErrorKind::InvalidToken => {
                        return Err(invalid("it is not a JSON Web Token"));
                    }
                    ErrorKind::Json(error) => return Err(AuthError::Invalid(not_an_object(error))),
                    _ => {}
                },
            }
        }
        // A bad signature by a key that is known is no reason to fetch keys.
        let is_named = all().filter(is_exact).any(|key| usable(&key));
        if !is_named && self.jwks.as_ref().is_some_and(|jwks| jwks.want_newer(header.alg)) {
            return Err(AuthError::KeyUnknown);
        }
        Err(invalid(if is_tried {
            "its signature is not by a secret that this host knows"
        } else if !self.has_keys() {
            "this host is configured with no secret to check it"
        } else if all().any(|key| usable(&key)) {
            "its key (kid) is not one that this host knows"
        } else {
            "it is signed with an algorithm that this host does not accept"
        }))
    }

    fn check_issuer(&self, claims: &Map<String, Value>) -> Result<(), AuthError> {
        let has_any = |claim: &str, wanted: &[String]| {
            let is_wanted = |value: &Value| value.as_str().is_some_and(|value| wanted.iter().any(|one| one == value));
            match claims.get(claim) {
                None | Some(Value::Null) => {
                    Err(AuthError::Invalid(format!("it has no {claim}, which this host wants")))
                }
                Some(Value::Array(values)) if claim == "aud" => Ok(values.iter().any(is_wanted)),
                Some(value) => Ok(is_wanted(value)),
            }
        };
        if !self.issuers.is_empty() && !has_any("iss", &self.issuers)? {
            let reason = "its issuer (iss) is not the one that this host takes";
            return Err(AuthError::Invalid(reason.to_owned()));
        }
        if !self.audiences.is_empty() && !has_any("aud", &self.audiences)? {
            return Err(AuthError::Invalid("its audience (aud) does not name this host".to_owned()));
        }
        Ok(())
    }
}

/// The check of a signature alone: everything else is checked here, on the host's clock.
fn validation(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn header_refusal(error: &ErrorKind) -> &'static str {
    match error {
        // An unknown name of an algorithm, such as none, is an error of the header's JSON.
        ErrorKind::Json(error) if error.to_string().contains("variant") => {
            "it is signed with an algorithm that this host does not accept"
        }
        ErrorKind::InvalidAlgorithmName => "it is signed with an algorithm that this host does not accept",
        _ => "it is not a JSON Web Token",
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
            let session = Verifier::new(&config(), None).verify(&sign(&claims, secret).unwrap(), 0).unwrap();
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
        let session = Verifier::new(&config(), None).verify(&token, 0).unwrap();
        assert_eq!(session.identity.name.as_deref(), Some("A\u{fffd}"));
        assert_eq!(session.identity.claims, "{\"unread\":{\"n\u{fffd}\":[\"\u{1f600}\"]}}");
    }

    #[test]
    fn invalid_tokens_are_refused_with_the_reason() {
        let verifier = Verifier::new(&JwtConfig { issuers: vec!["us".into()], ..config() }, None);
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
            let refused = Verifier::new(&config(), None).verify(&token, 0).unwrap_err();
            assert!(refused.to_string().contains("crit"), "{refused}");
        }
    }

    #[test]
    fn leeway_applies_to_exp_nbf_and_iat() {
        let leeway = Duration::from_secs(60);
        let verifier = Verifier::new(&JwtConfig { leeway, ..config() }, None);
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
