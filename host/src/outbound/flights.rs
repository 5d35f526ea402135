//! Calls under way, which those who want the same answer share.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

/// Calls under way by key. Where the caller goes away, another that waits makes the call.
#[derive(Debug)]
pub struct Flights<K, V>(Mutex<HashMap<K, Arc<OnceCell<V>>>>);

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Copy + Eq + Hash, V: Clone> Flights<K, V> {
    /// The answer of the call of this key that is under way, or of `call`.
    pub async fn join<F: Future<Output = V>>(&self, key: K, call: impl FnOnce() -> F) -> V {
        let flight = Flight { flights: self, key, cell: self.lock().entry(key).or_default().clone() };
        flight.cell.get_or_init(call).await.clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Arc<OnceCell<V>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One caller's part in a call.
struct Flight<'a, K: Copy + Eq + Hash, V: Clone> {
    flights: &'a Flights<K, V>,
    key: K,
    cell: Arc<OnceCell<V>>,
}

impl<K: Copy + Eq + Hash, V: Clone> Drop for Flight<'_, K, V> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        // Later callers make another call.
        let is_over = self.cell.initialized() || Arc::strong_count(&self.cell) == 2;
        if is_over && flights.get(&self.key).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell)) {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn callers_share_a_call_under_way() {
        let (flights, calls) = (Flights::<u8, usize>::default(), AtomicUsize::new(0));
        let call = || async {
            tokio::task::yield_now().await;
            calls.fetch_add(1, Ordering::Relaxed)
        };
        let (one, same, other) = tokio::join!(flights.join(1, call), flights.join(1, call), flights.join(2, call));
        assert!(one == same && one != other, "{one} {same} {other}");
        assert_eq!(flights.join(1, call).await, 2);
        assert!(flights.lock().is_empty());
    }

    #[tokio::test]
    async fn call_is_taken_over_where_its_caller_goes() {
        let flights = Flights::<u8, u8>::default();
        let mut gone = Box::pin(flights.join(1, std::future::pending));
        let waits = flights.join(1, || async { 7 });
        tokio::select! {
            biased;
            _ = &mut gone => unreachable!(),
            () = tokio::task::yield_now() => {}
        }
        drop(gone);
        assert_eq!(waits.await, 7);
        assert!(flights.lock().is_empty());
    }
}
