//! Names of events.

/// The longest name of an event that a manifest lists or a client sends, in bytes: ten times what front-ends use, and short
/// enough to be repeated in an error.
///
/// Services may emit events with names of 256 *characters* straight to connections, which can be more bytes. That wider
/// rule stays: clients need not send such a name back, and a narrower one would refuse emits that work today.
pub const MAX_EVENT_BYTES: usize = 256;

/// The event that reports a new connection to a feature. Only the host sends it.
pub const CONNECT_EVENT: &str = "connect";

/// Events that belong to the protocols: neither features nor services may route or emit them.
pub const RESERVED_EVENTS: [&str; 10] = [
    "authenticate",
    "connected",
    "resume",
    "error",
    CONNECT_EVENT,
    "connect_error",
    "disconnect",
    "disconnecting",
    "newListener",
    "removeListener",
];

/// Checks the name of an event or a query in a manifest.
///
/// # Errors
/// With the name and the rule that it breaks.
pub(crate) fn check_event(event: &str) -> Result<(), String> {
    if event.is_empty() || event.len() > MAX_EVENT_BYTES || event.chars().any(char::is_control) {
        return Err(format!("the name {event:?} must be 1 to {MAX_EVENT_BYTES} bytes without control characters"));
    }
    if RESERVED_EVENTS.contains(&event) {
        return Err(format!("the event {event} is the host's own"));
    }
    Ok(())
}
