//! Faults of a feature that several users meet: those of one count against that one.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::{InnerHost, TestClient, TestHost};

/// Faults that one sender meets and that count against the feature.
const FAULTS_OF_A_SENDER: usize = 2;

/// Users that have met faults: each meets its own, for one that meets more is refused.
static USERS: AtomicUsize = AtomicUsize::new(0);

/// A host on which a feature can be brought to fail.
#[expect(async_fn_in_trait, reason = "tests await it where they are")]
pub trait FaultyHost {
    /// A client of a user.
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

/// Has the hostile guest fail so many times, on events of as many users as it takes to count against it. They take part in
/// nothing.
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
