//! Builds feature crates to components, for the host's build script and for the tests.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target that gives a component without further tools.
const TARGET: &str = "wasm32-wasip2";

/// Builds `packages` of the workspace or package at `manifest`, and gives the folder where their components are.
///
/// # Errors
/// Where the target is missing and cannot be added, or the build fails; with what to do.
pub(crate) fn build(manifest: &Path, packages: &[&str], target_dir: &Path) -> Result<PathBuf, String> {
    add_target()?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--lib", "--target", TARGET]).arg("--manifest-path").arg(manifest);
    command.arg("--target-dir").arg(target_dir);
    for package in packages {
        command.args(["--package", package]);
    }
    // What the outer build was told is not meant for this one.
    for (name, _) in env::vars_os() {
        let is_ours = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_FEATURE_")
                || name.starts_with("CARGO_CFG_")
                || matches!(
                    name,
                    "CARGO_ENCODED_RUSTFLAGS"
                        | "RUSTFLAGS"
                        | "TARGET"
                        | "CARGO_BUILD_TARGET"
                        | "RUSTC_WRAPPER"
                        | "RUSTC_WORKSPACE_WRAPPER"
                )
        });
        if is_ours {
            command.env_remove(name);
        }
    }
    // Debug information would make up nine tenths of a component.
    command.env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo");
    // A feature's own code is little: most of a call is the SDK, serde and the allocator, which are inlined only so.
    command.env("CARGO_PROFILE_RELEASE_LTO", "fat").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    let output = command.output().map_err(|e| format!("cannot run cargo to build components: {e}"))?;
    if !output.status.success() {
        return Err(format!(
            "cannot build components: {}",
            String::from_utf8_lossy(&output.stderr).replace('\n', " | ")
        ));
    }
    Ok(target_dir.join(TARGET).join("release"))
}

/// Adds the target through rustup, if it is not there.
fn add_target() -> Result<(), String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let libraries = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    let is_installed = libraries.is_ok_and(|output| {
        output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).exists()
    });
    if is_installed {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]);
    if let Some(toolchain) = env::var_os("RUSTUP_TOOLCHAIN") {
        rustup.arg("--toolchain").arg(toolchain);
    }
    match rustup.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "the target {TARGET} is missing and rustup cannot add it ({}): run `rustup target add {TARGET}`",
            String::from_utf8_lossy(&output.stderr).trim().replace('\n', " | ")
        )),
        Err(_) => Err(format!("the target {TARGET} is missing: run `rustup target add {TARGET}`")),
    }
}
