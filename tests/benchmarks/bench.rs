//! What the workloads share.

use crate::generator::Generator;
use crate::options::Options;
use crate::report::Report;
use crate::servers::Field;

/// Shared by all workloads.
pub(crate) struct Bench {
    pub(crate) options: Options,
    pub(crate) field: Field,
    pub(crate) generator: Generator,
    pub(crate) report: Report,
}
