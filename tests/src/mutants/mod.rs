//! Mutants of the features: each is a feature with one small regression, which a replay of recorded traffic has to find.
//!
//! # Layout
//! - this file: builds the mutants
//! - `list.json`: the change of each mutant
//! - [`drive`]: makes the traffic on a host
//! - [`traffic`]: ordinary traffic of each feature, on which each of its mutants does something else

pub mod drive;
mod step;
pub mod traffic;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Deserialize;

use crate::guests::component;

/// The version in the manifest of each mutant.
const VERSION: &str = "9.0.0";

/// How mutants are compiled: what they do counts, and not how fast. Dependencies are compiled as for other components, or else
/// they would be compiled again.
const PROFILE: &str = r#"[profile.release]
opt-level = 1
debug = false

[profile.release.package."*"]
opt-level = 3
debug = "line-tables-only"
"#;

/// The call by which a feature takes the name in its manifest from its package.
const MANIFEST: &str = "roundhouse_sdk::manifest!()";

/// The mutants, which are built once.
static BUILT: OnceLock<Vec<Mutant>> = OnceLock::new();

/// A feature with one small regression.
#[derive(Debug, Clone)]
pub struct Mutant {
    /// The feature.
    pub feature: String,
    /// What is broken.
    pub name: String,
    /// The component.
    pub component: Vec<u8>,
}

/// A change of a feature's source.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    feature: String,
    name: String,
    /// The file, in the feature's `src`.
    file: String,
    /// The text that is replaced. The file has it once.
    find: String,
    replace: String,
}

impl Change {
    fn package(&self) -> String {
        format!("{}-{}", self.feature, self.name)
    }

    /// The name of the library. It is unique, so that no mutant overwrites another.
    fn library(&self) -> String {
        self.package().replace('-', "_")
    }

    /// The source of a file in the mutant.
    fn apply(&self, file: &str, source: &str) -> String {
        let mut source = source.to_owned();
        if file == self.file {
            let n_places = source.matches(&self.find).count();
            assert_eq!(n_places, 1, "{}: {file} has the text to replace once", self.package());
            source = source.replace(&self.find, &self.replace);
        }
        // Packages in a workspace have different names, but a mutant has its feature's name in its manifest.
        let [version, description] = ["VERSION", "DESCRIPTION"].map(|of| format!("env!(\"CARGO_PKG_{of}\")"));
        let manifest = format!("roundhouse_sdk::Manifest::new({:?}, {version}, {description})", self.feature);
        source.replace(MANIFEST, &manifest)
    }

    /// The manifest of the mutant's package.
    fn manifest(&self, root: &Path) -> String {
        let (package, library, name, root) = (self.package(), self.library(), &self.name, root.display());
        format!(
            r#"[package]
name = "{package}"
description = "A mutant: {name}"
version = "{VERSION}"
edition = "2024"

[lib]
name = "{library}"
crate-type = ["cdylib"]

[dependencies]
roundhouse-sdk = {{ path = "{root}/sdk" }}
serde = {{ version = "1", features = ["derive"] }}
serde_json = {{ version = "1", features = ["raw_value"] }}
"#
        )
    }

    /// Writes the mutant's package into a folder.
    fn write(&self, root: &Path, folder: &Path) {
        write_changed(&folder.join("Cargo.toml"), &self.manifest(root));
        let sources = root.join("plugins").join(&self.feature).join("src");
        let mut files = BTreeSet::new();
        for entry in fs::read_dir(&sources).expect("the feature has sources") {
            let file = entry.expect("a folder can be listed").file_name();
            let file = file.into_string().expect("a file of a feature has a plain name");
            let source = fs::read_to_string(sources.join(&file)).expect("a feature's sources are files of text");
            write_changed(&folder.join("src").join(&file), &self.apply(&file, &source));
            files.insert(file);
        }
        assert!(files.contains(&self.file), "{}: there is no file {}", self.package(), self.file);
    }
}

/// All mutants, built.
///
/// They are packages of one workspace, so that one run of cargo builds them on all cores. What they depend on is compiled
/// once, and already if other components were built before.
///
/// # Panics
/// If the list is wrong, or a mutant does not compile.
pub fn mutants() -> Vec<Mutant> {
    BUILT.get_or_init(build).clone()
}

fn build() -> Vec<Mutant> {
    let changes: Vec<Change> = serde_json::from_str(include_str!("list.json")).expect("the list is JSON");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the workspace");
    let target_dir = crate::target_dir().join("components");
    let manifest = write_workspace(root, &target_dir.join("mutants"), &changes);
    // Without a package's name it builds all members.
    let built = component::build(&manifest, &[], &target_dir).expect("the mutants build");
    let mutant = |change: Change| {
        let file = built.join(change.library()).with_extension("wasm");
        let component = fs::read(file).expect("the component is where it was built");
        Mutant { feature: change.feature, name: change.name, component }
    };
    changes.into_iter().map(mutant).collect()
}

/// Writes the workspace of the mutants. Returns the path of its manifest.
fn write_workspace(root: &Path, folder: &Path, changes: &[Change]) -> PathBuf {
    let mut members = String::new();
    for change in changes {
        let package = change.package();
        change.write(root, &folder.join(&package));
        // A string takes what is written.
        let _ = writeln!(members, "    {package:?},");
    }
    let manifest = format!("[workspace]\nresolver = \"3\"\nmembers = [\n{members}]\n\n{PROFILE}");
    let path = folder.join("Cargo.toml");
    write_changed(&path, &manifest);
    // The dependencies have the versions of the workspace, which are compiled already.
    fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).expect("there is a lock file");
    path
}

/// Writes a file if it has other content, because cargo compiles what was written.
fn write_changed(path: &Path, content: &str) {
    if fs::read_to_string(path).ok().as_deref() == Some(content) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder can be made");
    fs::write(path, content).expect("a file can be written");
}
