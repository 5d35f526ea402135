//! The host's codecs, compiled in place without the rest of the host, and properties that hold for any bytes; and those of the
//! contract's checks.

#[path = "../../../host/src/model/mod.rs"]
pub mod model;
#[path = "../../../host/src/protocol/mod.rs"]
pub mod protocol;

pub mod checks;
pub mod contract;
