//! Paths, followed through `use` and `pub use` to the file that defines what they name.

use crate::modules::{Form, Target};

/// A path that one module names, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The file that names it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The module that names it, from the root of its target.
    pub module: Vec<String>,
    /// The path as named, from the root of the target; of another crate, with that crate's name first.
    pub named: Vec<String>,
    /// Where it is defined.
    pub defined: Place,
    /// How it is written.
    pub form: Form,
    /// Whether the code is compiled for tests alone.
    pub test: bool,
}

/// Where something is defined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a module of the same target.
    Here {
        /// The file.
        file: String,
        /// The module, from the root of the target.
        module: Vec<String>,
    },
    /// In another crate, or it is a name that is no path (a type's, as in `Vec::new`).
    Elsewhere,
}

/// How many `use` may lie between a name and its definition. More is a circle of re-exports.
const MAX_STEPS: usize = 16;

/// All imports of a target, in the order of its files.
pub fn imports(target: &Target) -> Vec<Import> {
    let follow = |named: &crate::modules::Named| {
        let module = &target.modules[named.module];
        let defined = resolve(target, named.module, &named.segments, 0)
            .map(|found| &target.modules[found])
            .map_or(Place::Elsewhere, |m| Place::Here { file: m.file.clone(), module: m.path.clone() });
        Import {
            file: module.file.clone(),
            line: named.line,
            module: module.path.clone(),
            named: absolute(target, named.module, &named.segments),
            defined,
            form: named.form,
            test: named.test,
        }
    };
    target.named.iter().map(follow).collect()
}

/// `segments` without `crate`, `self` and `super`.
fn absolute(target: &Target, module: usize, segments: &[String]) -> Vec<String> {
    let Some((start, rest)) = start(target, module, segments) else { return segments.to_vec() };
    [&target.modules[start].path, rest].concat()
}

/// The module that a path begins in, if it begins with a keyword, and what follows that.
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

/// The module that defines what `segments` name in `module`.
fn resolve(target: &Target, module: usize, segments: &[String], steps: usize) -> Option<usize> {
    let (at, rest) = start(target, module, segments).unwrap_or((module, segments));
    // A macro's items are in no list: they count to the deepest module that the path names.
    let fallback = || Some(deepest(target, at, rest)).filter(|found| *found != module);
    lookup(target, at, rest, steps).or_else(fallback)
}

fn deepest(target: &Target, module: usize, segments: &[String]) -> usize {
    let child = segments.first().and_then(|segment| target.modules[module].children.get(segment));
    child.map_or(module, |child| deepest(target, *child, &segments[1..]))
}

fn lookup(target: &Target, at: usize, segments: &[String], steps: usize) -> Option<usize> {
    let module = &target.modules[at];
    let Some(name) = segments.first() else { return Some(at) };
    if steps > MAX_STEPS {
        return None;
    }
    if let Some(child) = module.children.get(name) {
        if let Some(found) = lookup(target, *child, &segments[1..], steps + 1) {
            return Some(found);
        }
    }
    if module.items.contains(name) {
        return Some(at);
    }
    for (_, path) in module.aliases.iter().filter(|(alias, path)| alias == name && path.first() != Some(name)) {
        let whole = [path, &segments[1..]].concat();
        if let Some(found) = resolve(target, at, &whole, steps + 1) {
            return Some(found);
        }
    }
    module.globs.iter().find_map(|path| {
        let through = resolve(target, at, path, steps + 1)?;
        if through == at { None } else { lookup(target, through, segments, steps + 1) }
    })
}
