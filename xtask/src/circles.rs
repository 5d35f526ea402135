//! Files that import each other in a circle, directly or through others.

use std::collections::{BTreeMap, BTreeSet};

use crate::imports::{Import, Place};
use crate::modules::Form;

/// The files that each file imports.
pub type Graph = BTreeMap<String, BTreeSet<String>>;

/// The files that the code of each file imports, without its re-exports and the imports of its tests.
pub fn graph(imports: &[Import]) -> Graph {
    let mut graph = Graph::new();
    for import in imports.iter().filter(|import| !import.test && import.form != Form::Reexport) {
        if let Place::Here { file, .. } = &import.defined
            && *file != import.file
        {
            graph.entry(import.file.clone()).or_default().insert(file.clone());
        }
    }
    graph
}

/// The circles: each is a set of files that all reach each other.
pub fn circles(graph: &Graph) -> Vec<BTreeSet<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> = graph.keys().map(|file| (file, reachable(graph, file))).collect();
    let mut found = BTreeSet::new();
    for (file, reached) in reach.iter().filter(|(file, reached)| reached.contains(**file)) {
        let back = |other: &&&String| reach.get(**other).is_some_and(|others| others.contains(*file));
        found.insert(reached.iter().filter(back).map(|file| (*file).clone()).collect::<BTreeSet<_>>());
    }
    found.into_iter().collect()
}

fn reachable<'a>(graph: &'a Graph, from: &str) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&String> = graph.get(from).into_iter().flatten().collect();
    while let Some(file) = open.pop() {
        if reached.insert(file) {
            open.extend(graph.get(file).into_iter().flatten());
        }
    }
    reached
}
