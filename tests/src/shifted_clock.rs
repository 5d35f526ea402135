//! A wall clock of a host's process that a test puts forward and back while the process runs.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The seconds that a process's wall clock is off, in a file that the process has mapped.
#[derive(Debug)]
pub struct ShiftedClock {
    path: PathBuf,
    file: File,
}

impl ShiftedClock {
    /// A clock that is right at first, with its file in `dir`.
    ///
    /// # Panics
    /// If the file cannot be made.
    pub fn in_folder(dir: &Path) -> Self {
        let path = dir.join("clock-offset");
        let file = File::options().create(true).truncate(false).write(true).open(&path).expect("a file can be made");
        let clock = Self { path, file };
        clock.put(0);
        clock
    }

    /// The environment variables of a process with this clock.
    pub fn env(&self) -> [(&'static str, String); 2] {
        let text = |path: &Path| path.to_str().expect("the path is text").to_owned();
        [("LD_PRELOAD", text(library())), ("TEST_CLOCK_OFFSET", text(&self.path))]
    }

    /// Puts the clock this many seconds before (positive) or behind the system's.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn put(&self, seconds: i64) {
        self.file.write_all_at(&seconds.to_ne_bytes(), 0).expect("the offset can be written");
    }
}

/// The library that is loaded before the process, which is compiled once.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/clock.c");
        let library = crate::target_dir().join("clock.so");
        // Renamed when it is whole, because processes of other tests load it.
        let unfinished = library.with_extension(std::process::id().to_string());
        let built = Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&unfinished).arg(&source).output();
        let built = built.expect("there is a C compiler, which Rust needs too");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        std::fs::rename(&unfinished, &library).expect("a file can be renamed");
        library
    })
}
