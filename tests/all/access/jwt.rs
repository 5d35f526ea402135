//! Tokens of every algorithm and of real identity providers, and what forgers try.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use roundhouse_tests::issuer::{IssuerKey, KeyAnswer, KeyServer, RSA_PUBLIC};
use roundhouse_tests::{Closed, TestClient, TestHost, eventually, metric, with_headers};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Starts a host with files besides its configuration.
fn host_with(toml: &str, files: &[(&str, &str)]) -> TestHost {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("roundhouse.toml"), toml).unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    TestHost::start_in(dir, &[])
}

/// The first frame of a client with this token.
async fn connected(host: &TestHost, token: &str) -> Value {
    TestClient::open(with_headers(&format!("{}/ws?token={token}", host.ws), &[])).await.next().await["data"].take()
}

async fn refused(host: &TestHost, token: &str) -> Closed {
    TestClient::open(with_headers(&format!("{}/ws?token={token}", host.ws), &[])).await.closed().await
}

#[track_caller]
fn is_refused_for(closed: &Closed, reason: &str) {
    assert_eq!(closed.code, Some(4001), "{closed:?}");
    assert!(closed.reason.contains(reason), "{reason}: {closed:?}");
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

const PUBLIC: &str = "auth.jwt.public_key_file = \"key.pem\"\n";

#[tokio::test]
async fn tokens_of_every_key_pair_are_checked() {
    for algorithm in
        [Algorithm::RS256, Algorithm::RS512, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA]
    {
        let key = IssuerKey::new(algorithm);
        let config = format!("{PUBLIC}auth.jwt.algorithms = [\"{algorithm:?}\"]\n");
        let host = host_with(&config, &[("key.pem", &key.public_pem)]);
        let good = key.sign(&json!({ "sub": "ana" }), Some("any"));
        assert_eq!(connected(&host, &good).await["userId"], "ana", "{algorithm:?}");
        let (head, signature) = good.rsplit_once('.').unwrap();
        let other = if signature[10..].starts_with('A') { 'B' } else { 'A' };
        let forged = format!("{head}.{}{other}{}", &signature[..10], &signature[11..]);
        is_refused_for(&refused(&host, &forged).await, "signature");
        let own = jsonwebtoken::encode(
            &Header::new(Algorithm::HS256),
            &json!({ "sub": "eve" }),
            &EncodingKey::from_secret(key.public_pem.as_bytes()),
        );
        is_refused_for(&refused(&host, &own.unwrap()).await, "algorithm");
    }
}

#[tokio::test]
async fn algorithms_are_fixed_by_key_and_configuration() {
    let host = host_with(PUBLIC, &[("key.pem", RSA_PUBLIC)]);
    let claims = json!({ "sub": "eve" });
    // The usual algorithm of an RSA key is RS256 alone.
    is_refused_for(&refused(&host, &IssuerKey::new(Algorithm::PS256).sign(&claims, None)).await, "algorithm");
    // The public key as a shared secret.
    let secret = EncodingKey::from_secret(RSA_PUBLIC.as_bytes());
    let confused = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &secret).unwrap();
    is_refused_for(&refused(&host, &confused).await, "algorithm");
    // No signature at all: {"alg":"none"}, and {"alg":"NONE"}.
    for header in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOT05FIn0"] {
        is_refused_for(&refused(&host, &format!("{header}.eyJzdWIiOiJldmUifQ.")).await, "algorithm");
    }
    let host = TestHost::start_with("auth.jwt.secret = \"s\"\n", &[]);
    is_refused_for(&refused(&host, &IssuerKey::new(Algorithm::RS256).sign(&claims, None)).await, "algorithm");
}

