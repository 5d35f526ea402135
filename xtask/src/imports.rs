//! The imports of a target: each path, followed through `use` and `pub use` to the file that defines the named item.

use crate::modules::{Form, Named, Target};

/// A path in the code of a module, and the place of its definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The file with the path.
    pub file: String,
    /// The line of the path, from 1.
    pub line: usize,
    /// The module with the path, from the root of its target.
    pub module: Vec<String>,
    /// The path as written, with `crate` in place of `self` and `super`.
    pub named: Vec<String>,
    /// The place of the definition.
    pub defined: Place,
    /// The form of the path.
    pub form: Form,
    /// Whether the module's code with the path is compiled for tests alone.
    pub test: bool,
}

/// The place of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a module of the same target.
    Here {
        /// The file.
        file: String,
        /// The module, from the root of the target.
        module: Vec<String>,
    },
    /// In another crate, or within a function.
    Elsewhere,
}

/// The greatest number of `use` between a name and its definition. More are a circle of re-exports.
const MAX_STEPS: usize = 16;

/// All imports of a target.
pub fn imports(target: &Target) -> Vec<Import> {
    target.named.iter().map(|named| import(target, named)).collect()
}

fn import(target: &Target, named: &Named) -> Import {
    let module = &target.modules[named.module];
    let defined = match resolve(target, named.module, &named.segments, 0) {
        Some(Found::Here(found)) => {
            let found = &target.modules[found];
            Place::Here { file: found.file.clone(), module: found.path.clone() }
        }
        Some(Found::Elsewhere) | None => Place::Elsewhere,
    };
    let absolute = start(target, named.module, &named.segments)
        .map(|(at, rest)| [&["crate".to_owned()], &target.modules[at].path[..], rest].concat());
    Import {
        file: module.file.clone(),
        line: named.line,
        module: module.path.clone(),
        named: absolute.unwrap_or_else(|| named.segments.clone()),
        defined,
        form: named.form,
        test: named.test,
    }
}

enum Found {
    /// In this module of the target.
    Here(usize),
    /// In another crate, by way of a `use`.
    Elsewhere,
}

/// The module in which a path begins and the rest of the path, if it begins with a keyword.
fn start<'a>(target: &Target, module: usize, segments: &'a [String]) -> Option<(usize, &'a [String])> {
    let (mut at, mut rest) = match segments.first()?.as_str() {
        "crate" => (0, &segments[1..]),
        "self" => (module, &segments[1..]),
        "super" => (target.modules[module].parent?, &segments[1..]),
        _ => return None,
    };
    while rest.first().is_some_and(|segment| segment == "super") {
        (at, rest) = (target.modules[at].parent?, &rest[1..]);
    }
    Some((at, rest))
}

/// The definition of `segments`, as named in `module`.
fn resolve(target: &Target, module: usize, segments: &[String], steps: usize) -> Option<Found> {
    let (at, rest) = start(target, module, segments).unwrap_or((module, segments));
    lookup(target, at, rest, steps).or_else(|| {
        // Items that a macro generates are unknown: the path counts as one to the deepest module that it names.
        let deepest = deepest(target, at, rest);
        (deepest != module).then_some(Found::Here(deepest))
    })
}

fn deepest(target: &Target, module: usize, segments: &[String]) -> usize {
    let child = segments.first().and_then(|segment| target.modules[module].children.get(segment));
    child.map_or(module, |child| deepest(target, *child, &segments[1..]))
}

fn lookup(target: &Target, at: usize, segments: &[String], steps: usize) -> Option<Found> {
    let module = &target.modules[at];
    let Some(name) = segments.first() else { return Some(Found::Here(at)) };
    if steps > MAX_STEPS {
        return None;
    }
    if let Some(child) = module.children.get(name)
        && let Some(found) = lookup(target, *child, &segments[1..], steps + 1)
    {
        return Some(found);
    }
    if module.items.contains(name) {
        return Some(Found::Here(at));
    }
    if let Some((_, path)) = module.aliases.iter().find(|(alias, path)| alias == name && path.first() != Some(name)) {
        let whole = [path, &segments[1..]].concat();
        return resolve(target, at, &whole, steps + 1).or(Some(Found::Elsewhere));
    }
    module.globs.iter().find_map(|path| match resolve(target, at, path, steps + 1)? {
        Found::Here(through) if through != at => lookup(target, through, segments, steps + 1),
        _ => None,
    })
}
