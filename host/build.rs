//! Compiles each crate in `plugins/` to a component and embeds it, so that the binary alone is enough.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "build/component.rs"]
mod component;

fn main() {
    if let Err(error) = run() {
        // A build script speaks through its standard output.
        println!("cargo::error={error}");
    }
}

fn run() -> Result<(), String> {
    let var = |name: &str| env::var(name).map(PathBuf::from).map_err(|e| format!("{name}: {e}"));
    let (manifest_dir, out_dir) = (var("CARGO_MANIFEST_DIR")?, var("OUT_DIR")?);
    let root = manifest_dir.parent().ok_or("the host crate has no parent folder")?;
    let mut names: Vec<String> = fs::read_dir(root.join("plugins"))
        .map_err(|e| format!("cannot list plugins/: {e}"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("Cargo.toml").exists())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    for path in ["plugins", "sdk", "wit", "Cargo.lock", "host/build"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    let packages: Vec<&str> = names.iter().map(String::as_str).collect();
    let target_dir = target_dir(&out_dir).ok_or("the output folder is not within a target folder")?;
    let folder = component::build(&root.join("Cargo.toml"), &packages, &target_dir.join("components"))?;
    let mut list = String::from("&[\n");
    for name in &names {
        let path = folder.join(name.replace('-', "_")).with_extension("wasm");
        let embedded = out_dir.join(format!("{name}.wasm"));
        fs::copy(&path, &embedded).map_err(|e| format!("cannot copy {}: {e}", path.display()))?;
        let version = version_of(&root.join("plugins").join(name).join("Cargo.toml"))?;
        writeln!(
            list,
            "    Bundled {{ name: {name:?}, version: {version:?}, component: include_bytes!({embedded:?}) }},"
        )
        .map_err(|e| e.to_string())?;
    }
    list.push(']');
    fs::write(out_dir.join("bundled.rs"), list).map_err(|e| format!("cannot write the list of plugins: {e}"))
}

/// The version that a plugin's crate has, which its component gives itself.
fn version_of(manifest: &Path) -> Result<String, String> {
    let wrong = |what: &str| format!("{}: {what}", manifest.display());
    let text = fs::read_to_string(manifest).map_err(|e| wrong(&e.to_string()))?;
    if text.lines().any(|line| line == "version.workspace = true") {
        // As the host's own.
        return env::var("CARGO_PKG_VERSION").map_err(|e| wrong(&e.to_string()));
    }
    let line = text.lines().find_map(|line| line.strip_prefix("version = "));
    line.map(|version| version.trim_matches('"').to_owned()).ok_or_else(|| wrong("it has no line `version = …`"))
}

/// `target`, from `target/release/build/roundhouse-…/out`.
fn target_dir(out_dir: &Path) -> Option<&Path> {
    out_dir.ancestors().nth(4)
}
