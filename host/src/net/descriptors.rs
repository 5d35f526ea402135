//! The process's limit of file descriptors, and the reserve that clients may not use.

use std::os::fd::AsRawFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The reserve that clients may not use: an eighth of all descriptors, within these bounds. The API, health checks, the
/// store and plugin files always need some descriptors, and not more on a larger host.
const RESERVE_SHARE: u64 = 8;
const MIN_RESERVE: u64 = 16;
const MAX_RESERVE: u64 = 256;

/// Descriptors of a host without clients, rounded up: its threads' pollers, listeners, database and journal.
const LEAST_LIMIT: u64 = 64;

/// Raises the process's soft limit to its hard one, and logs the limit. A soft limit of 1,024 is the
/// usual default, for programs that use `select`, which this one does not.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let text = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    if current == maximum {
        tracing::info!(limit = text(current), for_clients = for_clients(), "file descriptors");
    } else {
        match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            Ok(()) => tracing::info!(
                limit = text(maximum),
                raised_from = text(current),
                for_clients = for_clients(),
                "file descriptors"
            ),
            Err(error) => tracing::warn!(
                %error,
                limit = text(current),
                hard_limit = text(maximum),
                "the limit of file descriptors cannot be raised"
            ),
        }
    }
    warn_of_low_limit();
}

/// Warns of a limit below [`LEAST_LIMIT`], at which the host may fail to start.
fn warn_of_low_limit() {
    if let Some(limit) = getrlimit(Resource::Nofile).current.filter(|limit| *limit < LEAST_LIMIT) {
        tracing::warn!(
            limit,
            "a host needs {LEAST_LIMIT} file descriptors at least, and one for each client: raise the hard limit (LimitNOFILE=, \
             ulimits.nofile, ulimit -Hn)"
        );
    }
}

/// The number of descriptors up to which clients may fill the process's table.
fn for_clients() -> u64 {
    getrlimit(Resource::Nofile).current.map_or(u64::MAX, |limit| limit - reserve(limit))
}

fn reserve(limit: u64) -> u64 {
    (limit / RESERVE_SHARE).clamp(MIN_RESERVE, MAX_RESERVE).min(limit)
}

/// The clients' share of the descriptors.
#[derive(Debug, Clone, Copy)]
pub struct Descriptors {
    for_clients: u64,
}

impl Descriptors {
    /// The share under the process's current limit.
    pub fn of_process() -> Self {
        Self { for_clients: for_clients() }
    }

    /// Whether a new socket took a descriptor of the reserve. A process gets the lowest free number, so a high number means
    /// that all below it are in use.
    pub fn is_reserve(self, socket: &impl AsRawFd) -> bool {
        socket.as_raw_fd() as u64 >= self.for_clients
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserve_is_a_share_within_bounds() {
        let reserves = [0, 8, 96, 1024, 1 << 20].map(reserve);
        assert_eq!(reserves, [0, 8, 16, 128, 256]);
    }
}
