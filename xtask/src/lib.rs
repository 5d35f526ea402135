//! The sources of the repository: the files, their imports of each other, and their figures.
//!
//! - [`sources`]: the Rust files, read from disk or given
//! - [`modules`]: the modules of each target, and the paths that their code names
//! - [`imports`]: those paths, followed to the file that defines the named item
//! - [`circles`]: files that import each other in a circle
//! - [`figures`] and [`shape`]: the table of `cargo xtask shape`
//!
//! `tests/layers` has the rules for imports, and uses the first four modules.

pub mod circles;
pub mod figures;
pub mod imports;
pub mod modules;
pub mod shape;
pub mod sources;
