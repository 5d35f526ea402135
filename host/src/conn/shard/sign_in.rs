//! Checks of clients' credentials, and what they cost.

use super::parts::Shard;
use crate::auth::{Authenticator, PresentedSession, PresentedToken, Refusal, Session};
use crate::conn::state::Transport;
use crate::model::thread_cpu_time;

impl Shard {
    /// Signs a client in by its first valid credential; see [`Authenticator::verify_any`].
    pub(in crate::conn) fn check_credentials<'a>(
        &self,
        transport: Option<&Transport>,
        tokens: impl IntoIterator<Item = &'a PresentedToken>,
        session: Option<&PresentedSession>,
    ) -> Option<Result<Session, Refusal>> {
        self.charge_refusal(
            transport,
            |auth| auth.verify_any(tokens, session),
            |checked| matches!(checked, Some(Err(_))),
        )
    }

    /// Signs a client in by the only token that counts.
    ///
    /// # Errors
    /// Where the token is not valid.
    pub(super) fn check_token(
        &self,
        transport: Option<&Transport>,
        token: &PresentedToken,
    ) -> Result<Session, Refusal> {
        self.charge_refusal(transport, |auth| auth.verify_only(token), Result::is_err)
    }

    /// Counts a refusal towards the rate of its client by its running time, so that forged tokens cannot take more of the
    /// shard than other messages.
    fn charge_refusal<T>(
        &self,
        transport: Option<&Transport>,
        check: impl FnOnce(&Authenticator) -> T,
        is_refused: impl FnOnce(&T) -> bool,
    ) -> T {
        if !self.shared().auth.has_costly_checks() {
            return check(&self.shared().auth);
        }
        let began = thread_cpu_time();
        let checked = check(&self.shared().auth);
        let messages = self.sign_ins().note(thread_cpu_time().saturating_sub(began));
        if is_refused(&checked)
            && let Some(transport) = transport
            && let Some(rate) = &mut *transport.rate.borrow_mut()
        {
            rate.charge(messages);
        }
        checked
    }
}