#[tokio::test]
async fn key_id_selects_a_configured_key_and_nothing_else() {
    let config = "auth.jwt.secrets = [{ kid = \"a\", secret = \"first\" }, { kid = \"b\", secret = \"second\" }]\n";
    let host = host_with(config, &[("s", "eve's")]);
    let sign = |kid: Option<&str>, secret: &str| {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &json!({ "sub": "ana" }), &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    };
    for (kid, secret) in [(Some("a"), "first"), (Some("b"), "second"), (None, "second")] {
        assert_eq!(connected(&host, &sign(kid, secret)).await["userId"], "ana", "{kid:?}");
    }
    is_refused_for(&refused(&host, &sign(Some("a"), "second")).await, "signature");
    let long = "x".repeat(3000);
    for kid in ["../../s", "/dev/null", "' OR 1=1 --", "c", "", &long] {
        is_refused_for(&refused(&host, &sign(Some(kid), "")).await, "(kid)");
    }
    // Keys in the header, or by its URLs, are not keys of this host.
    let key = IssuerKey::new(Algorithm::RS256);
    let with_jku = Header {
        jku: Some("http://127.0.0.1:1/keys".to_owned()),
        jwk: Some(serde_json::from_value(key.jwk("a")).unwrap()),
        ..Header::new(Algorithm::HS256)
    };
    let secret = EncodingKey::from_secret(b"eve's");
    let forged = jsonwebtoken::encode(&with_jku, &json!({ "sub": "eve" }), &secret).unwrap();
    is_refused_for(&refused(&host, &forged).await, "signature");
}

#[tokio::test]
async fn signature_checks_of_a_request_are_bounded() {
    let key = IssuerKey::new(Algorithm::ES384);
    let config = format!("{PUBLIC}auth.jwt.algorithms = [\"ES384\"]\n");
    let host = host_with(&config, &[("key.pem", &key.public_pem)]);
    let good = key.sign(&json!({ "sub": "ana" }), None);
    let forged = IssuerKey::new(Algorithm::ES384).sign(&json!({ "sub": "eve" }), None);
    let with_forged = |n: usize| format!("{}{good}", format!("{forged}&token=").repeat(n));
    assert_eq!(connected(&host, &with_forged(3)).await["userId"], "ana");
    is_refused_for(&refused(&host, &with_forged(4)).await, "signature");
}

#[tokio::test]
async fn issuer_audience_times_and_age_are_checked() {
    let config = "auth.jwt.secret = \"s\"\nauth.jwt.issuer = [\"one\", \"two\"]\nauth.jwt.audience = \"app\"\n\
                  auth.jwt.max_age = \"1h\"\n";
    let host = TestHost::start_with(config, &[]);
    let sign = |claims: Value| {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(b"s")).unwrap()
    };
    let claims = |more: Value| {
        let mut claims = json!({ "sub": "ana", "iss": "two", "aud": ["other", "app"], "iat": now() - 10 });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        sign(claims)
    };
    assert_eq!(connected(&host, &claims(json!({}))).await["userId"], "ana");
    for (more, reason) in [
        (json!({ "iss": "three" }), "issuer (iss)"),
        (json!({ "iss": null }), "no iss"),
        (json!({ "aud": "other" }), "audience (aud)"),
        (json!({ "aud": ["a", "b"] }), "audience (aud)"),
        (json!({ "aud": null }), "no aud"),
        (json!({ "nbf": now() + 1000 }), "(nbf)"),
        (json!({ "iat": null }), "neither an expiry (exp) nor a time of issue (iat)"),
    ] {
        is_refused_for(&refused(&host, &claims(more)).await, reason);
    }
    for expired in [json!({ "exp": now() - 10 }), json!({ "iat": now() - 3700 })] {
        assert_eq!(refused(&host, &claims(expired)).await.code, Some(4002));
    }
}

