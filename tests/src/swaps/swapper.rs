//! The swaps: two builds of each feature, which differ in their digests alone, take turns.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tokio::sync::watch;

use super::caller::Caller;
use super::group::FEATURES;
use crate::Random;
use crate::guests::{bundled, relabelled};

/// The time for which one probe after the other sends without pauses while no feature is swapped.
const QUIET_TURN: Duration = Duration::from_millis(60);

/// A swap, or a time without one in its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// The feature that was swapped.
    pub(super) swapped: Option<usize>,
    /// The feature whose probe sent without pauses.
    pub(super) probed: usize,
    /// When the call began.
    pub(super) began: Instant,
    /// When it was answered.
    pub(super) ended: Instant,
}

/// Swaps one feature after the other.
#[derive(Debug)]
pub(super) struct Swapper {
    /// By feature.
    builds: Vec<[Bytes; 2]>,
    /// The feature whose probe sends without pauses.
    probed: watch::Sender<usize>,
    random: Random,
    /// Whether each feature is unloaded before it is loaded again.
    unloads: bool,
    n_swaps: usize,
}

impl Swapper {
    /// Reads the bundled builds.
    ///
    /// # Errors
    /// If they were not built.
    pub(super) fn new(probed: watch::Sender<usize>, random: Random, unloads: bool) -> anyhow::Result<Self> {
        let both = |library| {
            let build = bundled(library)?;
            anyhow::Ok(["a", "b"].map(|label| Bytes::from(relabelled(&build, label))))
        };
        let builds = FEATURES.iter().map(|(_, library)| both(library)).collect::<anyhow::Result<_>>()?;
        Ok(Self { builds, probed, random, unloads, n_swaps: 0 })
    }

    /// The number of swaps of a feature so far.
    pub(super) fn n_swaps_of(&self, feature: usize) -> usize {
        (self.n_swaps + FEATURES.len() - 1 - feature) / FEATURES.len()
    }

    /// Swaps as many times, each as soon as the one before is answered.
    ///
    /// # Errors
    /// If a swap is refused, or gives another generation than the next.
    pub(super) async fn run(
        &mut self,
        mut caller: Caller,
        n_swaps: usize,
        deadline: Instant,
    ) -> anyhow::Result<Vec<Turn>> {
        let mut turns = Vec::new();
        for n in 0..n_swaps {
            let in_time = Instant::now() < deadline;
            ensure!(in_time, "{n} of {n_swaps} swaps were made in the time of the run");
            turns.push(self.swap(&mut caller).await.with_context(|| format!("swap {n}"))?);
        }
        Ok(turns)
    }

    async fn swap(&mut self, caller: &mut Caller) -> anyhow::Result<Turn> {
        let feature = self.n_swaps % FEATURES.len();
        let generation = self.n_swaps_of(feature) + 2;
        let (name, _) = FEATURES[feature];
        let build = self.builds[feature][generation % 2].clone();
        // Another feature's probe shows how much of a pause is due to the work of a swap, which takes processor time.
        let probed = if self.random.in_hundred(50) { feature } else { self.random.below(FEATURES.len()) };
        self.probed.send_replace(probed);
        let began = Instant::now();
        if self.unloads {
            caller.call("DELETE", &format!("/v1/plugins/{name}"), "").await?;
        }
        let (status, answer) = caller.call("PUT", &format!("/v1/plugins/{name}"), build).await?;
        let ended = Instant::now();
        // The bundled build is the first generation.
        let is_next = status == 200 && (answer["generation"] == generation || self.unloads);
        ensure!(is_next, "{name} was to be generation {generation}: {status} {answer}");
        self.n_swaps += 1;
        Ok(Turn { swapped: Some(feature), probed, began, ended })
    }

    /// Lets the probe of each feature send without pauses in turns, for `time`, without a swap.
    pub(super) async fn rest(&self, time: Duration) -> Vec<Turn> {
        let until = Instant::now() + time;
        let mut turns = Vec::new();
        while Instant::now() < until {
            let probed = turns.len() % FEATURES.len();
            self.probed.send_replace(probed);
            let began = Instant::now();
            tokio::time::sleep(QUIET_TURN).await;
            turns.push(Turn { swapped: None, probed, began, ended: Instant::now() });
        }
        turns
    }
}
