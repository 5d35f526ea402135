//! The rules for imports. Each rule is a table and one function that reads it.

use std::collections::{BTreeMap, BTreeSet};

use xtask::circles::{circles, graph};
use xtask::imports::{Import, Place, imports};
use xtask::modules::{Form, targets};
use xtask::sources::Sources;

/// The host's modules from the top layer to the bottom. Modules of one layer may not import each other either.
const LAYERS: [&[&str]; 11] = [
    &["main"],
    &["cli"],
    &["server"],
    &["config"],
    &["api", "conn"],
    &["plugin"],
    &["hub"],
    &["protocol", "store", "auth", "net", "policy", "cluster"],
    &["ledger", "outbound"],
    &["metrics"],
    &["model"],
];

/// The rooms inside a module, from top to bottom: a room imports only those below it. The files beside the rooms are
/// the module's face.
const ROOMS: [(&str, &[&str]); 1] = [("host/src/plugin/", &["", "lifecycle/", "run/", "load/", "guest/", "event/"])];

/// Crates, each with the only folder of another crate that may name it.
const ONLY_HERE: [(&str, &str, &str); 2] =
    [("host/src/", "wasmtime", "host/src/plugin/guest/"), ("host/src/", "wasmtime_wasi", "host/src/plugin/guest/")];

/// Code that is generated from the WIT, each with the only room that may import it.
const BINDINGS: [(&str, &str); 2] =
    [("host/src/plugin/guest/bindings.rs", "host/src/plugin/guest/"), ("sdk/src/bindings.rs", "sdk/src/")];

/// Crates, and modules of `std`, that a folder may not name.
const FORBIDDEN: [(&str, &[&str]); 4] = [
    ("host/src/", &["roundhouse_sdk", "xtask"]),
    ("plugins/", &["roundhouse", "roundhouse_contract", "wasmtime", "wit_bindgen", "tokio", "std::fs", "std::net"]),
    ("sdk/", &["roundhouse", "wasmtime", "tokio", "std::net"]),
    ("wit/", &["roundhouse", "roundhouse_sdk", "wasmtime", "wit_bindgen", "tokio", "std::fs", "std::net", "std::io"]),
];

/// All violations except circles, each as `file:line` and the rule.
///
/// # Errors
/// If a file is not Rust.
pub(crate) fn violations(sources: &Sources) -> Result<Vec<String>, String> {
    let mut found = BTreeSet::new();
    for target in targets(sources)? {
        let imports = imports(&target);
        for import in &imports {
            let mut complain = |what: String| found.insert(format!("{}:{} {what}", import.file, import.line));
            if target.root == "host/src/lib.rs" {
                layers(import).map(&mut complain);
            }
            rooms(import).map(&mut complain);
            outsiders(import).map(&mut complain);
            state(import).map(&mut complain);
        }
        found.extend(groups(&imports, sources));
    }
    Ok(found.into_iter().collect())
}

