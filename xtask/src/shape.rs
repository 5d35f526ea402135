//! The shape of the code, which `cargo xtask shape` prints.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use crate::circles::{Graph, circles, graph};
use crate::figures::{Figures, figures, touched_fields};
use crate::imports::imports;
use crate::modules::targets;
use crate::sources::Sources;

/// The greatest number of lines of a function that is not listed.
const LONG_FUNCTION: usize = 60;
/// The greatest number of words of a test's name that is not listed.
const LONG_NAME: usize = 8;
/// Structures whose fields should be used in their own file alone.
const OWNERS: [(&str, &str); 2] = [("host/src/conn/", "Shard"), ("host/src/plugin/", "Worker")];
const AREAS: [&str; 6] = ["host", "wit", "sdk", "plugins", "tests", "xtask"];

/// The shape of a tree, as text.
///
/// # Errors
/// If a file is not Rust.
pub fn shape(sources: &Sources) -> Result<String, String> {
    let mut files = BTreeMap::new();
    for (path, text) in sources {
        files.insert(path.as_str(), figures(text).map_err(|e| format!("{path}: {e}"))?);
    }
    let mut circular = BTreeMap::new();
    for target in targets(sources)? {
        let graph = graph(&imports(&target));
        circular.extend(circles(&graph).into_iter().map(|circle| (arrows(&graph, &circle), circle)));
    }
    write(sources, &files, &circular).map_err(|e| e.to_string())
}

fn write(
    sources: &Sources,
    files: &BTreeMap<&str, Figures>,
    circular: &BTreeMap<String, BTreeSet<String>>,
) -> Result<String, fmt::Error> {
    let mut out = String::new();
    writeln!(
        out,
        "| area | files | lines | median | p90 | longest | functions | > {LONG_FUNCTION} lines | tests | words a test name | > {LONG_NAME} words | in circles |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|---|---|---|")?;
    let in_circles: BTreeSet<&str> = circular.values().flatten().map(String::as_str).collect();
    for area in AREAS.into_iter().chain([""]) {
        let inside = |path: &str| area.is_empty() || path.strip_prefix(area).is_some_and(|rest| rest.starts_with('/'));
        let part: BTreeMap<&str, &Figures> = files.iter().map(|(p, f)| (*p, f)).filter(|(p, _)| inside(p)).collect();
        let circular = in_circles.iter().filter(|path| inside(path)).count();
        row(&mut out, if area.is_empty() { "all" } else { area }, &part, circular)?;
    }
    list(&mut out, &format!("Functions over {LONG_FUNCTION} lines"), long_functions(files))?;
    list(&mut out, "Circles of files", circular.keys().cloned())?;
    for (folder, name) in OWNERS {
        let touched = touched_fields(sources, folder, name);
        let lines = touched.iter().map(|(field, files)| format!("{field}: {} files", files.len()));
        list(&mut out, &format!("Fields of `{name}` that other files touch"), lines)?;
    }
    list(&mut out, &format!("Test names over {LONG_NAME} words"), long_names(files))?;
    Ok(out)
}

/// The imports that form a circle, one file on each line.
fn arrows(graph: &Graph, circle: &BTreeSet<String>) -> String {
    let line = |file: &String| {
        let imported: Vec<&str> =
            graph.get(file).into_iter().flatten().filter(|f| circle.contains(*f)).map(String::as_str).collect();
        format!("{file} → {}", imported.join(", "))
    };
    circle.iter().map(line).collect::<Vec<_>>().join("\n  ")
}

fn row(out: &mut String, area: &str, files: &BTreeMap<&str, &Figures>, circular: usize) -> fmt::Result {
    let mut lines: Vec<(usize, &str)> = files.iter().map(|(path, figures)| (figures.lines, *path)).collect();
    lines.sort_unstable();
    let at =
        |part: usize| lines.get((lines.len() * part / 100).min(lines.len().saturating_sub(1))).map_or(0, |(n, _)| *n);
    let (longest, name) = lines.last().copied().unwrap_or_default();
    let functions: Vec<usize> =
        files.values().flat_map(|file| file.functions.iter().map(|(_, lines)| *lines)).collect();
    let names: Vec<usize> = files.values().flat_map(|file| file.tests.iter().map(|name| words(name))).collect();
    let total: usize = lines.iter().map(|(n, _)| n).sum();
    writeln!(
        out,
        "| {area} | {} | {total} | {} | {} | {longest} `{name}` | {} | {} | {} | {:.1}, longest {} | {} | {circular} |",
        lines.len(),
        at(50),
        at(90),
        functions.len(),
        functions.iter().filter(|lines| **lines > LONG_FUNCTION).count(),
        names.len(),
        names.iter().sum::<usize>() as f64 / names.len().max(1) as f64,
        names.iter().max().unwrap_or(&0),
        names.iter().filter(|words| **words > LONG_NAME).count(),
    )
}

fn list(out: &mut String, title: &str, lines: impl IntoIterator<Item = String>) -> fmt::Result {
    let lines: Vec<String> = lines.into_iter().collect();
    writeln!(out, "\n{title}: {}", lines.len())?;
    lines.iter().try_for_each(|line| writeln!(out, "- {line}"))
}

fn long_functions(files: &BTreeMap<&str, Figures>) -> Vec<String> {
    let all =
        files.iter().flat_map(|(path, file)| file.functions.iter().map(move |(name, lines)| (path, name, *lines)));
    all.filter(|(.., lines)| *lines > LONG_FUNCTION)
        .map(|(path, name, lines)| format!("{path} `{name}`: {lines}"))
        .collect()
}

fn long_names(files: &BTreeMap<&str, Figures>) -> Vec<String> {
    let all = files.iter().flat_map(|(path, file)| file.tests.iter().map(move |name| (path, name, words(name))));
    all.filter(|(.., words)| *words > LONG_NAME)
        .map(|(path, name, words)| format!("{path} `{name}`: {words}"))
        .collect()
}

fn words(name: &str) -> usize {
    name.split('_').filter(|word| !word.is_empty()).count()
}
