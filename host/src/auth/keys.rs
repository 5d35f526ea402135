//! The keys that check signatures: shared secrets, public keys in PEM, and sets of JSON Web Keys (RFC 7517).

use std::fmt;

use anyhow::{anyhow, bail, ensure};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde_json::Value;

/// The most keys of a set. Identity providers have two or three.
const MAX_KEYS: usize = 100;

/// Bytes of an RSA modulus: 2048 bits at least (RFC 7518, section 3.3), 4096 at most, so that a check stays cheap.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=514;

/// A key, and the algorithms that it may be used with.
#[derive(Clone)]
pub struct VerificationKey {
    /// The key's id. A key without one checks tokens of any `kid`.
    pub kid: Option<Box<str>>,
    pub(super) decoding: DecodingKey,
    /// Fixed by the key and the configuration, never by a token.
    pub algorithms: Vec<Algorithm>,
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets must not be logged.
        f.debug_struct("VerificationKey")
            .field("kid", &self.kid)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

impl VerificationKey {
    /// A shared secret. `configured` are the algorithms of the configuration; HS256 alone where there are none.
    pub fn of_secret(secret: &str, kid: Option<Box<str>>, configured: &[Algorithm]) -> Self {
        let algorithms = allowed(configured, AlgorithmFamily::Hmac, &[Algorithm::HS256]);
        Self { kid, decoding: DecodingKey::from_secret(secret.as_bytes()), algorithms }
    }

    /// Public keys: PEM with one or several keys or certificates, or a JWK set.
    ///
    /// # Errors
    /// Where the text has no public key, a private one, or one of another kind.
    pub fn parse_public(text: &str, configured: &[Algorithm]) -> anyhow::Result<Vec<Self>> {
        if text.trim_start().starts_with('{') {
            let (keys, skipped) = parse_set(text.as_bytes(), configured)?;
            ensure!(!keys.is_empty(), "the JWK set has no key that checks signatures: {}", skipped.join("; "));
            return Ok(keys);
        }
        let mut keys = Vec::new();
        for block in text.split_inclusive("-----END ").collect::<Vec<_>>().windows(2) {
            let begin = block[0].find("-----BEGIN ").ok_or_else(|| anyhow!("it is not PEM: a key has no beginning"))?;
            let label = block[1].split("-----").next().unwrap_or_default();
            ensure!(!label.contains("PRIVATE"), "it has a private key, which signs: give the public key alone");
            let pem = format!("{}{label}-----\n", &block[0][begin..]);
            keys.push(Self::of_pem(&pem, configured)?);
        }
        if keys.is_empty() {
            bail!("it has no key: a public key is PEM (-----BEGIN PUBLIC KEY-----), or a JWK set");
        }
        Ok(keys)
    }