/// For each identity provider: its claims, the host's configuration, and the identity.
#[tokio::test]
async fn tokens_of_identity_providers_give_identities() {
    let exp = now() + 600;
    for (provider, config, claims, user, roles) in [
        (
            "Keycloak",
            "issuer = \"https://id.example/realms/app\"\naudience = \"account\"\n\
             claims = { name = \"preferred_username\", roles = \"realm_access.roles\" }",
            json!({
                "exp": exp, "iat": exp - 700, "jti": "8f", "iss": "https://id.example/realms/app", "aud": ["account", "app"],
                "sub": "f5f0-ana", "typ": "Bearer", "azp": "web", "sid": "c1", "acr": "1", "scope": "openid",
                "realm_access": { "roles": ["agent", "offline_access"] }, "preferred_username": "ana",
                "resource_access": { "account": { "roles": ["view-profile"] } },
            }),
            "f5f0-ana",
            &["agent", "offline_access"][..],
        ),
        (
            "Auth0",
            "issuer = \"https://app.eu.auth0.com/\"\naudience = \"https://api.example\"\n\
             claims = { roles = \"https://app.example/roles\" }",
            json!({
                "iss": "https://app.eu.auth0.com/", "sub": "auth0|62", "iat": exp - 700, "exp": exp,
                "aud": ["https://api.example", "https://app.eu.auth0.com/userinfo"], "azp": "x", "scope": "openid",
                "https://app.example/roles": ["agent"],
            }),
            "auth0|62",
            &["agent"],
        ),
        (
            "Firebase",
            "issuer = \"https://securetoken.google.com/app-1\"\naudience = \"app-1\"\nclaims = { id = \"user_id\" }",
            json!({
                "iss": "https://securetoken.google.com/app-1", "aud": "app-1", "auth_time": exp - 700, "user_id": "Xy9",
                "sub": "Xy9", "iat": exp - 700, "exp": exp, "name": "Ana", "email": "ana@example.com",
                "firebase": { "identities": { "email": ["ana@example.com"] }, "sign_in_provider": "password" },
            }),
            "Xy9",
            &[],
        ),
        (
            "Cognito",
            "issuer = \"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_a\"\n\
             claims = { name = \"username\", roles = \"cognito:groups\" }",
            json!({
                "sub": "aa-bb", "cognito:groups": ["agents"], "client_id": "c", "origin_jti": "o", "token_use": "access",
                "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_a", "version": 2, "auth_time": exp - 700,
                "exp": exp, "iat": exp - 700, "jti": "j", "username": "ana",
            }),
            "aa-bb",
            &["agents"],
        ),
        (
            "Supabase",
            "issuer = \"https://x.supabase.co/auth/v1\"\naudience = \"authenticated\"\nclaims = { roles = \"role\" }",
            json!({
                "aal": "aal1", "aud": "authenticated", "exp": exp, "iat": exp - 700, "iss": "https://x.supabase.co/auth/v1",
                "email": "ana@example.com", "phone": "", "role": "authenticated", "session_id": "s", "sub": "11-22",
                "app_metadata": { "provider": "email", "roles": ["agent"] }, "user_metadata": {}, "is_anonymous": false,
            }),
            "11-22",
            &["authenticated"],
        ),
    ] {
        let key = IssuerKey::new(if provider == "Supabase" { Algorithm::ES256 } else { Algorithm::RS256 });
        let server = KeyServer::start(KeyAnswer::Keys(vec![key.jwk("1")]));
        let host = host_with(&format!("[auth.jwt]\njwks_url = \"{}\"\n{config}\n", server.url), &[]);
        let token = key.sign(&claims, Some("1"));
        assert_eq!(connected(&host, &token).await["userId"], user, "{provider}");
        let mut client = TestClient::connect(&host.ws, &token).await;
        client.emit_with_ack("ticket:view", json!({ "ticketId": "t" })).await.unwrap();
        let seen = host.get("/v1/connections").await;
        let seen =
            seen["connections"].as_array().unwrap().iter().find(|seen| seen["connectionId"] == client.id()).unwrap();
        assert_eq!(seen["roles"], json!(roles), "{provider}");
        assert_eq!(refused(&host, &IssuerKey::new(Algorithm::ES256).sign(&claims, Some("1"))).await.code, Some(4001));
    }
}

