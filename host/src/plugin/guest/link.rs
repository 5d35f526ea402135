//! Linking: the interfaces that the host offers to components, and the refusal of components that import others.

use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, Linker, Resource};
use wasmtime_wasi::p2::DynPollable;

use super::bindings::{Feature, FeaturePre};
use super::compile::causes;
use super::sandbox::HostState;

/// The interface that would let a component sleep, as `wasmtime-wasi` names it.
const MONOTONIC_CLOCK: &str = "wasi:clocks/monotonic-clock@0.2.12";

/// A component that is linked to the host, from which instances are made.
pub(crate) type LinkedComponent = FeaturePre<HostState>;

/// Links components to the interfaces that the host offers.
pub(crate) struct FeatureLinker {
    engine: Engine,
    linker: Linker<HostState>,
}

impl FeatureLinker {
    /// # Errors
    /// If two of the host's interfaces have the same name.
    pub(crate) fn new(engine: Engine) -> wasmtime::Result<Self> {
        let linker = linker(&engine)?;
        Ok(Self { engine, linker })
    }

    /// Links a component.
    ///
    /// # Errors
    /// If the component imports an interface that the host does not offer, or lacks an export of a feature.
    pub(crate) fn link(&self, component: &Component) -> Result<LinkedComponent, String> {
        let component_type = component.component_type();
        for (name, _) in component_type.imports(&self.engine) {
            // The rest of WASI is linked only because `wasmtime-wasi` adds it in one piece.
            let is_offered = name.starts_with("roundhouse:feature/")
                || ["cli", "clocks", "io", "random", "filesystem"]
                    .iter()
                    .any(|part| name.starts_with(&format!("wasi:{part}/")));
            if !is_offered {
                return Err(format!("the component imports {name}, which this host does not offer to features"));
            }
        }
        let pre = self
            .linker
            .instantiate_pre(component)
            .map_err(|error| format!("the component imports what this host does not offer: {}", causes(&error)))?;
        FeaturePre::new(pre)
            .map_err(|error| format!("the component is not a feature of roundhouse:feature@1.0.0: {}", causes(&error)))
    }
}

/// The interfaces that the host offers to components.
///
/// # Errors
/// If two of the interfaces have the same name.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<HostState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
    Feature::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    // A sleep would hold up the plugin thread, and no deadline interrupts the host's own functions.
    linker.allow_shadowing(true);
    let mut clock = linker.instance(MONOTONIC_CLOCK)?;
    for function in ["subscribe-duration", "subscribe-instant"] {
        clock.func_wrap(function, |_, (_,): (u64,)| -> wasmtime::Result<(Resource<DynPollable>,)> {
            Err(wasmtime::format_err!("a feature cannot sleep: it sets a timer"))
        })?;
    }
    Ok(linker)
}
