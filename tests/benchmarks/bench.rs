//! The state that all workloads share.

use crate::generator::Generator;
use crate::options::Options;
use crate::report::Report;
use crate::servers::Field;

/// The options, the servers, the generator and the report of a run.
pub(crate) struct Bench {
    pub(crate) options: Options,
    pub(crate) field: Field,
    pub(crate) generator: Generator,
    pub(crate) report: Report,
}