/// All files that import each other in a circle.
///
/// # Errors
/// If a file is not Rust.
pub(crate) fn circular_files(sources: &Sources) -> Result<BTreeSet<String>, String> {
    let circles = targets(sources)?.iter().flat_map(|target| circles(&graph(&imports(target)))).collect::<Vec<_>>();
    Ok(circles.into_iter().flatten().collect())
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// A module of the host imports modules of lower layers only.
fn layers(import: &Import) -> Option<String> {
    let own = import.module.first()?;
    let Some(layer) = layer_of(own) else {
        return Some(format!("is in no layer: add {own} to LAYERS, where it belongs"));
    };
    let named = import.named.get(1).filter(|_| import.named[0] == "crate");
    if import.named.len() == 1 && import.named[0] == "crate" {
        return Some("imports the whole crate".into());
    }
    let defined = match &import.defined {
        Place::Here { module, .. } => module.first(),
        Place::Elsewhere => None,
    };
    let above = |other: &&String| *other != own && layer_of(other).is_some_and(|other| other <= layer);
    let other = named.filter(above).or(defined.filter(above))?;
    Some(format!("imports {other}, which is not below {own}"))
}

/// A room imports only rooms below it.
fn rooms(import: &Import) -> Option<String> {
    let Place::Here { file, .. } = &import.defined else { return None };
    let (module, rooms) =
        ROOMS.iter().find(|(module, _)| import.file.starts_with(module) && file.starts_with(module))?;
    let room = |file: &str| {
        let folder = file[module.len()..].find('/').map_or("", |end| &file[module.len()..=module.len() + end]);
        rooms.iter().position(|room| *room == folder)
    };
    match (room(&import.file), room(file)) {
        (Some(own), Some(other)) if other >= own => None,
        // The face re-exports items of its rooms.
        _ if import.form == Form::Reexport => None,
        (None, _) | (_, None) => {
            Some(format!("is in, or imports, a folder that is no room of {module}: add it to ROOMS"))
        }
        _ => Some(format!("imports {file}, a room above its own")),
    }
}

/// Crates, modules of `std` and generated bindings are named only where the tables allow it.
fn outsiders(import: &Import) -> Option<String> {
    let named = import.named.join("::");
    let is = |name: &str| named == name || named.strip_prefix(name).is_some_and(|rest| rest.starts_with("::"));
    let only = ONLY_HERE
        .iter()
        .find(|(whose, name, home)| import.file.starts_with(whose) && is(name) && !import.file.starts_with(home));
    if let Some((_, name, home)) = only {
        return Some(format!("names {name}, which only {home} may"));
    }
    let forbidden =
        FORBIDDEN.iter().filter(|(folder, _)| import.file.starts_with(folder)).flat_map(|(_, names)| *names);
    if let Some(name) = forbidden.into_iter().find(|name| is(name)) {
        return Some(format!("names {name}, which this folder may not"));
    }
    let Place::Here { file, .. } = &import.defined else { return None };
    let (_, home) = BINDINGS.iter().find(|(bindings, home)| file == bindings && !import.file.starts_with(home))?;
    Some(format!("imports the WIT's bindings, which only {home} may"))
}

/// State imports neither the shard that owns it nor the modules beside it.
fn state(import: &Import) -> Option<String> {
    const CONN: &str = "host/src/conn/";
    let is_state = |file: &str| file.strip_prefix(CONN).is_some_and(|rest| rest.starts_with("state/"));
    if !is_state(&import.file) {
        return None;
    }
    if import.named.iter().any(|segment| segment == "Shard") {
        return Some("names Shard from within conn/state".into());
    }
    match &import.defined {
        Place::Here { file, .. } if file.starts_with(CONN) && !is_state(file) => {
            Some(format!("imports {file} from within conn/state"))
        }
        _ => None,
    }
}

/// The `use` of a module form up to three groups with a blank line between them: `std`, other crates, this crate.
fn groups(imports: &[Import], sources: &Sources) -> Vec<String> {
    let group = |import: &Import| match import.named[0].as_str() {
        "std" | "core" | "alloc" => 0,
        "crate" => 2,
        _ if import.defined != Place::Elsewhere => 2,
        _ => 1,
    };
    let mut modules = BTreeMap::<(&str, &[String]), Vec<&Import>>::new();
    for import in imports.iter().filter(|import| matches!(import.form, Form::Import | Form::Glob)) {
        modules.entry((&import.file, &import.module)).or_default().push(import);
    }
    let mut found = Vec::new();
    for ((file, _), imports) in modules {
        let lines: Vec<&str> = sources.get(file).map_or("", String::as_str).lines().collect();
        for pair in imports.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            let between = lines.get(before.line..after.line.saturating_sub(1)).unwrap_or_default();
            // There is code between the two `use`, which therefore belong to different blocks.
            if between.iter().any(|line| line.ends_with(['{', '}'])) && !between.iter().all(|line| line.ends_with(','))
            {
                continue;
            }
            if group(after) < group(before) {
                found.push(format!("{file}:{} stands below a group that it belongs above", after.line));
            } else if group(after) != group(before) && !between.iter().any(|line| line.trim().is_empty()) {
                found.push(format!("{file}:{} begins a group without a blank line before it", after.line));
            }
        }
    }
    found
}
