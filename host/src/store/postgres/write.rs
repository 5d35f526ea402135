//! The statements that write.

use std::collections::HashSet;

use postgres::Client;
use postgres::types::Type;

use super::super::Promise;
use super::super::backend::{AnsweredCall, BackendError, Document, MAX_ANSWERED_CALLS, ScopeRecord, Write, Written};

/// Which rows of scopes may be replaced and deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// All: the fence of the lease shows that this host owns them.
    Always,
    /// Those that no newer owner has written. In an epoch that a Redis that lost writes gave away twice, it is the number of
    /// handled events that says which state is newer.
    UnlessNewer,
}

/// Executes writes of one kind, in one round trip if possible.
pub(super) fn write_run(
    client: &mut Client,
    rule: Rule,
    run: &[Write<'_>],
    written: &mut Vec<Written>,
) -> Result<(), BackendError> {
    let promises: Vec<&Promise> = run
        .iter()
        .filter_map(|write| match write {
            Write::Insert(promise) | Write::Retract(promise) => Some(*promise),
            _ => None,
        })
        .collect();
    match run.first() {
        Some(Write::Insert(_)) => return insert(client, &promises, written),
        Some(Write::Retract(_)) => {
            let retracted: Vec<&str> = promises.iter().map(|promise| promise.id.as_str()).collect();
            client.execute_typed(
                "DELETE FROM roundhouse_documents WHERE id = ANY($1)",
                &[(&retracted, Type::TEXT_ARRAY)],
            )?;
        }
        _ => {
            let put: Vec<_> = run
                .iter()
                .filter_map(|write| if let Write::PutScope(put) = write { Some(*put) } else { None })
                .collect();
            if !put.is_empty() {
                put_scopes(client, rule, &put)?;
            }
            let calls: Vec<_> = run
                .iter()
                .filter_map(|write| if let Write::Remember(call) = write { Some(*call) } else { None })
                .collect();
            if !calls.is_empty() {
                remember(client, &calls)?;
            }
            for write in run {
                if let Write::DropScope { plugin, key, epoch, expires_ms } = write {
                    drop_scope(client, rule, (plugin, key), (*epoch, *expires_ms))?;
                }
            }
        }
    }
    written.extend(run.iter().map(|_| Written::AsAsked));
    Ok(())
}

fn insert(client: &mut Client, promises: &[&Promise], written: &mut Vec<Written>) -> Result<(), BackendError> {
    let column = |of: fn(&Promise) -> &str| promises.iter().map(|promise| of(promise)).collect::<Vec<&str>>();
    let keys: Vec<Option<&str>> = promises.iter().map(|promise| promise.key.as_deref()).collect();
    let inserted = client.query_typed(
        "INSERT INTO roundhouse_documents (id, plugin, scope, collection, key, body)
         SELECT id, plugin, scope, collection, key, body
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
             WITH ORDINALITY AS new (id, plugin, scope, collection, key, body, n)
         ORDER BY n
         ON CONFLICT DO NOTHING RETURNING id",
        &[
            (&column(|promise| &promise.id), Type::TEXT_ARRAY),
            (&column(|promise| &promise.plugin), Type::TEXT_ARRAY),
            (&column(|promise| &promise.scope), Type::TEXT_ARRAY),
            (&column(|promise| &promise.collection), Type::TEXT_ARRAY),
            (&keys, Type::TEXT_ARRAY),
            (&column(|promise| &promise.document), Type::TEXT_ARRAY),
        ],
    )?;
    let inserted: HashSet<&str> = inserted.iter().map(|row| row.get(0)).collect();
    for promise in promises {
        if inserted.contains(promise.id.as_str()) {
            written.push(Written::AsAsked);
            continue;
        }
        // An earlier attempt stored the document although it seemed to fail, or another document has the same key.
        let Promise { id, plugin, scope, collection, key, .. } = promise;
        let stored = client.query_typed_one(
            "SELECT id, body FROM roundhouse_documents WHERE id = $1
             UNION ALL SELECT id, body FROM roundhouse_documents
                 WHERE plugin = $2 AND scope = $3 AND collection = $4 AND key = $5
             LIMIT 1",
            &[(id, Type::TEXT), (plugin, Type::TEXT), (scope, Type::TEXT), (collection, Type::TEXT), (key, Type::TEXT)],
        )?;
        let stored = Document { id: stored.get(0), body: stored.get(1) };
        written.push(if stored.id == *id { Written::AsAsked } else { Written::Before(stored) });
    }
    Ok(())
}

fn drop_scope(
    client: &mut Client,
    rule: Rule,
    (plugin, key): (&str, &str),
    (epoch, expires_ms): (u64, u64),
) -> Result<(), BackendError> {
    // Times are stored in 63 bits.
    let expires_ms = i64::try_from(expires_ms).unwrap_or(i64::MAX);
    client.execute_typed(
        "DELETE FROM roundhouse_scopes
         WHERE plugin = $1 AND key = $2 AND ($3 OR (epoch <= $4 AND expires_ms <= $5))",
        &[
            (&plugin, Type::TEXT),
            (&key, Type::TEXT),
            (&(rule == Rule::Always), Type::BOOL),
            (&(epoch as i64), Type::INT8),
            (&expires_ms, Type::INT8),
        ],
    )?;
    Ok(())
}

fn put_scopes(client: &mut Client, rule: Rule, scopes: &[&ScopeRecord]) -> Result<(), BackendError> {
    let plugins: Vec<&str> = scopes.iter().map(|scope| scope.plugin.as_str()).collect();
    let keys: Vec<&str> = scopes.iter().map(|scope| scope.key.as_str()).collect();
    let versions: Vec<i64> = scopes.iter().map(|scope| scope.version.into()).collect();
    let states: Vec<Option<&[u8]>> = scopes.iter().map(|scope| scope.state.as_deref()).collect();
    let sequences: Vec<i64> = scopes.iter().map(|scope| scope.sequence as i64).collect();
    let timers = scopes.iter().map(|scope| serde_json::to_string(&scope.timers)).collect::<Result<Vec<_>, _>>();
    let timers = timers.map_err(|error| BackendError::Refused(error.to_string()))?;
    let expiries: Vec<i64> = scopes.iter().map(|scope| scope.expires_ms as i64).collect();
    let before_versions: Vec<Option<i64>> =
        scopes.iter().map(|scope| scope.before.as_ref().map(|(version, _)| i64::from(*version))).collect();
    let before_states: Vec<Option<&[u8]>> =
        scopes.iter().map(|scope| scope.before.as_ref().map(|(_, state)| &state[..])).collect();
    let epochs: Vec<i64> = scopes.iter().map(|scope| scope.epoch as i64).collect();
    client.execute_typed(
        "INSERT INTO roundhouse_scopes
             (plugin, key, version, state, sequence, timers, expires_ms, before_version, before_state, epoch)
         SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::bigint[], $6::text[], $7::bigint[],
             $8::bigint[], $9::bytea[], $10::bigint[])
         ON CONFLICT (plugin, key) DO UPDATE SET version = excluded.version, state = excluded.state,
             sequence = excluded.sequence, timers = excluded.timers, expires_ms = excluded.expires_ms,
             before_version = excluded.before_version, before_state = excluded.before_state, epoch = excluded.epoch
         WHERE $11 OR (roundhouse_scopes.epoch, roundhouse_scopes.sequence) <= (excluded.epoch, excluded.sequence)",
        &[
            (&plugins, Type::TEXT_ARRAY),
            (&keys, Type::TEXT_ARRAY),
            (&versions, Type::INT8_ARRAY),
            (&states, Type::BYTEA_ARRAY),
            (&sequences, Type::INT8_ARRAY),
            (&timers, Type::TEXT_ARRAY),
            (&expiries, Type::INT8_ARRAY),
            (&before_versions, Type::INT8_ARRAY),
            (&before_states, Type::BYTEA_ARRAY),
            (&epochs, Type::INT8_ARRAY),
            (&(rule == Rule::Always), Type::BOOL),
        ],
    )?;
    Ok(())
}

