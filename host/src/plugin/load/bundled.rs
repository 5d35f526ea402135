//! The features that are part of the binary.

/// A feature that is part of the binary.
#[derive(Debug, Clone, Copy)]
pub struct Bundled {
    /// Its name.
    pub name: &'static str,
    /// The version of its build.
    pub version: &'static str,
    /// Its component.
    pub component: &'static [u8],
}

/// All of them, by name.
pub fn bundled() -> &'static [Bundled] {
    // Written by the build script: one entry for each crate in `plugins/`.
    const BUNDLED: &[Bundled] = include!(concat!(env!("OUT_DIR"), "/bundled.rs"));
    BUNDLED
}
