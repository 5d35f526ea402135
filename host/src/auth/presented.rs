//! The credentials that a client presents in several places: a browser adds cookies of which the page is unaware.

use std::fmt;

use super::authenticator::Authenticator;
use super::cookie_session::SessionHandle;
use super::jwt::CheckBudget;
use super::session::{AuthError, Session};
use crate::model::ErrorCode;

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
    /// The cookie of a session.
    Session,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Payload => "in auth.token",
            Self::Header => "in the Authorization header",
            Self::Query => "in the query",
            Self::Cookie => "in the cookie",
            Self::Message => "in authenticate",
            Self::Session => "in the session cookie",
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

/// A cookie's session, as the endpoint of sessions told: its handle, or why there is none.
pub type PresentedSession = Result<SessionHandle, AuthError>;

/// What a refused client can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalKind {
    /// Nothing with these credentials.
    Invalid,
    /// Get a newer token.
    Expired,
    /// Try again in some seconds: whether a credential is valid cannot be said now.
    Passing,
    /// Nothing: an operator keeps the client out.
    Blocked,
}

impl From<RefusalKind> for ErrorCode {
    fn from(kind: RefusalKind) -> Self {
        match kind {
            RefusalKind::Invalid | RefusalKind::Expired => Self::Unauthorized,
            RefusalKind::Passing => Self::FeatureUnavailable,
            RefusalKind::Blocked => Self::Forbidden,
        }
    }
}

impl AuthError {
    /// What a client that is refused for it can do.
    pub fn kind(&self) -> RefusalKind {
        match self {
            Self::Expired => RefusalKind::Expired,
            Self::KeyUnknown | Self::SessionUnknown(_) => RefusalKind::Passing,
            Self::Blocked(_) => RefusalKind::Blocked,
            Self::Invalid(_) | Self::SessionEnded => RefusalKind::Invalid,
        }
    }

    /// The reason, behind the place of the credential.
    fn reason(&self) -> String {
        match self {
            Self::Expired => "it has expired".to_owned(),
            Self::KeyUnknown => "its key is not known yet".to_owned(),
            Self::SessionEnded => "the session has ended, or there is none".to_owned(),
            Self::SessionUnknown(reason) => format!("the session cannot be checked now: {reason}"),
            Self::Invalid(reason) | Self::Blocked(reason) => reason.clone(),
        }
    }
}

/// The refusal of a client without a valid credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the client can do.
    pub kind: RefusalKind,
    /// The places, with the reason for each.
    pub message: String,
}

impl Authenticator {
    /// The session of the first valid credential: a token, and after all tokens the session of a cookie. Invalid ones in
    /// other places are ignored, because a client may be unaware of cookies that it sends. `None` where the client presents
    /// nothing that counts.
    ///
    /// # Errors
    /// Where no credential is valid.
    pub fn verify_any<'a>(
        &self,
        tokens: impl IntoIterator<Item = &'a PresentedToken>,
        session: Option<&PresentedSession>,
    ) -> Option<Result<Session, Refusal>> {
        let (mut refused, mut budget) = (Vec::new(), CheckBudget::default());
        let tokens = tokens.into_iter().take(if self.checks_tokens() { MAX_PRESENTED_TOKENS } else { 0 });
        for PresentedToken { place, token } in tokens {
            match self.verify_within(&mut budget, token) {
                Ok(session) => return Some(Ok(session)),
                Err(error) => refused.push((*place, error)),
            }
        }
        match session.map(|session| session.clone().and_then(|handle| self.session_of(&handle))) {
            None => {}
            Some(Ok(session)) => return Some(Ok(session)),
            // Servers give anonymous visitors a cookie, too.
            Some(Err(AuthError::SessionEnded)) if refused.is_empty() && self.allows_anonymous() => {}
            Some(Err(error)) => refused.push((Place::Session, error)),
        }
        Refusal::of(&refused).map(Err)
    }

    /// The session of the only token that counts.
    ///
    /// # Errors
    /// Where it is not valid.
    pub fn verify_only(&self, token: &PresentedToken) -> Result<Session, Refusal> {
        self.verify(&token.token).map_err(|error| {
            let (kind, refused) = (error.kind(), [(token.place, error)]);
            Refusal { kind, message: Refusal::message(&refused) }
        })
    }
}

impl Refusal {
    /// `None` where no credential was refused.
    fn of(refused: &[(Place, AuthError)]) -> Option<Self> {
        let kind = refused.iter().map(|(_, error)| error.kind()).max()?;
        Some(Self { kind, message: Self::message(refused) })
    }

    fn message(refused: &[(Place, AuthError)]) -> String {
        match refused {
            [(place, AuthError::Expired)] => format!("the token {place} has expired: get a new one and connect again"),
            [(place, AuthError::Invalid(reason))] => format!("the token {place} is not valid: {reason}"),
            [(_, error)] => error.to_string(),
            several => {
                let reasons: Vec<_> =
                    several.iter().map(|(place, error)| format!("{place}: {}", error.reason())).collect();
                format!("no token is valid: {}", reasons.join("; "))
            }
        }
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
        let auth = Authenticator::new(AuthConfig { jwt, ..AuthConfig::default() }, blocks, clock);
        let tokens: Vec<_> = tokens.iter().filter_map(|(place, text)| PresentedToken::new(*place, text)).collect();
        auth.verify_any(&tokens, None).unwrap().map(|session| session.identity.user.to_string())
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
        assert!(
            refused.kind == RefusalKind::Expired && refused.message.starts_with("the token in the query has expired"),
            "{refused:?}"
        );
        let refused = verify(&[(Place::Payload, "a.b")]).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::Invalid);
        assert_eq!(refused.message, "the token in auth.token is not valid: it is not a JSON Web Token");
        let refused = verify(&[(Place::Header, "x"), (Place::Cookie, &stale)]).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::Expired, "a newer one helps");
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
