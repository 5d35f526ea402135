//! Faults of a feature that count against the feature, because several users cause them.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::{InnerHost, TestClient, TestHost};

/// The number of faults of one sender that count against the feature; further ones count against the sender.
const FAULTS_OF_A_SENDER: usize = 2;

/// The number of users so far. Each call uses new ones, because the host refuses a user who causes more faults.
static USERS: AtomicUsize = AtomicUsize::new(0);

/// A host whose hostile guest can be made to fail.
#[expect(async_fn_in_trait, reason = "tests await it where they are")]
pub trait FaultyHost {
    /// Connects a client of a user.
    async fn sender(&self, user: &str) -> TestClient;
}

impl FaultyHost for TestHost {
    async fn sender(&self, user: &str) -> TestClient {
        self.client(user).await
    }
}

impl FaultyHost for InnerHost {
    async fn sender(&self, user: &str) -> TestClient {
        self.client(user).await
    }
}

/// Makes the hostile guest fail `n` times, on events of as many users as it takes for all faults to count against the
/// guest. The users join no scope.
pub async fn faults_of_many(host: &impl FaultyHost, n: usize) {
    for first in (0..n).step_by(FAULTS_OF_A_SENDER) {
        let user = USERS.fetch_add(1, Ordering::Relaxed);
        let mut sender = host.sender(&format!("faulty-{user}")).await;
        for _ in first..n.min(first + FAULTS_OF_A_SENDER) {
            let failed = sender.emit_refused("hostile:do", json!({ "id": "faulty", "how": "panic" })).await;
            assert_eq!(failed, "internal");
        }
    }
}
