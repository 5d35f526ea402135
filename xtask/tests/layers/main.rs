//! The rules for imports: down the layers of the host, down the rooms inside them, and never in a circle of files.
//! [`rules`] has the rules; [`planted`] shows that each rule finds its violations.

mod planted;
mod rules;

use std::path::Path;

use xtask::sources;

#[test]
fn source_tree_violates_no_layer_rule() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = sources::read(&root).expect("the tree can be read");
    let mut complaints = rules::violations(&sources).expect("the tree is Rust");
    let circular = rules::circular_files(&sources).expect("the tree is Rust");
    complaints
        .extend(circular.iter().map(|file| format!("{file}: is in a circle of imports; `cargo xtask shape` shows it")));
    complaints.sort();
    assert!(complaints.is_empty(), "{}", complaints.iter().map(|line| format!("{line}\n")).collect::<String>());
}
