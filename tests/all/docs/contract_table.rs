//! The table of contract rows in `tests/README.md`: each row names a test, and each named test exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const FEATURES: [&str; 6] =
    ["ticket-collision", "timeline", "ticket-events", "campaign-progress", "chat-confirmation", "crm-events"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the workspace")
}

/// A row of the table: its section, its promise, and the files and names of its tests.
struct Row {
    section: String,
    promise: String,
    tests: Vec<(String, String)>,
}

/// The rows of the sections after the table's heading.
fn rows() -> Vec<Row> {
    let readme = fs::read_to_string(root().join("tests/README.md")).expect("the tests have a README");
    let (_, table) = readme.split_once("\n## What shows what\n").expect("the README has the table");
    let (mut section, mut rows) = (String::new(), Vec::new());
    for line in table.lines().take_while(|line| !line.starts_with("## ")) {
        if let Some(heading) = line.strip_prefix("### ") {
            heading.clone_into(&mut section);
        }
        let Some(line) = line.strip_prefix('|') else { continue };
        let cells: Vec<&str> = line.trim_end_matches('|').split('|').map(str::trim).collect();
        let [promise, natively, end_to_end] = cells[..] else { panic!("a row has three cells: {line}") };
        if promise.starts_with("---") || natively == "natively" {
            continue;
        }
        let native_folder = match FEATURES.contains(&section.as_str()) {
            true => format!("plugins/{section}/tests/rules"),
            false => ".".to_owned(),
        };
        let in_native = references(natively).map(|(file, test)| (format!("{native_folder}/{file}.rs"), test));
        let in_all =
            references(end_to_end).map(|(module, test)| (format!("tests/all/{}.rs", module.replace("::", "/")), test));
        let tests = in_native.chain(in_all).collect();
        rows.push(Row { section: section.clone(), promise: promise.to_owned(), tests });
    }
    rows
}

/// The tests that a cell names: native ones as `folder/file::test`, end-to-end ones by their filter
/// `folder::file::test`.
fn references(cell: &str) -> impl Iterator<Item = (&str, String)> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.map(|text| text.rsplit_once("::").expect("a test is written `file::test`")).map(|(f, t)| (f, t.to_owned()))
}

/// The tests in a source file.
fn tests_in(file: &str) -> BTreeSet<String> {
    let source = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let tests = lines.windows(2).filter(|pair| pair[0] == "#[test]" || pair[0].starts_with("#[tokio::test"));
    let name =
        |line: &str| line.trim_start_matches("async ").strip_prefix("fn ")?.split_once('(').map(|(n, _)| n.to_owned());
    tests.filter_map(|pair| name(pair[1])).collect()
}

#[test]
fn each_row_names_existing_tests() {
    let rows = rows();
    for section in FEATURES {
        assert!(rows.iter().any(|row| row.section == section), "{section} has no rows");
    }
    for row in &rows {
        assert!(!row.tests.is_empty(), "{}: nothing shows that: {}", row.section, row.promise);
        for (file, test) in &row.tests {
            assert!(tests_in(file).contains(test), "{}: {file} has no test {test}", row.section);
        }
    }
}

#[test]
fn each_feature_test_is_in_the_table() {
    let named: BTreeSet<(String, String)> = rows().into_iter().flat_map(|row| row.tests).collect();
    for feature in FEATURES {
        let file = format!("tests/all/features/{}.rs", feature.replace('-', "_"));
        for test in tests_in(&file) {
            assert!(named.contains(&(file.clone(), test.clone())), "the table says nowhere what {file} {test} shows");
        }
    }
}
