//! The features that are part of the binary.

/// A feature that is compiled into the host's binary.
#[derive(Debug, Clone, Copy)]
pub struct Bundled {
    /// The plugin's name, as in the manifest.
    pub name: &'static str,
    /// The version of the bundled build.
    pub version: &'static str,
    /// The component's bytes.
    pub component: &'static [u8],
}

/// All bundled features, sorted by name.
pub fn bundled() -> &'static [Bundled] {
    // Written by the build script: one entry for each crate in `plugins/`.
    const BUNDLED: &[Bundled] = include!(concat!(env!("OUT_DIR"), "/bundled.rs"));
    BUNDLED
}
