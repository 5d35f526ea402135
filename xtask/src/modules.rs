//! The modules of a target (a library, a binary, a test) and the paths that their code names.

use std::collections::{BTreeSet, HashMap, HashSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::sources::{Sources, folder_of, normal};

/// A module: a file, or a `mod` with a body.
#[derive(Debug)]
pub struct Module {
    /// The names of the module from the root of the target; empty for the root.
    pub path: Vec<String>,
    /// The file that contains the module.
    pub file: String,
    pub(crate) parent: Option<usize>,
    pub(crate) children: HashMap<String, usize>,
    pub(crate) items: HashSet<String>,
    /// The names that `use` brings in, each with its path.
    pub(crate) aliases: Vec<(String, Vec<String>)>,
    /// The paths of `use …::*`.
    pub(crate) globs: Vec<Vec<String>>,
}

/// The form of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `use path;`
    Import,
    /// `pub use path;`, also with a restricted visibility.
    Reexport,
    /// `use path::*;`
    Glob,
    /// In an expression, a type, a pattern or a macro's arguments.
    Path,
}

/// A path in the code.
#[derive(Debug)]
pub struct Named {
    /// The module that contains the path, as an index into [`Target::modules`].
    pub module: usize,
    /// The line of the path, from 1.
    pub line: usize,
    /// The segments as written: `super`, `super`, `state`, `Outbox`.
    pub segments: Vec<String>,
    /// The form of the path.
    pub form: Form,
    /// Whether the code is compiled for tests alone.
    pub test: bool,
}

/// A library, a binary, a test or a build script.
#[derive(Debug)]
pub struct Target {
    /// The file at the root, which the compiler is given.
    pub root: String,
    /// The modules of the target; the first is the root.
    pub modules: Vec<Module>,
    /// The paths in the code of all modules.
    pub named: Vec<Named>,
}

/// The targets of a tree: each file that no other file declares as its module is the root of a target.
///
/// # Errors
/// If a file is not Rust.
pub fn targets(sources: &Sources) -> Result<Vec<Target>, String> {
    let mut files = HashMap::new();
    for (path, text) in sources {
        let file = syn::parse_file(text).map_err(|e| format!("{path}:{}: {e}", e.span().start().line))?;
        files.insert(path.clone(), file);
    }
    let mut claimed = BTreeSet::new();
    for (path, file) in &files {
        claim(path, &own_folder(path), &file.items, sources, &mut claimed);
    }
    let roots = sources.keys().filter(|path| !claimed.contains(*path));
    Ok(roots.map(|root| load(root, &files, sources)).collect())
}

fn load(root: &str, files: &HashMap<String, syn::File>, sources: &Sources) -> Target {
    let mut loader =
        Loader { files, sources, modules: Vec::new(), named: Vec::new(), test: false, at: 0, folder: String::new() };
    loader.file(root, None, String::new(), folder_of(root).to_owned());
    Target { root: root.to_owned(), modules: loader.modules, named: loader.named }
}

/// The folder of the modules that a file declares.
fn own_folder(path: &str) -> String {
    let (folder, name) = (folder_of(path), &path[folder_of(path).len()..]);
    let is_root = matches!(name, "lib.rs" | "main.rs" | "mod.rs" | "build.rs")
        || (folder.ends_with("tests/") && !folder.contains("src/"));
    if is_root { folder.to_owned() } else { format!("{}/", path.trim_end_matches(".rs")) }
}

/// Adds the files that `items` declare as modules to `into`.
fn claim(path: &str, folder: &str, items: &[syn::Item], sources: &Sources, into: &mut BTreeSet<String>) {
    for item in items {
        let syn::Item::Mod(module) = item else { continue };
        if let Some((_, items)) = &module.content {
            claim(path, &format!("{folder}{}/", module.ident), items, sources, into);
        } else {
            into.extend(file_of(path, folder, module, sources));
        }
    }
}

/// The file of `mod name;`, if there is one.
fn file_of(path: &str, folder: &str, module: &syn::ItemMod, sources: &Sources) -> Option<String> {
    let given = module.attrs.iter().find_map(|attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    });
    if let Some(given) = given {
        return Some(normal(&format!("{}{given}", folder_of(path))));
    }
    let name = &module.ident;
    [format!("{folder}{name}.rs"), format!("{folder}{name}/mod.rs")].into_iter().find(|file| sources.contains_key(file))
}

struct Loader<'a> {
    files: &'a HashMap<String, syn::File>,
    sources: &'a Sources,
    modules: Vec<Module>,
    named: Vec<Named>,
    test: bool,
    /// The module that is being visited.
    at: usize,
    /// The folder of its `mod name;`.
    folder: String,
}