fn remember(client: &mut Client, calls: &[&AnsweredCall]) -> Result<(), BackendError> {
    let callers: Vec<&str> = calls.iter().map(|call| call.caller.as_str()).collect();
    let keys: Vec<&str> = calls.iter().map(|call| call.key.as_str()).collect();
    let fingerprints: Vec<&[u8]> = calls.iter().map(|call| &call.fingerprint[..]).collect();
    let answers: Vec<&str> = calls.iter().map(|call| call.answer.as_str()).collect();
    let times: Vec<i64> = calls.iter().map(|call| call.answered_ms as i64).collect();
    client.execute_typed(
        // A statement may insert or update a row only once.
        "INSERT INTO roundhouse_answered_calls (caller, key, fingerprint, answer, answered_ms)
         SELECT caller, key, fingerprint, answer, answered_ms FROM (
             SELECT DISTINCT ON (caller, key) *
             FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bigint[])
                 WITH ORDINALITY AS new (caller, key, fingerprint, answer, answered_ms, n)
             ORDER BY caller, key, n DESC
         ) AS last ORDER BY n
         ON CONFLICT (caller, key) DO UPDATE SET seq = DEFAULT, fingerprint = excluded.fingerprint,
             answer = excluded.answer, answered_ms = excluded.answered_ms",
        &[
            (&callers, Type::TEXT_ARRAY),
            (&keys, Type::TEXT_ARRAY),
            (&fingerprints, Type::BYTEA_ARRAY),
            (&answers, Type::TEXT_ARRAY),
            (&times, Type::INT8_ARRAY),
        ],
    )?;
    client.execute_typed(
        "DELETE FROM roundhouse_answered_calls
         WHERE seq <= (SELECT max(seq) FROM roundhouse_answered_calls) - $1",
        &[(&(MAX_ANSWERED_CALLS as i64), Type::INT8)],
    )?;
    Ok(())
}
