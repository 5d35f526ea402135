//! The tokens that a client presents in several places: a browser adds cookies of which the page is unaware.

use std::fmt;

use super::authenticator::Authenticator;
use super::jwt::CheckBudget;
use super::session::{AuthError, Session};

/// The most tokens that are checked: more than any honest client presents, and each costs a signature check.
pub const MAX_PRESENTED_TOKENS: usize = 8;

/// The place of a token in a client's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The payload of a Socket.IO CONNECT packet.
    Payload,
    /// The `Authorization` header.
    Header,
    /// The query of the handshake.
    Query,
    /// The configured cookie.
    Cookie,
    /// The payload of an `authenticate` event.
    Message,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Payload => "in auth.token",
            Self::Header => "in the Authorization header",
            Self::Query => "in the query",
            Self::Cookie => "in the cookie",
            Self::Message => "in authenticate",
        })
    }
}

/// A token, and its place.
#[derive(Clone, PartialEq, Eq)]
pub struct PresentedToken {
    /// The place.
    pub place: Place,
    /// The token, which is not empty.
    pub token: Box<str>,
}

impl PresentedToken {
    /// The token in a text that may begin with `Bearer`, which some clients add in every place. `None` where it is
    /// empty, as in a deleted cookie.
    pub fn new(place: Place, text: &str) -> Option<Self> {
        let text = text.trim();
        let token = match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ if text.eq_ignore_ascii_case("bearer") => "",
            _ => text,
        };
        (!token.is_empty()).then(|| Self { place, token: token.into() })
    }
}

impl fmt::Debug for PresentedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens must not be logged.
        f.debug_tuple("PresentedToken").field(&self.place).finish()
    }
}

/// The refusal of a client without a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whether a token has expired, so that a newer one may be valid.
    pub is_expired: bool,
    /// Whether the client may try again at once, because a key was not known yet.
    pub is_passing: bool,
    /// Whether an operator keeps the client out.
    pub is_blocked: bool,
    /// The places, with the reason for each.
    pub message: String,
}

impl Authenticator {
    /// The session of the first valid token. Invalid tokens in other places are ignored, because a client may be
    /// unaware of cookies that it sends.
    ///
    /// # Errors
    /// Where no token is valid.
    pub fn verify_any<'a>(&self, tokens: impl IntoIterator<Item = &'a PresentedToken>) -> Result<Session, Refusal> {
        let (mut refused, mut budget) = (Vec::new(), CheckBudget::default());
        for PresentedToken { place, token } in tokens.into_iter().take(MAX_PRESENTED_TOKENS) {
            match self.verify_within(&mut budget, token) {
                Ok(session) => return Ok(session),
                Err(error) => refused.push((*place, error)),
            }
        }
        let is_expired = refused.iter().any(|(_, error)| *error == AuthError::Expired);
        let is_blocked = refused.iter().any(|(_, error)| matches!(error, AuthError::Blocked(_)));
        let is_passing = refused.iter().any(|(_, error)| *error == AuthError::KeyUnknown);
        let message = match &*refused {
            [(_, AuthError::KeyUnknown)] => AuthError::KeyUnknown.to_string(),
            [(_, AuthError::Blocked(reason))] => reason.clone(),
            [(place, AuthError::Expired)] => format!("the token {place} has expired: get a new one and connect again"),
            [(place, AuthError::Invalid(reason))] => format!("the token {place} is not valid: {reason}"),
            several => {
                let reasons: Vec<_> =
                    several.iter().map(|(place, error)| format!("{place}: {}", reason(error))).collect();
                format!("no token is valid: {}", reasons.join("; "))
            }
        };
        Err(Refusal { is_expired, is_passing, is_blocked, message })
    }
}

fn reason(error: &AuthError) -> &str {
    match error {
        AuthError::Expired => "it has expired",
        AuthError::KeyUnknown => "its key is not known yet",
        AuthError::Invalid(reason) | AuthError::Blocked(reason) => reason,
    }
}

#[cfg(test)]
mod tests {
    use prometheus::IntGauge;

    use super::super::{AuthConfig, Blocks, Claims, JwtConfig, sign};
    use super::*;
    use crate::model::Clock;

    fn token(user: &str, exp: Option<f64>) -> String {
        sign(&Claims { sub: user.into(), exp, ..Claims::default() }, "s").unwrap()
    }

    fn verify(tokens: &[(Place, &str)]) -> Result<String, Refusal> {
        let jwt = JwtConfig { secrets: vec!["s".into()], ..JwtConfig::default() };
        let blocks = Blocks::new(IntGauge::new("a", "a").unwrap());
        let clock = Clock::manual(1_000_000_000_000);
        let auth = Authenticator::new(AuthConfig { anonymous: false, jwt }, blocks, clock);
        let tokens: Vec<_> = tokens.iter().filter_map(|(place, text)| PresentedToken::new(*place, text)).collect();
        auth.verify_any(&tokens).map(|session| session.identity.user.to_string())
    }

    #[test]
    fn first_valid_token_counts() {
        let (ana, ben, stale) = (token("ana", None), token("ben", None), token("old", Some(1.0)));
        let bearer = format!("Bearer {ana}");
        for tokens in [
            &[(Place::Header, &*ana), (Place::Cookie, &ben)][..],
            &[(Place::Query, ""), (Place::Cookie, &ana)],
            &[(Place::Payload, "Bearer "), (Place::Query, &bearer)],
            &[(Place::Cookie, &stale), (Place::Cookie, &ana)],
            &[(Place::Query, "undefined"), (Place::Cookie, &stale), (Place::Cookie, &ana)],
        ] {
            assert_eq!(verify(tokens).unwrap(), "ana", "{tokens:?}");
        }
    }

    #[test]
    fn refusal_names_each_tokens_place_and_reason() {
        let stale = token("old", Some(1.0));
        let refused = verify(&[(Place::Query, &stale)]).unwrap_err();
        assert!(refused.is_expired && refused.message.starts_with("the token in the query has expired"), "{refused:?}");
        let refused = verify(&[(Place::Payload, "a.b")]).unwrap_err();
        assert!(!refused.is_expired, "{refused:?}");
        assert_eq!(refused.message, "the token in auth.token is not valid: it is not a JSON Web Token");
        let refused = verify(&[(Place::Header, "x"), (Place::Cookie, &stale)]).unwrap_err();
        assert!(refused.is_expired, "a newer one helps");
        let message =
            "no token is valid: in the Authorization header: it is not a JSON Web Token; in the cookie: it has expired";
        assert_eq!(refused.message, message);
    }

    #[test]
    fn excess_tokens_are_not_checked() {
        let good = token("ana", None);
        let mut tokens = vec![(Place::Cookie, "x"); MAX_PRESENTED_TOKENS];
        tokens.push((Place::Cookie, &good));
        assert!(verify(&tokens).is_err());
    }
}
