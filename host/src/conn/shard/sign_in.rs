//! Checks of clients' tokens, and what they cost.

use super::parts::Shard;
use crate::auth::{PresentedToken, Refusal, Session};
use crate::conn::state::Transport;
use crate::model::thread_cpu_time;

impl Shard {
    /// Signs a client in by the first valid token. A refusal counts towards the rate of its client by its running time, so
    /// that forged tokens cannot take more of the shard than other messages.
    ///
    /// # Errors
    /// Where no token is valid.
    pub(super) fn check_tokens<'a>(
        &self,
        transport: Option<&Transport>,
        tokens: impl IntoIterator<Item = &'a PresentedToken>,
    ) -> Result<Session, Refusal> {
        let began = thread_cpu_time();
        let checked = self.shared().auth.verify_any(tokens);
        let messages = self.sign_ins().note(thread_cpu_time().saturating_sub(began));
        if checked.is_err()
            && let Some(transport) = transport
            && let Some(rate) = &mut *transport.rate.borrow_mut()
        {
            rate.charge(messages);
        }
        checked
    }
}
