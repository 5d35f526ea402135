//! An identity provider of a test: its keys, the tokens that it signs, and a server for its key set.

use std::sync::{Arc, Mutex, PoisonError};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use serde_json::{Value, json};

use crate::{StubAnswer, StubServer};

/// An RSA key for tests alone: making one takes a second.
const RSA_PRIVATE: &str = include_str!("../keys/rsa-private.pem");
/// Its public half, in PEM.
pub const RSA_PUBLIC: &str = include_str!("../keys/rsa-public.pem");

/// A key pair of an issuer.
#[derive(Clone)]
pub struct IssuerKey {
    /// The algorithm that it signs with.
    pub algorithm: Algorithm,
    /// The public key, in PEM.
    pub public_pem: String,
    private: EncodingKey,
}

impl std::fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuerKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl IssuerKey {
    /// A new key for an algorithm; for RSA always the same.
    ///
    /// # Panics
    /// For HMAC, which has no key pairs.
    pub fn new(algorithm: Algorithm) -> Self {
        let generate = |of| KeyPair::generate_for(of).expect("a key can be made");
        let (private, public_pem) = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => {
                let of = if algorithm == Algorithm::ES256 { &PKCS_ECDSA_P256_SHA256 } else { &PKCS_ECDSA_P384_SHA384 };
                let pair = generate(of);
                (EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()), pair.public_key_pem())
            }
            Algorithm::EdDSA => {
                let pair = generate(&PKCS_ED25519);
                (EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()), pair.public_key_pem())
            }
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => panic!("{algorithm:?} has no key pairs"),
            _ => (EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()), RSA_PUBLIC.to_owned()),
        };
        Self { algorithm, public_pem, private: private.expect("the key is right") }
    }

    /// A token with these claims, and a header with this `kid`.
    pub fn sign(&self, claims: &Value, kid: Option<&str>) -> String {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.private).expect("a token can be signed")
    }

    /// The public key as a member of a key set.
    pub fn jwk(&self, kid: &str) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.private, self.algorithm).expect("the key is public");
        jwk.common.key_id = Some(kid.to_owned());
        serde_json::to_value(jwk).expect("a key is JSON")
    }
}

/// What a key server answers.
#[derive(Debug, Clone)]
pub enum KeyAnswer {
    /// A set of keys.
    Keys(Vec<Value>),
    /// This status and body.
    Raw(u16, String),
    /// Nothing, until the client gives up.
    Silence,
}

/// A server for a key set, whose answer a test can change.
#[derive(Debug)]
pub struct KeyServer {
    /// The URL of the set.
    pub url: String,
    answer: Arc<Mutex<KeyAnswer>>,
    server: StubServer,
}

impl KeyServer {
    /// Starts a server, which ends with the process.
    pub fn start(answer: KeyAnswer) -> Self {
        let answer = Arc::new(Mutex::new(answer));
        let shared = answer.clone();
        let server = StubServer::start("/.well-known/jwks.json", move |_| {
            match shared.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                KeyAnswer::Keys(keys) => StubAnswer::Raw(200, json!({ "keys": keys }).to_string()),
                KeyAnswer::Raw(status, body) => StubAnswer::Raw(status, body),
                KeyAnswer::Silence => StubAnswer::Silence,
            }
        });
        Self { url: server.url.clone(), answer, server }
    }

    /// Changes the answer.
    pub fn set(&self, answer: KeyAnswer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// The number of requests so far.
    pub fn n_requests(&self) -> usize {
        self.server.n_requests()
    }
}
