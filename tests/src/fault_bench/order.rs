//! Whether sequences are parts of one order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

/// Two elements that the sequences do not order alike, if there are any. No sequence has an element twice.
pub(super) fn disagreement<K: Ord + Hash + Clone>(sequences: &[Vec<K>]) -> Option<(K, K)> {
    let in_circles = circles(sequences);
    let positions = |sequence: &Vec<K>| -> HashMap<K, usize> {
        let members = sequence.iter().filter(|element| in_circles.contains(element));
        members.enumerate().map(|(at, element)| (element.clone(), at)).collect()
    };
    let parts: Vec<HashMap<K, usize>> = sequences.iter().map(positions).filter(|part| part.len() > 1).collect();
    for part in &parts {
        for (a, b) in part.keys().flat_map(|a| part.keys().map(move |b| (a, b))) {
            let is_reversed = |other: &HashMap<K, usize>| other.get(b).zip(other.get(a)).is_some_and(|(b, a)| b < a);
            if part[a] < part[b] && parts.iter().any(is_reversed) {
                return Some((a.clone(), b.clone()));
            }
        }
    }
    // No two sequences disagree, but several together do.
    let mut rest = in_circles.into_iter();
    rest.next().zip(rest.next())
}

/// The elements that lie on, or between, circles of "comes before" (Kahn's algorithm, from both ends).
fn circles<K: Ord + Clone>(sequences: &[Vec<K>]) -> BTreeSet<K> {
    let mut after: BTreeMap<&K, BTreeSet<&K>> = BTreeMap::new();
    let mut before: BTreeMap<&K, BTreeSet<&K>> = BTreeMap::new();
    for pair in sequences.iter().flat_map(|sequence| sequence.windows(2)) {
        after.entry(&pair[0]).or_default().insert(&pair[1]);
        before.entry(&pair[1]).or_default().insert(&pair[0]);
    }
    let mut rest: BTreeSet<&K> = after.keys().chain(before.keys()).copied().collect();
    for (forward, backward) in [(&after, &before), (&before, &after)] {
        let count = |element: &K| {
            let known = backward.get(element);
            known.map_or(0, |known| known.iter().filter(|other| rest.contains(*other)).count())
        };
        let mut n_left: BTreeMap<&K, usize> = rest.iter().map(|element| (*element, count(element))).collect();
        let mut free: Vec<&K> = n_left.iter().filter(|(_, n)| **n == 0).map(|(element, _)| *element).collect();
        while let Some(element) = free.pop() {
            rest.remove(element);
            for next in forward.get(element).into_iter().flatten() {
                if let Some(n) = n_left.get_mut(next) {
                    *n -= 1;
                    if *n == 0 {
                        free.push(next);
                    }
                }
            }
        }
    }
    rest.into_iter().cloned().collect()
}

/// An element that occurs twice, if there is one.
pub(super) fn repetition<K: Ord>(sequence: impl IntoIterator<Item = K>) -> Option<K> {
    let mut seen = BTreeSet::new();
    for element in sequence {
        if seen.contains(&element) {
            return Some(element);
        }
        seen.insert(element);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_one_order_agree() {
        assert_eq!(disagreement(&[vec![1, 2, 4], vec![2, 3], vec![3, 4, 5], vec![]]), None);
        assert_eq!(disagreement::<u8>(&[]), None);
    }

    #[test]
    fn reversed_pair_is_found() {
        let found = disagreement(&[vec![1, 2, 3, 4], vec![1, 3, 2, 4]]);
        assert!(matches!(found, Some((2, 3) | (3, 2))), "{found:?}");
    }

    #[test]
    fn circle_over_three_sequences_is_found() {
        assert!(disagreement(&[vec![0, 1, 2], vec![2, 3], vec![3, 1, 9]]).is_some());
    }

    #[test]
    fn repetition_is_found() {
        assert_eq!(repetition([1, 2, 1]), Some(1));
        assert_eq!(repetition([1, 2, 3]), None);
    }
}