#[tokio::test]
async fn rotated_keys_are_fetched_when_a_token_names_one() {
    let (old, new) = (IssuerKey::new(Algorithm::ES256), IssuerKey::new(Algorithm::ES256));
    let server = KeyServer::start(KeyAnswer::Keys(vec![old.jwk("old")]));
    let host = host_with(&format!("[auth.jwt]\njwks_url = \"{}\"\n", server.url), &[]);
    let claims = json!({ "sub": "ana" });
    connected(&host, &old.sign(&claims, Some("old"))).await;
    server.set(KeyAnswer::Keys(vec![old.jwk("old"), new.jwk("new")]));
    // Within the cool-down an unknown key is a refusal; behind it the set is fetched, and the client comes again.
    let token = new.sign(&claims, Some("new"));
    eventually("the new key is known", async || {
        let mut client = TestClient::open(with_headers(&format!("{}/ws?token={token}", host.ws), &[])).await;
        client.next_or_closed().await.ok()
    })
    .await;
    connected(&host, &old.sign(&claims, Some("old"))).await;
    for n in 0..50 {
        is_refused_for(&refused(&host, &new.sign(&claims, Some(&format!("no{n}")))).await, "(kid)");
    }
    assert!(server.n_requests() <= 4, "{} requests: unknown keys cause no flood of fetches", server.n_requests());
}

#[tokio::test]
async fn known_keys_outlive_their_server() {
    let key = IssuerKey::new(Algorithm::ES256);
    let server = KeyServer::start(KeyAnswer::Keys(vec![key.jwk("1")]));
    let host = host_with(&format!("[auth.jwt]\njwks_url = \"{}\"\n", server.url), &[]);
    let token = key.sign(&json!({ "sub": "ana" }), Some("1"));
    connected(&host, &token).await;
    server.set(KeyAnswer::Raw(500, String::new()));
    let unknown = key.sign(&json!({ "sub": "ana" }), Some("2"));
    eventually("a fetch has failed", async || {
        refused(&host, &unknown).await;
        (metric(&host.api, "jwks_fetches_total{outcome=\"failed\"}").await > 0).then_some(())
    })
    .await;
    connected(&host, &token).await;
}

#[tokio::test]
async fn bad_answers_leave_the_host_without_keys_and_alive() {
    let many: Vec<Value> =
        (0..101).map(|n| json!({ "kty": "RSA", "kid": n.to_string(), "n": "AQAB", "e": "AQAB" })).collect();
    for answer in [
        KeyAnswer::Raw(404, "no".to_owned()),
        KeyAnswer::Raw(200, "nonsense".to_owned()),
        KeyAnswer::Raw(200, "{\"keys\":5}".to_owned()),
        KeyAnswer::Raw(200, "x".repeat(10_000_000)),
        KeyAnswer::Keys(vec![json!({ "kty": "oct", "k": "czEyMw", "alg": "HS256", "kid": "1" })]),
        KeyAnswer::Keys(many),
        KeyAnswer::Silence,
    ] {
        let server = KeyServer::start(answer);
        let host = host_with(&format!("[auth.jwt]\njwks_url = \"{}\"\n", server.url), &[]);
        let forged = jsonwebtoken::encode(
            &Header { kid: Some("1".to_owned()), ..Header::new(Algorithm::HS256) },
            &json!({ "sub": "eve" }),
            &EncodingKey::from_secret(b"s123"),
        );
        assert!(matches!(refused(&host, &forged.unwrap()).await.code, Some(4001 | 1013)));
        eventually("the failure is counted", async || {
            (metric(&host.api, "jwks_fetches_total{outcome=\"failed\"}").await > 0).then_some(())
        })
        .await;
        assert!(host.log().contains("jwks_url cannot be fetched"), "{}", host.log());
    }
}

#[test]
fn wrong_keys_are_refused_at_the_start() {
    let private = include_str!("../../keys/rsa-private.pem");
    for (text, reason) in
        [("", "no key"), ("nonsense", "no key"), (private, "private key"), ("{\"keys\":[]}", "no key")]
    {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("r.toml"), PUBLIC).unwrap();
        std::fs::write(dir.path().join("key.pem"), text).unwrap();
        let output = TestHost::command(dir.path()).args(["check", "--config", "r.toml"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && stderr.contains(reason), "{reason}: {stderr}");
        assert!(!stderr.contains("MII"), "{stderr}");
    }
}
