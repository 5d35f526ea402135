//! The rules for imports: down the layers of the host, down the rooms inside them, and never in a circle of files.
//! [`rules`] has the rules; [`planted`] shows that each rule finds its violations.

mod planted;
mod rules;

use std::path::Path;

use xtask::sources;

/// Files that still break a rule. The list may only get shorter.
const KNOWN: &[&str] = &[];

#[test]
fn tree_keeps_every_rule() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = sources::read(&root).expect("the tree can be read");
    let mut complaints = rules::violations(&sources).expect("the tree is Rust");
    let circular = rules::circular_files(&sources).expect("the tree is Rust");
    complaints
        .extend(circular.iter().map(|file| format!("{file}: is in a circle of imports; `cargo xtask shape` shows it")));
    let is_of = |complaint: &str, file: &str| complaint.strip_prefix(file).is_some_and(|rest| rest.starts_with(':'));
    let mut open =
        complaints.iter().filter(|complaint| !KNOWN.iter().any(|file| is_of(complaint, file))).collect::<Vec<_>>();
    let kept = |file: &&&str| !complaints.iter().any(|complaint| is_of(complaint, file));
    let struck: Vec<String> =
        KNOWN.iter().filter(kept).map(|file| format!("{file}: keeps every rule: strike it out of KNOWN")).collect();
    open.extend(&struck);
    open.sort();
    assert!(open.is_empty(), "{}", open.iter().map(|line| format!("{line}\n")).collect::<String>());
}
