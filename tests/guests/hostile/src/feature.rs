//! The feature, and the event that it floods others with.

use serde::Serialize;

/// The feature.
#[derive(Debug)]
pub struct Hostile;

#[derive(Serialize)]
pub(crate) struct Noise<'a> {
    pub(crate) noise: &'a str,
}
