//! Imports point one way. This lists the layers, and fails where a module imports one above its own or beside it.

use std::fs;
use std::path::{Path, PathBuf};

/// From top to bottom. Modules of one layer may not import each other either.
const LAYERS: [&[&str]; 11] = [
    &["main"],
    &["cli"],
    &["server"],
    &["config"],
    &["api", "conn"],
    &["plugin"],
    &["hub"],
    &["protocol", "store", "auth", "net"],
    &["ledger"],
    &["metrics"],
    &["model"],
];

fn layer_of(module: &str) -> usize {
    let layer = LAYERS.iter().position(|modules| modules.contains(&module));
    layer.unwrap_or_else(|| panic!("the module {module} is in no layer: add it to the list, where it belongs"))
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the folder can be listed") {
        let path = entry.expect("the folder can be listed").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Modules that a line names as `crate::module`, also within braces.
fn imports(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices("crate::")
        .filter(|(at, _)| !code[..*at].ends_with(['$', ':']))
        .map(|(at, found)| code[at + found.len()..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .filter(|module: &String| !module.is_empty())
        .collect()
}

#[test]
fn imports_point_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut edges = 0;
    for file in files {
        let relative = file.strip_prefix(&src).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let own = first.trim_end_matches(".rs");
        if own == "lib" {
            continue;
        }
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            for module in imports(line).iter().filter(|module| *module != own) {
                assert!(
                    layer_of(module) > layer_of(own),
                    "{}:{} imports {module}, which is not below {own}",
                    relative.display(),
                    number + 1
                );
                edges += 1;
            }
        }
    }
    assert!(edges > 50, "the imports were found");
}
