//! Checks of clients' tokens, and what they cost.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::parts::Shard;
use crate::auth::{PresentedToken, Refusal, Session};
use crate::conn::state::Transport;

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
        let began = running_time();
        let checked = self.shared().auth.verify_any(tokens);
        let messages = self.sign_ins().note(running_time().saturating_sub(began));
        if checked.is_err()
            && let Some(transport) = transport
            && let Some(rate) = &mut *transport.rate.borrow_mut()
        {
            rate.charge(messages);
        }
        checked
    }
}

/// The time for which this thread has run: a sign-in must not pay for what else the machine does.
fn running_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
