//! The tree as text: which files there are, how they import each other, and what they look like in figures.
//!
//! - [`sources`]: the Rust files, read or given
//! - [`modules`]: the modules of each target, and every path that they name
//! - [`imports`]: those paths, followed to the file that defines what they name
//! - [`circles`]: files that import each other in a circle
//! - [`figures`] and [`shape`]: the table of `cargo xtask shape`
//!
//! `tests/layers` has the rules that imports keep, and uses the first four.

pub mod circles;
pub mod figures;
pub mod imports;
pub mod modules;
pub mod shape;
pub mod sources;
