//! The figures: round trips near swaps and in quiet times, and the longest one of each swap.

use std::fmt;
use std::time::{Duration, Instant};

use super::group::FEATURES;
use super::probe::RoundTrip;
use super::swapper::Turn;
use crate::Random;
use crate::bench::quantile;

/// The time after a swap's answer in which round trips count as near it.
const NEAR: Duration = Duration::from_millis(50);

/// The number of first swaps that are left out: those in which the host compiles the two builds of each feature. They
/// take longer than the turns of quiet times with which swaps are compared.
const COMPILING: usize = 2 * FEATURES.len();

/// Durations in milliseconds, sorted.
#[derive(Debug, Default)]
struct Durations(Vec<f64>);

impl Durations {
    fn of(mut durations: Vec<f64>) -> Self {
        durations.sort_by(f64::total_cmp);
        Self(durations)
    }

    fn at(&self, share: f64) -> f64 {
        quantile(&self.0, share)
    }
}

impl fmt::Display for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>7.2} {:>7.2} {:>7.2}", self.at(0.5), self.at(0.99), self.at(1.0))
    }
}

/// The figures of a run: by feature, and of all.
#[derive(Debug)]
pub struct Pauses(Vec<(&'static str, Figures)>);

/// The figures of one feature, or of all.
#[derive(Debug, Default)]
struct Figures {
    swaps: Durations,
    /// Round trips in quiet times.
    quiet: Durations,
    /// Round trips near a swap of the feature.
    near: Durations,
    /// The longest round trip of each swap, from its call to its answer.
    longest: Durations,
    /// The same of swaps of other features, which take as much processor time, and concern other scopes.
    longest_other: Durations,
    /// The same of as many quiet times, each as long as a swap.
    longest_quiet: Durations,
}

/// Durations of one feature, or of all, in milliseconds.
#[derive(Debug, Clone, Default)]
struct Samples {
    swaps: Vec<f64>,
    quiet: Vec<f64>,
    near: Vec<f64>,
    longest: Vec<f64>,
    longest_other: Vec<f64>,
    longest_quiet: Vec<f64>,
}

impl Pauses {
    /// The figures of these round trips, by feature.
    pub(super) fn of(trips: &[Vec<RoundTrip>], swaps: &[Turn], quiet: &[Turn], random: &mut Random) -> Self {
        let swaps = swaps.get(COMPILING..).unwrap_or_default();
        let of_feature = |(feature, trips): (usize, &Vec<RoundTrip>)| Samples::of(feature, trips, swaps, quiet, random);
        let samples: Vec<Samples> = trips.iter().enumerate().map(of_feature).collect();
        let all = Samples::sum(&samples);
        let names = FEATURES.iter().map(|(name, _)| *name).chain(["all"]);
        Self(names.zip(samples.into_iter().chain([all]).map(Samples::figures)).collect())
    }
}

impl Samples {
    fn of(feature: usize, trips: &[RoundTrip], swaps: &[Turn], quiet: &[Turn], random: &mut Random) -> Self {
        let own: Vec<Turn> = swaps.iter().copied().filter(|turn| turn.swapped == Some(feature)).collect();
        let quiet_time = quiet.first().zip(quiet.last()).map(|(first, last)| (first.began, last.ended));
        let is_quiet =
            |trip: &&RoundTrip| quiet_time.is_some_and(|(began, ended)| trip.began >= began && trip.ended <= ended);
        let is_near = |trip: &&RoundTrip| {
            let before = own.partition_point(|swap| swap.began <= trip.ended);
            before.checked_sub(1).is_some_and(|last| trip.began <= own[last].ended + NEAR)
        };
        let mut all = Self {
            swaps: own.iter().map(|swap| ms(swap.ended - swap.began)).collect(),
            quiet: trips.iter().filter(is_quiet).map(RoundTrip::ms).collect(),
            near: trips.iter().filter(is_near).map(RoundTrip::ms).collect(),
            ..Self::default()
        };
        let turns: Vec<&Turn> = quiet.iter().filter(|turn| turn.probed == feature).collect();
        for swap in swaps.iter().filter(|swap| swap.probed == feature) {
            let pause = longest(trips, swap.began, swap.ended);
            if swap.swapped != Some(feature) {
                all.longest_other.extend(pause);
                continue;
            }
            all.longest.extend(pause);
            if !turns.is_empty() {
                // A time of the same length in a turn without a swap.
                let (turn, length) = (random.pick(&turns), swap.ended - swap.began);
                let room = (turn.ended - turn.began).saturating_sub(length).as_micros() as usize;
                let began = turn.began + Duration::from_micros(random.below(room + 1) as u64);
                all.longest_quiet.extend(longest(trips, began, began + length));
            }
        }
        all
    }

    fn sum(all: &[Self]) -> Self {
        let mut sum = Self::default();
        for one in all {
            sum.swaps.extend(&one.swaps);
            sum.quiet.extend(&one.quiet);
            sum.near.extend(&one.near);
            sum.longest.extend(&one.longest);
            sum.longest_other.extend(&one.longest_other);
            sum.longest_quiet.extend(&one.longest_quiet);
        }
        sum
    }

    fn figures(self) -> Figures {
        Figures {
            swaps: Durations::of(self.swaps),
            quiet: Durations::of(self.quiet),
            near: Durations::of(self.near),
            longest: Durations::of(self.longest),
            longest_other: Durations::of(self.longest_other),
            longest_quiet: Durations::of(self.longest_quiet),
        }
    }
}

impl RoundTrip {
    fn ms(&self) -> f64 {
        ms(self.ended - self.began)
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The longest round trip of those that lie, in part at least, between two times.
fn longest(trips: &[RoundTrip], from: Instant, to: Instant) -> Option<f64> {
    // The round trips of a probe do not overlap.
    let first = trips.partition_point(|trip| trip.ended < from);
    trips[first..].iter().take_while(|trip| trip.began <= to).map(RoundTrip::ms).max_by(f64::total_cmp)
}

impl fmt::Display for Pauses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let three = format!("{:>7} {:>7} {:>7}", "p50", "p99", "max");
        writeln!(f, "\nwithout the first {COMPILING} swaps, for which builds are compiled")?;
        writeln!(f, "round trips in ms: in quiet times, and from a swap's call until {NEAR:?} after its answer")?;
        writeln!(f, "{:18} {:>5} | {three} | {three} | p99 ratio", "feature", "swaps")?;
        for (name, Figures { swaps, quiet, near, .. }) in &self.0 {
            let ratio = near.at(0.99) / quiet.at(0.99);
            writeln!(f, "{name:18} {:>5} | {quiet} | {near} | {ratio:>9.2}", swaps.0.len())?;
        }
        let three = format!("{:>7} {:>7} {:>7}", "p50", "p90", "p99");
        writeln!(
            f,
            "\nin ms: the time of a swap, the longest round trip of each swap, of swaps of other features, and of"
        )?;
        writeln!(f, "quiet times of the same length; and what p90 and p99 of the first are above those of the others")?;
        writeln!(f, "{:18} | {three} | {three} | {three} | {three} | above other   | above quiet", "feature")?;
        for (name, figures) in &self.0 {
            let Figures { swaps, longest, longest_other, longest_quiet, .. } = figures;
            write!(f, "{name:18}")?;
            for durations in [swaps, longest, longest_other, longest_quiet] {
                write!(f, " | {:>7.2} {:>7.2} {:>7.2}", durations.at(0.5), durations.at(0.9), durations.at(0.99))?;
            }
            for other in [longest_other, longest_quiet] {
                let above = |share: f64| longest.at(share) - other.at(share);
                write!(f, " | {:>5.2} {:>7.2}", above(0.9), above(0.99))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_round_trip_of_a_swap_is_counted_once() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let trip = |from, to| RoundTrip { began: at(from), ended: at(to) };
        let trips = [trip(0, 1), trip(1, 2), trip(2, 7), trip(7, 8), trip(100, 109)];
        assert_eq!(longest(&trips, at(5), at(6)), Some(5.0));
        assert_eq!(longest(&trips, at(20), at(30)), None);
        let swap = Turn { swapped: Some(0), probed: 0, began: at(5), ended: at(6) };
        let other = Turn { swapped: Some(1), probed: 0, began: at(100), ended: at(101) };
        let turn = Turn { swapped: None, probed: 0, began: at(0), ended: at(2) };
        let samples = Samples::of(0, &trips, &[swap, other], &[turn], &mut Random::new(1));
        assert_eq!((samples.quiet.len(), samples.near.len()), (2, 2), "the last one is later than {NEAR:?}");
        assert_eq!((samples.longest, samples.longest_other), (vec![5.0], vec![9.0]));
        assert!(samples.longest_quiet[0] >= 1.0);
    }
}
