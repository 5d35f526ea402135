//! What components return, as the contract's unchecked types.

use roundhouse_contract::{Grants, raw};

use super::bindings::roundhouse::feature::manifest as wit;

/// What `describe` returned.
pub(crate) fn manifest(manifest: wit::Manifest) -> raw::Manifest {
    let wit::Manifest { name, version, description, state_version, emits, needs, extensions, .. } = manifest;
    let scope = |wit::Scope { template, durability, idle_ms }| raw::Scope { template, durability, idle_ms };
    let route = |wit::Route { event, origins, scope }| raw::Route { event, origins, scope };
    let query = |wit::Query { name, scope }| raw::Query { name, scope };
    let wit::Needs { rooms, audiences, actions } = needs;
    raw::Manifest {
        name,
        version,
        description,
        state_version,
        scopes: manifest.scopes.into_iter().map(scope).collect(),
        routes: manifest.routes.into_iter().map(route).collect(),
        queries: manifest.queries.into_iter().map(query).collect(),
        emits,
        needs: Grants { rooms, audiences, actions },
        extensions,
    }
}
