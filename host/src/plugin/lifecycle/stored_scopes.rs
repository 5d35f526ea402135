//! The sources of the states of durable scopes.

use std::ops::ControlFlow;

use crate::store::{ScopeRecord, StoreFailure};

/// A source of durable states: the host's own store, or a store that is only read.
pub trait StoredScopes: std::fmt::Debug + Send + Sync {
    /// Passes the scopes of a plugin to `take`, page by page, until `take` breaks.
    ///
    /// # Errors
    /// If the scopes cannot be read. `take` may have got some of them before.
    fn scopes(
        &self,
        plugin: &str,
        take: &mut dyn FnMut(Vec<ScopeRecord>) -> ControlFlow<()>,
    ) -> Result<(), StoreFailure>;
}

impl StoredScopes for crate::store::Store {
    fn scopes(
        &self,
        plugin: &str,
        take: &mut dyn FnMut(Vec<ScopeRecord>) -> ControlFlow<()>,
    ) -> Result<(), StoreFailure> {
        self.scopes(plugin, take)
    }
}

impl StoredScopes for crate::store::StatesOnly {
    fn scopes(
        &self,
        plugin: &str,
        take: &mut dyn FnMut(Vec<ScopeRecord>) -> ControlFlow<()>,
    ) -> Result<(), StoreFailure> {
        self.scopes(plugin, take)
    }
}
