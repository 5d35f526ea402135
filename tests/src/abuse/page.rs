//! The page of attacks: the effect of each attack on an earlier host and on this one.

use std::fmt::Write as _;

use super::verdict::{Memory, Verdict, cell};

/// The rows of the page, from two runs of the same attacks. If one run lacks an attack, its columns have a dash.
pub fn page(before: &[Verdict], after: &[Verdict]) -> String {
    let mut rows = "| attack | who and what | test | p99 ratio | memory before / peak / after, MB | lost |\n\
                    |---|---|---|---|---|---|"
        .to_owned();
    let only_before = before.iter().filter(|old| !after.iter().any(|new| new.name == old.name));
    for verdict in after.iter().chain(only_before) {
        let find = |run: &[Verdict]| run.iter().find(|found| found.name == verdict.name).cloned();
        let (old, new) = (find(before), find(after));
        let both = |show: fn(&Verdict) -> String| {
            let show = |verdict: &Option<Verdict>| verdict.as_ref().map_or_else(|| "–".to_owned(), show);
            format!("{} → {}", show(&old), show(&new))
        };
        // Writing to a string cannot fail.
        let _ = write!(
            rows,
            "\n| `{}` | {}: {} | `abuse::{}_attacks_leave_good_clients_served` | {} | {} | {} |",
            verdict.name,
            verdict.who,
            verdict.what,
            verdict.group.trim_end_matches('s'),
            both(ratio),
            both(memory),
            both(lost),
        );
    }
    rows
}

/// The rows of the page from one run.
pub fn page_of_one(run: &[Verdict]) -> String {
    let mut rows =
        "| attack | who and what | p99 ratio | the machine's part | memory before / peak / after, MB | lost |\n\
                    |---|---|---|---|---|---|"
            .to_owned();
    for verdict in run {
        let machine = verdict.machine_ratio().map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.1}"));
        // Writing to a string cannot fail.
        let _ = write!(
            rows,
            "\n| `{}` | {}: {} | {} | {machine} | {} | {} |",
            verdict.name,
            verdict.who,
            verdict.what,
            ratio(verdict),
            memory(verdict),
            lost(verdict),
        );
    }
    rows
}

fn ratio(verdict: &Verdict) -> String {
    verdict.ratio().map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.1}"))
}

fn memory(verdict: &Verdict) -> String {
    let Memory { before, peak, later, .. } = verdict.memory;
    format!("{before:.0} / {peak:.0} / {later:.0}")
}

fn lost(verdict: &Verdict) -> String {
    verdict.loss().map_or_else(|| "nothing".to_owned(), |loss| cell(&loss))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abuse::all;

    #[test]
    fn rows_join_two_runs_by_name() {
        let verdicts: Vec<_> = all().take(2).map(|(group, attack)| Verdict::of(group, attack)).collect();
        let (both, only_new) = (&verdicts[..1], &verdicts[1..]);
        let page = page(both, &verdicts);
        let rows: Vec<_> = page.lines().skip(2).collect();
        assert_eq!(rows.len(), 2);
        assert!(rows[0].contains(&format!("`{}`", both[0].name)) && rows[0].contains("nothing → nothing"), "{page}");
        assert!(rows[1].contains(&format!("`{}`", only_new[0].name)) && rows[1].contains("– → nothing"), "{page}");
    }
}
