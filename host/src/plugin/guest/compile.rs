//! Compiling components, each on a thread of its own with a low priority, within a bound of CPU time.

use std::any::Any;
use std::collections::HashSet;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use wasmtime::Engine;
use wasmtime::component::Component;

use super::cache::CompiledCache;

/// The CPU time that a compilation may take. A feature takes a fraction of a second.
const MAX_CPU_TIME: Duration = Duration::from_secs(30);

/// The time after which a compilation is given up although it got less CPU time than that: the machine is too busy.
const MAX_WALL_TIME: Duration = Duration::from_secs(300);

/// How often the time of a compilation is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The niceness of a compilation's thread (nice(2)), which makes way for the threads that serve.
const NICENESS: i32 = 10;

/// Why a component was not compiled.
#[derive(Debug)]
pub(crate) struct CompileError {
    pub(crate) message: String,
    /// Whether the same component may compile later.
    pub(crate) is_passing: bool,
}

impl CompileError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_passing: false }
    }

    fn passing(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_passing: true }
    }
}

/// Compiles components, with a cache.
#[derive(Debug)]
pub(crate) struct Compiler {
    engine: Engine,
    cache: Option<CompiledCache>,
    /// The digest and code of the component that was compiled last, because a component is often described before it is
    /// loaded. Locked during a compilation, so that compilations take one core at the most.
    last: Mutex<Option<(String, Component)>>,
    /// Whether the host is stopping, which ends the wait for a compilation.
    stopping: Arc<AtomicBool>,
}

impl Compiler {
    pub(crate) fn new(engine: Engine, cache: Option<CompiledCache>, stopping: Arc<AtomicBool>) -> Self {
        Self { engine, cache, last: Mutex::default(), stopping }
    }

    /// Compiles a component, or takes it from memory or from the cache.
    ///
    /// # Errors
    /// If the bytes are no component, or it takes too long to compile, or the host is stopping or cannot start a
    /// thread.
    pub(crate) fn compile(&self, bytes: &[u8], digest: &str) -> Result<Component, CompileError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, component)) = last.as_ref().filter(|(other, _)| other == digest) {
            return Ok(component.clone());
        }
        let cached = self.cache.as_ref().and_then(|cache| cache.load(digest, &self.engine));
        let component = match cached {
            Some(component) => component,
            None => {
                let component = self.compile_on_a_thread(bytes)?;
                if let Some(cache) = &self.cache {
                    cache.store(digest, &component);
                }
                component
            }
        };
        *last = Some((digest.to_owned(), component.clone()));
        Ok(component)
    }

    /// Deletes compiled components that were not used for long, except those of the digests in `keep`.
    pub(crate) fn prune(&self, keep: &HashSet<String>) {
        if let Some(cache) = &self.cache {
            cache.prune(keep);
        }
    }

    fn compile_on_a_thread(&self, bytes: &[u8]) -> Result<Component, CompileError> {
        // A thread that takes too long is left running: nothing can stop a compilation.
        let (done, compiled) = mpsc::channel();
        let (tell_thread, thread) = mpsc::channel();
        let (engine, owned) = (self.engine.clone(), bytes.to_vec());
        thread::Builder::new()
            .name("plugin-compile".to_owned())
            .spawn(move || {
                // The receivers may have given up. Without the niceness, the thread compiles all the same.
                let _ = tell_thread.send(rustix::thread::gettid());
                let _ = rustix::process::nice(NICENESS);
                let compiled = panic::catch_unwind(AssertUnwindSafe(|| Component::new(&engine, owned)));
                let _ = done.send(compiled.map_err(|panic| panic_message(&*panic)));
            })
            .map_err(|error| CompileError::passing(format!("cannot start a thread to compile on: {error}")))?;
        let thread = thread.recv().map(|thread| thread.as_raw_nonzero().get()).unwrap_or_default();
        let started = Instant::now();
        loop {
            match compiled.recv_timeout(CHECK_INTERVAL) {
                Ok(Ok(Ok(component))) => return Ok(component),
                Ok(Ok(Err(error))) => {
                    let message = "the file is not a WebAssembly component that this host can run";
                    return Err(CompileError::new(format!("{message}: {}", causes(&error))));
                }
                Ok(Err(panic)) => {
                    let message = format!("the compiler failed on the component, which is a fault of its own: {panic}");
                    return Err(CompileError::new(message));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(CompileError::new("the compiler ended without a result"));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            if self.stopping.load(Ordering::Relaxed) {
                return Err(CompileError::passing("the host is shutting down"));
            }
            let (wall, cpu) = (started.elapsed(), cpu_time(thread));
            if cpu.unwrap_or(wall) > MAX_CPU_TIME {
                let message = format!("the component did not compile in {} s of CPU time", MAX_CPU_TIME.as_secs());
                return Err(CompileError::new(message));
            }
            if wall > MAX_WALL_TIME {
                let message = format!(
                    "the component did not compile in {} s, for the machine is busy: try again later",
                    MAX_WALL_TIME.as_secs()
                );
                return Err(CompileError::passing(message));
            }
        }
    }
}

/// The CPU time of a thread of this process: the first figure of its `schedstat` (proc(5)). None if /proc does not have
/// it.
fn cpu_time(thread: i32) -> Option<Duration> {
    let figures = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    figures.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it panicked").to_owned()
}

/// An error and its causes, on one line.
pub(crate) fn causes(error: &wasmtime::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_grows_as_a_thread_runs() {
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        let before = cpu_time(own).expect("/proc is mounted");
        let until = Instant::now() + Duration::from_secs(10);
        // schedstat is brought up to date when the thread is switched, and at each tick.
        while cpu_time(own).unwrap() < before + Duration::from_millis(20) {
            assert!(Instant::now() < until, "the figure does not grow");
        }
        assert_eq!(cpu_time(0), None);
    }

    #[test]
    fn panics_are_reported_by_message() {
        let panic = panic::catch_unwind(|| panic!("at offset {}", 7)).unwrap_err();
        assert_eq!(panic_message(&*panic), "at offset 7");
    }
}
