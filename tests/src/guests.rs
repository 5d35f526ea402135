//! Components to load: newer builds of a bundled feature, a guest that misbehaves, and guests for protocol suites.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Context as _;

use table::ManifestSpec;

#[path = "../../host/build/component.rs"]
pub(crate) mod component;

/// Held during a build: concurrent runs of cargo would only wait for each other.
static BUILDING: Mutex<()> = Mutex::new(());

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the workspace")
}

/// The folder of built components.
fn target_dir() -> PathBuf {
    crate::target_dir().join("components")
}

/// Builds a package. Returns the component of its library.
fn build(manifest: &Path, package: &str, library: &str) -> Vec<u8> {
    let _one = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = component::build(manifest, &[package], &target_dir()).expect("the component builds");
    fs::read(folder.join(library).with_extension("wasm")).expect("the component is where it was built")
}

/// The feature `ticket-collision` with another version number.
pub fn ticket_collision(version: &str) -> Vec<u8> {
    let root = root().display();
    // The library of each version has its own name, so that no version overwrites another.
    let library = format!("ticket_collision_{}", version.replace('.', "_"));
    let folder = target_dir().join("versions").join(version);
    fs::create_dir_all(&folder).expect("a folder can be made");
    let manifest = format!(
        r#"[package]
name = "ticket-collision"
description = "Keeps two agents from answering the same ticket at once"
version = "{version}"
edition = "2024"

[lib]
name = "{library}"
path = "{root}/plugins/ticket-collision/src/lib.rs"
crate-type = ["cdylib"]

[dependencies]
roundhouse-sdk = {{ path = "{root}/sdk" }}
serde = {{ version = "1", features = ["derive"] }}
serde_json = {{ version = "1", features = ["raw_value"] }}

[profile.release]
debug = "line-tables-only"

[workspace]
"#
    );
    let path = folder.join("Cargo.toml");
    if fs::read_to_string(&path).ok().as_deref() != Some(manifest.as_str()) {
        fs::write(&path, manifest).expect("a manifest can be written");
        // The dependencies have the versions of the workspace, which are compiled already.
        fs::copy(format!("{root}/Cargo.lock"), folder.join("Cargo.lock")).expect("there is a lock file");
    }
    build(&path, "ticket-collision", &library)
}

/// The component of a crate in `tests/guests`.
fn guest(name: &str) -> Vec<u8> {
    build(&root().join("Cargo.toml"), name, name)
}

/// The guest that echoes its events.
pub fn conformance() -> Vec<u8> {
    guest("conformance")
}

/// The guest that publishes events to a room.
pub fn relay() -> Vec<u8> {
    guest("relay")
}

/// The guest that admits connections: the private messaging example of Socket.IO.
pub fn private_messaging() -> Vec<u8> {
    build(&root().join("Cargo.toml"), "private-messaging", "private_messaging")
}

/// The guest that misbehaves. `describe` selects its manifest, or its fault in `describe`: see the guest's source.
pub fn hostile(describe: &str) -> Vec<u8> {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    let mut component = BUILT.get_or_init(|| guest("hostile")).clone();
    let marker = format!("{:.<32}", "describe=normal");
    let behaviour = format!("{:.<32}", format!("describe={describe}"));
    let at = component.windows(32).position(|window| window == marker.as_bytes()).expect("the guest has its marker");
    component[at..at + 32].copy_from_slice(behaviour.as_bytes());
    component
}

/// The guest that returns this manifest and acts as its events say.
pub fn table(manifest: &ManifestSpec) -> Vec<u8> {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    let mut component = BUILT.get_or_init(|| guest("table")).clone();
    let marker = format!("{:<64}", "table-manifest");
    let at = component.windows(64).position(|window| window == marker.as_bytes()).expect("the guest has its marker");
    let manifest = serde_json::to_vec(manifest).expect("a manifest is JSON");
    component[at..at + 64].fill(b' ');
    component[at..at + manifest.len()].copy_from_slice(&manifest);
    component
}

/// The same component with another digest, by an additional custom section.
pub fn relabelled(component: &[u8], label: &str) -> Vec<u8> {
    let mut relabelled = component.to_vec();
    let name = b"label";
    let size = 1 + name.len() + label.len();
    assert!(size < 128, "a label this long needs a longer size");
    relabelled.extend([0, size as u8, name.len() as u8]);
    relabelled.extend(name);
    relabelled.extend(label.as_bytes());
    relabelled
}

/// The component of a bundled feature, as it was built into the host beside this program.
///
/// # Errors
/// If the component was not built.
pub fn bundled(library: &str) -> anyhow::Result<Vec<u8>> {
    let path = crate::target_dir().join("components/wasm32-wasip2/release").join(library).with_extension("wasm");
    fs::read(&path).with_context(|| format!("{}: run `cargo build --release`", path.display()))
}
