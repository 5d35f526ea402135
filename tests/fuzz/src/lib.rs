//! The host's codecs, compiled from where they are without the rest of the host, and what must hold for any bytes.

#[path = "../../../host/src/model/mod.rs"]
pub mod model;
#[path = "../../../host/src/protocol/mod.rs"]
pub mod protocol;

pub mod checks;
