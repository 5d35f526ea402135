//! Log lines for operators: a component writes them through the host, a native test to the simulator, other native code
//! to standard error.

#[cfg(not(target_arch = "wasm32"))]
use std::cell::RefCell;

/// The level of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// An error.
    Error,
    /// A warning.
    Warn,
    /// Information.
    Info,
    /// Details for debugging.
    Debug,
}

impl Level {
    /// The level's wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// Writes a line. The macros [`error!`](crate::error), [`warn!`](crate::warn), [`info!`](crate::info) and
/// [`debug!`](crate::debug) read better.
#[cfg(target_arch = "wasm32")]
pub fn write(level: Level, message: &str) {
    crate::bindings::roundhouse::feature::log::write(level.as_str(), message);
}

/// Writes a line. The macros [`error!`](crate::error), [`warn!`](crate::warn), [`info!`](crate::info) and
/// [`debug!`](crate::debug) read better.
#[cfg(not(target_arch = "wasm32"))]
pub fn write(level: Level, message: &str) {
    use std::io::Write as _;
    let captured = CAPTURED.with_borrow_mut(|lines| match lines {
        Some(lines) => {
            lines.push((level, message.to_owned()));
            true
        }
        None => false,
    });
    if !captured {
        // If standard error is closed, there is no place left to report it.
        drop(writeln!(std::io::stderr(), "{} {message}", level.as_str()));
    }
}

// Authors log from any function without a context at hand, as with `tracing`. Therefore the destination of the lines is
// ambient, in native tests only. It is thread-local because each test runs its simulation on its own thread.
#[cfg(not(target_arch = "wasm32"))]
thread_local! {
    static CAPTURED: RefCell<Option<Vec<(Level, String)>>> = const { RefCell::new(None) };
}

/// Runs `body`. Also returns the lines that it logged.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn capture<T>(body: impl FnOnce() -> T) -> (T, Vec<(Level, String)>) {
    CAPTURED.set(Some(Vec::new()));
    let value = body();
    (value, CAPTURED.take().unwrap_or_default())
}

macro_rules! level_macros {
    ($($(#[$doc:meta])* $name:ident $level:ident;)*) => {
        level_macros!(@with ($) $($(#[$doc])* $name $level;)*);
    };
    (@with ($d:tt) $($(#[$doc:meta])* $name:ident $level:ident;)*) => {
        $(
            $(#[$doc])*
            #[macro_export]
            macro_rules! $name {
                ($d($d arg:tt)*) => {
                    $crate::log::write($crate::log::Level::$level, &::std::format!($d($d arg)*))
                };
            }
        )*
    };
}

level_macros! {
    /// Logs an error.
    error Error;
    /// Logs a warning.
    warn Warn;
    /// Logs information.
    info Info;
    /// Logs details for debugging.
    debug Debug;
}
