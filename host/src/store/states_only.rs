//! Read-only access to the states in a database that this process does not own, for `roundhouse check`.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use super::backend::{Backend, ScopeRecord};
use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::stored_scopes::{SCOPES_PAGE, StoredScopes, each_page};
use super::{StoreFailure, StoreUrl};

/// The states of durable scopes in a database that another process may own.
pub struct StatesOnly {
    url: StoreUrl,
    /// The connection, made at the first read.
    backend: Mutex<Option<Box<dyn Backend>>>,
}

impl std::fmt::Debug for StatesOnly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StatesOnly").field(&self.url).finish()
    }
}

impl StatesOnly {
    /// Access to the states in this database, which is connected at the first read.
    pub fn new(url: StoreUrl) -> Self {
        Self { url, backend: Mutex::default() }
    }

    fn open(&self) -> anyhow::Result<Option<Box<dyn Backend>>> {
        Ok(match &self.url {
            StoreUrl::Sqlite(path) => Sqlite::look_at(path)?.map(|sqlite| Box::new(sqlite) as Box<dyn Backend>),
            StoreUrl::Postgres(url) => Postgres::look_at(url)?.map(|postgres| Box::new(postgres) as Box<dyn Backend>),
        })
    }
}

impl StoredScopes for StatesOnly {
    /// A database that does not exist yet has no scopes.
    fn scopes(
        &self,
        plugin: &str,
        take: &mut dyn FnMut(Vec<ScopeRecord>) -> ControlFlow<()>,
    ) -> Result<(), StoreFailure> {
        let mut backend = self.backend.lock().unwrap_or_else(PoisonError::into_inner);
        if backend.is_none() {
            *backend = self.open().map_err(|error| StoreFailure::unavailable(format!("{error:#}")))?;
        }
        let Some(backend) = &mut *backend else { return Ok(()) };
        each_page(|after| Ok(backend.scopes(plugin, &after, SCOPES_PAGE)?), take)
    }
}
