//! The watch over certificate files: changed files are taken into use without a restart.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::files::TlsFiles;
use super::server::Tls;
use crate::metrics::Metrics;

/// Time between two looks at the files. Polling finds every kind of change: a file that is written over or replaced,
/// the symbolic links of a Kubernetes volume, a network file system; for a few files it costs nothing.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a change of the files changes: device, inode, size, and time of modification of each.
type Signature = Vec<Option<(u64, u64, u64, i64, i64)>>;

/// A thread that takes changed certificates into use.
#[derive(Debug)]
pub struct CertificateWatch {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

/// The files of one listener, as they were last seen.
#[derive(Debug)]
struct Watched {
    tls: Tls,
    /// The files in use, or those that were refused.
    known: Signature,
    /// The files at the last look.
    seen: Signature,
}

impl CertificateWatch {
    /// Starts to watch the files of these listeners. `None` without any.
    ///
    /// # Errors
    /// Where the thread cannot be started.
    pub fn start(listeners: [Option<Tls>; 2], metrics: Metrics) -> io::Result<Option<Self>> {
        let (stop, stopped) = mpsc::channel();
        let mut watched: Vec<_> = listeners.into_iter().flatten().map(Watched::new).collect();
        if watched.is_empty() {
            return Ok(None);
        }
        let thread = thread::Builder::new().name("certificates".to_owned()).spawn(move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                watched.iter_mut().for_each(|watched| watched.look(&metrics));
            }
        })?;
        Ok(Some(Self { stop, thread }))
    }

    /// Stops watching.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the thread that watches certificates panicked");
        }
    }
}

impl Watched {
    fn new(tls: Tls) -> Self {
        let known = signature(tls.files());
        Self { tls, seen: known.clone(), known }
    }

    /// Takes the files into use if they have changed, and stayed as they are since the last look: a certificate and its
    /// key are written one after the other.
    fn look(&mut self, metrics: &Metrics) {
        let now = signature(self.tls.files());
        let is_settled = now == self.seen;
        self.seen = now;
        if !is_settled || self.seen == self.known {
            return;
        }
        self.known.clone_from(&self.seen);
        let listener = self.tls.listener();
        let outcome = match self.tls.reload() {
            Ok(()) => {
                tracing::info!(listener, "the certificate has changed, and new connections get the new one");
                "ok"
            }
            Err(error) => {
                tracing::error!(
                    listener,
                    %error,
                    "the certificate's files have changed and cannot be used: connections get the one before"
                );
                "refused"
            }
        };
        metrics.tls_reloads.with_label_values(&[listener, outcome]).inc();
    }
}

fn signature(files: &TlsFiles) -> Signature {
    // A missing file counts as a state of its own.
    let of = |metadata: fs::Metadata| {
        (metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec())
    };
    files.paths().map(|path| fs::metadata(path).ok().map(of)).collect()
}