impl Loader<'_> {
    fn module(&mut self, file: &str, parent: Option<usize>, name: String) -> usize {
        let mut path = parent.map_or_else(Vec::new, |parent| self.modules[parent].path.clone());
        let index = self.modules.len();
        if let Some(parent) = parent {
            path.push(name.clone());
            self.modules[parent].children.insert(name, index);
        }
        self.modules.push(Module {
            path,
            file: file.to_owned(),
            parent,
            children: HashMap::new(),
            items: HashSet::new(),
            aliases: Vec::new(),
            globs: Vec::new(),
        });
        index
    }

    fn file(&mut self, path: &str, parent: Option<usize>, name: String, folder: String) {
        let Some(file) = self.files.get(path) else { return };
        let before = (self.at, std::mem::replace(&mut self.folder, folder));
        self.at = self.module(path, parent, name);
        self.visit_file(file);
        (self.at, self.folder) = before;
    }

    fn name(&mut self, line: usize, segments: Vec<String>, form: Form) {
        self.named.push(Named { module: self.at, line, segments, form, test: self.test });
    }

    fn define(&mut self, name: &syn::Ident) {
        self.modules[self.at].items.insert(name.to_string());
    }

    fn use_tree(&mut self, tree: &syn::UseTree, prefix: &[String], form: Form) {
        let with = |ident: &syn::Ident| [prefix, &[ident.to_string()]].concat();
        let line = |ident: &syn::Ident| ident.span().start().line;
        match tree {
            syn::UseTree::Path(path) => self.use_tree(&path.tree, &with(&path.ident), form),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.use_tree(tree, prefix, form)),
            syn::UseTree::Glob(glob) => {
                self.modules[self.at].globs.push(prefix.to_vec());
                self.name(
                    glob.star_token.span.start().line,
                    prefix.to_vec(),
                    if form == Form::Reexport { form } else { Form::Glob },
                );
            }
            syn::UseTree::Name(name) if name.ident == "self" => {
                self.alias(line(&name.ident), prefix.to_vec(), None, form)
            }
            syn::UseTree::Name(name) => self.alias(line(&name.ident), with(&name.ident), None, form),
            syn::UseTree::Rename(rename) if rename.ident == "self" => {
                self.alias(line(&rename.ident), prefix.to_vec(), Some(&rename.rename), form);
            }
            syn::UseTree::Rename(rename) => {
                self.alias(line(&rename.ident), with(&rename.ident), Some(&rename.rename), form)
            }
        }
    }

    fn alias(&mut self, line: usize, segments: Vec<String>, rename: Option<&syn::Ident>, form: Form) {
        let name = rename.map(ToString::to_string).or_else(|| segments.last().cloned());
        self.modules[self.at].aliases.extend(name.map(|name| (name, segments.clone())));
        self.name(line, segments, form);
    }

    /// Records paths in a macro's arguments, which are tokens without syntax: names with `::` between them.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut segments: Vec<String> = Vec::new();
        let (mut line, mut colons) = (0, 0);
        for token in tokens {
            match &token {
                TokenTree::Punct(punct) if punct.as_char() == ':' && !segments.is_empty() => {
                    colons += 1;
                    continue;
                }
                TokenTree::Ident(ident) if colons == 2 => segments.push(ident.to_string()),
                _ => {
                    self.token_path(line, &mut segments);
                    if let TokenTree::Ident(ident) = &token {
                        line = ident.span().start().line;
                        segments.push(ident.to_string());
                    }
                }
            }
            colons = 0;
            if let TokenTree::Group(group) = token {
                self.tokens(group.stream());
            }
        }
        self.token_path(line, &mut segments);
    }

    fn token_path(&mut self, line: usize, segments: &mut Vec<String>) {
        let segments = std::mem::take(segments);
        if segments.len() > 1 {
            self.name(line, segments, Form::Path);
        }
    }

    /// Runs `visit`, as on code for tests if `attributes` say so.
    fn within(&mut self, attributes: &[syn::Attribute], visit: impl FnOnce(&mut Self)) {
        let before = self.test;
        self.test |= attributes.iter().any(is_for_tests);
        visit(self);
        self.test = before;
    }
}

/// Whether an attribute is `#[test]`, `#[tokio::test]` or `#[cfg(test)]`.
fn is_for_tests(attribute: &syn::Attribute) -> bool {
    is_test(attribute)
        || (attribute.path().is_ident("cfg")
            && matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string() == "test"))
}

/// Whether an attribute is `#[test]` or `#[tokio::test]`.
pub(crate) fn is_test(attribute: &syn::Attribute) -> bool {
    attribute.path().segments.last().is_some_and(|segment| segment.ident == "test")
}

impl<'ast> Visit<'ast> for Loader<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let form = if matches!(item.vis, syn::Visibility::Inherited) { Form::Import } else { Form::Reexport };
        self.within(&item.attrs, |this| this.use_tree(&item.tree, &[], form));
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.name(item.ident.span().start().line, vec![item.ident.to_string()], Form::Import);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let (at, file) = (self.at, self.modules[self.at].file.clone());
        let name = item.ident.to_string();
        self.within(&item.attrs, |this| {
            if let Some((_, items)) = &item.content {
                this.at = this.module(&file, Some(at), name.clone());
                let folder = format!("{}{name}/", this.folder);
                let folder = std::mem::replace(&mut this.folder, folder);
                items.iter().for_each(|item| this.visit_item(item));
                (this.at, this.folder) = (at, folder);
            } else if let Some(path) = file_of(&file, &this.folder, item, this.sources) {
                let folder = own_folder(&path);
                this.file(&path, Some(at), name, folder);
            }
        });
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.define(&item.sig.ident);
        self.within(&item.attrs, |this| visit::visit_item_fn(this, item));
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.within(&item.attrs, |this| visit::visit_item_impl(this, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.within(&item.attrs, |this| visit::visit_impl_item_fn(this, item));
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.define(&item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.define(&item.ident);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_union(&mut self, item: &'ast syn::ItemUnion) {
        self.define(&item.ident);
        visit::visit_item_union(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.define(&item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.define(&item.ident);
        visit::visit_item_type(self, item);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.define(&item.ident);
        visit::visit_item_const(self, item);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.define(&item.ident);
        visit::visit_item_static(self, item);
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        item.ident.iter().for_each(|name| self.define(name));
        visit::visit_item_macro(self, item);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        visit::visit_macro(self, item);
        self.tokens(item.tokens.clone());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.name(path.segments[0].ident.span().start().line, segments, Form::Path);
        }
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}
