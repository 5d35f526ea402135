//! The tokens that a client presents, and in which places: a browser sends cookies along that the page knows nothing of.

use std::fmt;

use super::authenticator::Authenticator;
use super::session::{AuthError, Session};

/// The most tokens that are looked at: more than any client shows in earnest, and each costs a signature.
pub const MAX_SHOWN: usize = 8;

/// Where a client shows a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The payload with which a Socket.IO namespace is entered.
    Payload,
    /// The `Authorization` header.
    Header,
    /// The query of the handshake.
    Query,
    /// The configured cookie.
    Cookie,
    /// A first message.
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

/// A token, and where it was.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown {
    /// The place.
    pub place: Place,
    /// The token, which is not empty.
    pub token: Box<str>,
}

impl Shown {
    /// What a client wrote in a place. None where it is empty, as a cookie that was deleted. Some clients write the whole
    /// header everywhere.
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

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A token belongs in no log.
        f.debug_tuple("Shown").field(&self.place).finish()
    }
}

/// Why none of the tokens that a client showed is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whether one was valid once, so that a newer one may help.
    pub is_expired: bool,
    /// Each place, and what is wrong with what was there.
    pub message: String,
}

impl Authenticator {
    /// Who shows these tokens: the first that is valid counts. A stale one in one place does not stand in the way of a good
    /// one in another, for a client may not know of all that it sends.
    ///
    /// # Errors
    /// Where none is valid.
    pub fn verify_shown<'a>(&self, shown: impl IntoIterator<Item = &'a Shown>) -> Result<Session, Refusal> {
        let mut refused = Vec::new();
        for Shown { place, token } in shown.into_iter().take(MAX_SHOWN) {
            match self.verify(token) {
                Ok(session) => return Ok(session),
                Err(error) => refused.push((*place, error)),
            }
        }
        let is_expired = refused.iter().any(|(_, error)| *error == AuthError::Expired);
        let message = match &*refused {
            [(place, AuthError::Expired)] => format!("the token {place} has expired: get a new one and connect again"),
            [(place, AuthError::Invalid(reason))] => format!("the token {place} is not valid: {reason}"),
            several => {
                let reasons: Vec<_> =
                    several.iter().map(|(place, error)| format!("{place}: {}", reason(error))).collect();
                format!("no token is valid: {}", reasons.join("; "))
            }
        };
        Err(Refusal { is_expired, message })
    }
}

fn reason(error: &AuthError) -> &str {
    match error {
        AuthError::Expired => "it has expired",
        AuthError::Invalid(reason) => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AuthConfig, Claims, JwtConfig, sign};
    use super::*;
    use crate::model::Clock;

    fn token(user: &str, exp: Option<f64>) -> String {
        sign(&Claims { sub: user.into(), exp, ..Claims::default() }, "s").unwrap()
    }

    fn verify(shown: &[(Place, &str)]) -> Result<String, Refusal> {
        let jwt = JwtConfig { secrets: vec!["s".into()], ..JwtConfig::default() };
        let auth = Authenticator::new(AuthConfig { anonymous: false, jwt }, Clock::manual(1_000_000_000_000));
        let shown: Vec<_> = shown.iter().filter_map(|(place, text)| Shown::new(*place, text)).collect();
        auth.verify_shown(&shown).map(|session| session.identity.user.to_string())
    }

    #[test]
    fn the_first_valid_token_counts() {
        let (ana, ben, stale) = (token("ana", None), token("ben", None), token("old", Some(1.0)));
        let bearer = format!("Bearer {ana}");
        for shown in [
            &[(Place::Header, &*ana), (Place::Cookie, &ben)][..],
            &[(Place::Query, ""), (Place::Cookie, &ana)],
            &[(Place::Payload, "Bearer "), (Place::Query, &bearer)],
            &[(Place::Cookie, &stale), (Place::Cookie, &ana)],
            &[(Place::Query, "undefined"), (Place::Cookie, &stale), (Place::Cookie, &ana)],
        ] {
            assert_eq!(verify(shown).unwrap(), "ana", "{shown:?}");
        }
    }

    #[test]
    fn a_refusal_names_each_place() {
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
    fn only_so_many_tokens_are_looked_at() {
        let good = token("ana", None);
        let mut shown = vec![(Place::Cookie, "x"); MAX_SHOWN];
        shown.push((Place::Cookie, &good));
        assert!(verify(&shown).is_err());
    }
}