    fn of_pem(pem: &str, configured: &[Algorithm]) -> anyhow::Result<Self> {
        let pem = pem.as_bytes();
        let (decoding, algorithms) = if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            // The modulus with the exponent and the framing of PKCS #1.
            let n_bytes = key.try_get_as_bytes().map_or(0, <[u8]>::len).saturating_sub(14);
            ensure!(RSA_BYTES.contains(&n_bytes), "an RSA key in it has less than 2048 or more than 4096 bits");
            (key, allowed(configured, AlgorithmFamily::Rsa, &[Algorithm::RS256]))
        } else if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            (key, allowed(configured, AlgorithmFamily::Ec, &[Algorithm::ES256, Algorithm::ES384]))
        } else if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            (key, allowed(configured, AlgorithmFamily::Ed, &[Algorithm::EdDSA]))
        } else {
            bail!("a key in it is neither RSA nor elliptic (P-256, P-384) nor Ed25519");
        };
        ensure!(
            !algorithms.is_empty(),
            "auth.jwt.algorithms has none that a key in it can check: add RS256, ES256, EdDSA or what the issuer uses"
        );
        Ok(Self { kid: None, decoding, algorithms })
    }

    /// A key of a set.
    fn of_jwk(jwk: &Value, configured: &[Algorithm]) -> Result<Self, String> {
        let kid = jwk["kid"]
            .as_str()
            .unwrap_or("without kid")
            .chars()
            .take(64)
            .collect::<String>()
            .escape_debug()
            .to_string();
        if jwk.get("d").is_some() {
            return Err(format!("the key {kid} has a private part (d), which belongs to the issuer alone"));
        }
        let jwk: Jwk = serde_json::from_value(jwk.clone()).map_err(|error| format!("the key {kid}: {error}"))?;
        let skipped = |why: &str| Err(format!("the key {kid} {why}"));
        let common = &jwk.common;
        if common.public_key_use.as_ref().is_some_and(|of| *of != PublicKeyUse::Signature) {
            return skipped("is not for signatures");
        }
        if common.key_operations.as_ref().is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
            return skipped("is not for checking signatures");
        }
        let usual: &[Algorithm] = match &jwk.algorithm {
            // Base64 has four characters for three bytes.
            AlgorithmParameters::RSA(of) if !RSA_BYTES.contains(&(of.n.len() * 3 / 4)) => {
                return skipped("is an RSA key of less than 2048 or more than 4096 bits");
            }
            AlgorithmParameters::RSA(_) => &[Algorithm::RS256],
            AlgorithmParameters::EllipticCurve(of) if of.curve == EllipticCurve::P256 => &[Algorithm::ES256],
            AlgorithmParameters::EllipticCurve(of) if of.curve == EllipticCurve::P384 => &[Algorithm::ES384],
            AlgorithmParameters::OctetKeyPair(of) if of.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
            AlgorithmParameters::OctetKey(_) => return skipped("is a shared secret, which is no secret in a set"),
            _ => return skipped("is of a kind that this host does not know"),
        };
        let decoding = DecodingKey::from_jwk(&jwk).map_err(|error| format!("the key {kid}: {error}"))?;
        let family = decoding.family();
        let algorithms = match common.key_algorithm {
            // The key says with which algorithm alone it is used (RFC 7517, section 4.4).
            Some(own) => match own.to_string().parse::<Algorithm>() {
                Ok(own) if configured.is_empty() || configured.contains(&own) => allowed(&[own], family, &[]),
                _ => Vec::new(),
            },
            None => allowed(configured, family, usual),
        };
        if algorithms.is_empty() {
            return skipped("is for algorithms that auth.jwt.algorithms does not have");
        }
        Ok(Self { kid: jwk.common.key_id.map(Box::from), decoding, algorithms })
    }
}

/// The configured algorithms of a family, or the usual ones where none are configured.
fn allowed(configured: &[Algorithm], family: AlgorithmFamily, usual: &[Algorithm]) -> Vec<Algorithm> {
    if configured.is_empty() {
        return usual.to_vec();
    }
    configured.iter().copied().filter(|algorithm| algorithm.family() == family).collect()
}

/// Reads a JWK set. Keys that cannot check signatures are skipped, with the reason.
///
/// # Errors
/// Where it is not a set, or has too many keys.
pub(super) fn parse_set(json: &[u8], configured: &[Algorithm]) -> anyhow::Result<(Vec<VerificationKey>, Vec<String>)> {
    let set: Value = serde_json::from_slice(json).map_err(|error| anyhow!("it is not JSON: {error}"))?;
    let Some(all) = set["keys"].as_array() else { bail!("it is not a JWK set: it has no list of keys") };
    ensure!(all.len() <= MAX_KEYS, "it has {} keys, and may have {MAX_KEYS}", all.len());
    let (mut keys, mut skipped) = (Vec::new(), Vec::new());
    for jwk in all {
        match VerificationKey::of_jwk(jwk, configured) {
            Ok(key) => keys.push(key),
            Err(why) => skipped.push(why),
        }
    }
    Ok((keys, skipped))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unsafe_keys_of_a_set_are_skipped() {
        let key = |n_bytes: usize| json!({ "kty": "RSA", "kid": "k", "e": "AQAB", "n": "A".repeat((n_bytes * 4).div_ceil(3)) });
        let with = |member: &str, value: Value| {
            let mut key = key(256);
            key[member] = value;
            key
        };
        let read = |key: Value| parse_set(json!({ "keys": [key] }).to_string().as_bytes(), &[]).unwrap();
        for good in [key(256), key(512), with("alg", json!("RS256")), with("key_ops", json!(["verify"]))] {
            let (keys, skipped) = read(good);
            assert_eq!((keys.len(), skipped), (1, Vec::new()));
        }
        for (bad, reason) in [
            (key(128), "2048"),
            (key(1024), "4096"),
            (with("d", json!("AQAB")), "private"),
            (with("use", json!("enc")), "signatures"),
            (with("alg", json!("ES256")), "algorithms"),
            (json!({ "kty": "oct", "k": "AAAA" }), "shared secret"),
        ] {
            let (keys, skipped) = read(bad);
            assert!(keys.is_empty() && skipped[0].contains(reason), "{skipped:?}");
        }
    }
}
