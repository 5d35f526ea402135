//! Where the states of durable scopes are read from.

use std::ops::ControlFlow;

use crate::store::{ScopeRecord, StoreFailure};

/// A source of durable states: the host's own store, or one that is only read.
pub trait StoredScopes: std::fmt::Debug + Send + Sync {
    /// Gives the scopes of a plugin to `take`, page by page, until it takes no more.
    ///
    /// # Errors
    /// Where they cannot be read. Some may have been given then.
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
