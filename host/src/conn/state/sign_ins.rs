//! Checks of tokens take turns with the rest of a shard's work: a check by a public key takes as long as a hundred events.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::yield_now;

/// The running time from which on a sign-in takes up the present turn. Checks by secrets stay below.
const COSTLY: Duration = Duration::from_micros(200);

/// The running time of a refused sign-in that counts as one more message of its client: of the longest checks, a burst of
/// messages holds four.
const MESSAGE: Duration = Duration::from_micros(25);

/// The turns of sign-ins on a shard.
#[derive(Debug)]
pub(crate) struct SignIns {
    is_spent: Cell<bool>,
    /// Whether a sign-in was costly since the start.
    is_costly: Cell<bool>,
    handshakes: Semaphore,
}

impl SignIns {
    pub(crate) fn new() -> Self {
        Self { is_spent: Cell::new(false), is_costly: Cell::new(false), handshakes: Semaphore::new(1) }
    }

    /// Begins a turn of the shard.
    pub(crate) fn begin_turn(&self) {
        self.is_spent.set(false);
    }

    /// Whether a costly sign-in took place in this turn: clients that have yet to sign in wait for the next.
    pub(crate) fn is_spent(&self) -> bool {
        self.is_spent.get()
    }

    /// Waits until a handshake may be answered: one in a turn, where sign-ins are costly.
    pub(crate) async fn handshake(&self) {
        if self.is_costly.get() {
            let _turn = self.handshakes.acquire().await;
            // The sockets that are ready are served before.
            yield_now().await;
        }
    }

    /// Notes a sign-in. Returns the messages that it counts as if it was refused.
    pub(crate) fn note(&self, took: Duration) -> u32 {
        if took >= COSTLY {
            self.is_spent.set(true);
            self.is_costly.set(true);
        }
        u32::try_from(took.as_micros() / MESSAGE.as_micros()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn costly_sign_in_spends_one_turn() {
        let sign_ins = SignIns::new();
        assert_eq!((sign_ins.note(Duration::from_micros(20)), sign_ins.is_spent()), (0, false));
        assert_eq!((sign_ins.note(Duration::from_millis(5)), sign_ins.is_spent()), (200, true));
        sign_ins.begin_turn();
        assert!(!sign_ins.is_spent());
    }

    #[test]
    fn handshakes_pass_one_by_one_where_costly() {
        let sign_ins = SignIns::new();
        let mut now = Context::from_waker(Waker::noop());
        assert!(pin!(sign_ins.handshake()).poll(&mut now).is_ready(), "checks by secrets are not held up");
        sign_ins.note(COSTLY);
        let (mut first, mut second) = (pin!(sign_ins.handshake()), pin!(sign_ins.handshake()));
        for waiting in [&mut first, &mut second] {
            assert!(waiting.as_mut().poll(&mut now).is_pending());
        }
        assert!(first.as_mut().poll(&mut now).is_ready());
        assert!(second.as_mut().poll(&mut now).is_pending(), "a turn of the shard comes between");
        assert!(second.as_mut().poll(&mut now).is_ready());
    }
}
