//! The feature, and the event with which it floods others.

use serde::Serialize;

/// The feature.
#[derive(Debug)]
pub struct Hostile;

#[derive(Serialize)]
pub(crate) struct Noise<'a> {
    pub(crate) noise: &'a str,
}
