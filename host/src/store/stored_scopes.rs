//! Reading the durable scopes of a plugin, page by page.

use std::fmt::Debug;
use std::ops::ControlFlow;

use super::{ScopeRecord, StoreFailure};

/// Scopes in a page, at most.
pub(super) const SCOPES_PAGE: u32 = 1000;

/// A source of durable states: the host's own store, or a store that is only read.
pub trait StoredScopes: Debug + Send + Sync {
    /// Passes the scopes of a plugin to `take`, page by page, until `take` breaks. Waits for the database, so a thread
    /// that handles events must not call it.
    ///
    /// # Errors
    /// If the scopes cannot be read. `take` may have got some of them before.
    fn scopes(
        &self,
        plugin: &str,
        take: &mut dyn FnMut(Vec<ScopeRecord>) -> ControlFlow<()>,
    ) -> Result<(), StoreFailure>;
}

/// Passes pages to `take` until it breaks or none is left. `read` gets the last key of the page before, or an empty text.
pub(super) fn each_page(
    mut read: impl FnMut(String) -> Result<Vec<ScopeRecord>, StoreFailure>,
    mut take: impl FnMut(Vec<ScopeRecord>) -> ControlFlow<()>,
) -> Result<(), StoreFailure> {
    let mut after = String::new();
    loop {
        let page = read(after)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.key.clone();
        if take(page).is_break() {
            return Ok(());
        }
    }
}
