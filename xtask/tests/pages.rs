//! Checks of the pages: links lead to files, and the life of a message names functions that exist.

use std::fs;
use std::path::{Path, PathBuf};

use xtask::figures::figures;

/// Folders whose pages are not checked.
const SKIPPED: [&str; 2] = ["target", "node_modules"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn pages(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be listed") {
        let entry = entry.expect("the folder can be listed");
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            if !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                pages(&entry.path(), into);
            }
        } else if name.ends_with(".md") {
            into.push(entry.path());
        }
    }
}

/// The texts between each `open` and the next `close`.
fn between<'a>(text: &'a str, open: &str, close: char) -> Vec<&'a str> {
    text.split(open).skip(1).filter_map(|rest| rest.split(close).next()).collect()
}

#[test]
fn links_lead_to_files() {
    let mut files = Vec::new();
    pages(&root(), &mut files);
    let mut broken = Vec::new();
    for page in &files {
        let text = fs::read_to_string(page).expect("a page is text");
        for link in between(&text, "](", ')') {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains(':') && !page.with_file_name("").join(path).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(files.len() > 20 && broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn life_of_a_message_names_existing_functions() {
    let text = fs::read_to_string(root().join("docs/life-of-a-message.md")).expect("the page is there");
    let steps: Vec<&str> = between(&text, "`host/src/", '`');
    assert!(steps.len() >= 10, "the page names a file and a function at each step");
    for step in steps {
        let (file, name) = step.split_once("::").expect("a step is `host/src/FILE::FUNCTION`");
        let source = fs::read_to_string(root().join("host/src").join(file)).unwrap_or_default();
        let functions = figures(&source).expect("a source is Rust").functions;
        assert!(functions.iter().any(|(function, _)| function == name), "there is no host/src/{step}");
    }
}
