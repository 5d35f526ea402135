//! The figures of a file: lines, functions, tests, and the use of other files' fields.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::modules::is_test;
use crate::sources::Sources;

/// The figures of one file.
#[derive(Debug, Default)]
pub struct Figures {
    /// The number of lines, comments and blank lines included.
    pub lines: usize,
    /// The functions and methods, each with its number of lines from the signature to the closing brace.
    pub functions: Vec<(String, usize)>,
    /// The names of the tests.
    pub tests: Vec<String>,
}

/// Counts one file.
///
/// # Errors
/// If the text is not Rust.
pub fn figures(text: &str) -> Result<Figures, syn::Error> {
    let file = syn::parse_file(text)?;
    let mut figures = Figures { lines: text.lines().count(), ..Figures::default() };
    figures.visit_file(&file);
    Ok(figures)
}

impl Figures {
    fn function(
        &mut self,
        attributes: &[syn::Attribute],
        name: &syn::Ident,
        signature: &syn::Signature,
        end: &syn::Block,
    ) {
        let lines = end.brace_token.span.close().end().line + 1 - signature.fn_token.span.start().line;
        self.functions.push((name.to_string(), lines));
        if attributes.iter().any(is_test) {
            self.tests.push(name.to_string());
        }
    }
}

impl<'ast> Visit<'ast> for Figures {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.attrs, &item.sig.ident, &item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.attrs, &item.sig.ident, &item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        item.default.iter().for_each(|block| self.function(&item.attrs, &item.sig.ident, &item.sig, block));
        visit::visit_trait_item_fn(self, item);
    }
}

/// The fields of the structure `name`, defined in a file below `folder`, that other files of the folder use: field to
/// files.
pub fn touched_fields(sources: &Sources, folder: &str, name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let parsed: Vec<(&String, syn::File)> = sources
        .iter()
        .filter(|(path, _)| path.starts_with(folder))
        .filter_map(|(path, text)| Some((path, syn::parse_file(text).ok()?)))
        .collect();
    let Some((home, fields)) = parsed.iter().find_map(|(path, file)| Some((*path, fields_of(file, name)?))) else {
        return BTreeMap::new();
    };
    let mut touched = BTreeMap::<String, BTreeSet<String>>::new();
    for (path, file) in parsed.iter().filter(|(path, _)| *path != home) {
        let mut touches = Touches { name, fields: &fields, owners: HashSet::new(), found: BTreeSet::new() };
        touches.visit_file(file);
        for field in touches.found {
            touched.entry(field).or_default().insert((*path).clone());
        }
    }
    touched
}

/// The named fields of the structure `name`, if the file defines it.
fn fields_of(file: &syn::File, name: &str) -> Option<HashSet<String>> {
    file.items.iter().find_map(|item| match item {
        syn::Item::Struct(item) if item.ident == name => {
            Some(item.fields.iter().filter_map(|field| Some(field.ident.as_ref()?.to_string())).collect())
        }
        _ => None,
    })
}

/// Finds `owner.field`, where the owner is `self` in an implementation of the structure, or a parameter of its type.
struct Touches<'a> {
    name: &'a str,
    fields: &'a HashSet<String>,
    owners: HashSet<String>,
    found: BTreeSet<String>,
}

impl Touches<'_> {
    fn is_owner(&self, owner: &syn::Type) -> bool {
        match owner {
            syn::Type::Reference(reference) => self.is_owner(&reference.elem),
            syn::Type::Path(path) => path.path.segments.last().is_some_and(|segment| segment.ident == self.name),
            _ => false,
        }
    }

    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (at, window) in tokens.windows(3).enumerate() {
            let is_call = matches!(tokens.get(at + 3), Some(TokenTree::Group(_)));
            if let [TokenTree::Ident(owner), TokenTree::Punct(dot), TokenTree::Ident(field)] = window
                && dot.as_char() == '.'
                && !is_call
            {
                self.touch(&owner.to_string(), &field.to_string());
            }
        }
        for token in tokens {
            if let TokenTree::Group(group) = token {
                self.tokens(group.stream());
            }
        }
    }

    fn touch(&mut self, owner: &str, field: &str) {
        if self.owners.contains(owner) && self.fields.contains(field) {
            self.found.insert(field.to_owned());
        }
    }

    fn with(&mut self, owners: Vec<String>, visit: impl FnOnce(&mut Self)) {
        let before = self.owners.clone();
        self.owners.extend(owners);
        visit(self);
        self.owners = before;
    }

    fn parameters(&self, signature: &syn::Signature) -> Vec<String> {
        let owner = |input: &syn::FnArg| match input {
            syn::FnArg::Typed(typed) if self.is_owner(&typed.ty) => match &*typed.pat {
                syn::Pat::Ident(name) => Some(name.ident.to_string()),
                _ => None,
            },
            _ => None,
        };
        signature.inputs.iter().filter_map(owner).collect()
    }
}

impl<'ast> Visit<'ast> for Touches<'_> {
    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let owners = if self.is_owner(&item.self_ty) { vec!["self".to_owned()] } else { Vec::new() };
        self.with(owners, |this| visit::visit_item_impl(this, item));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.with(self.parameters(&item.sig), |this| visit::visit_item_fn(this, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.with(self.parameters(&item.sig), |this| visit::visit_impl_item_fn(this, item));
    }

    fn visit_expr_field(&mut self, item: &'ast syn::ExprField) {
        if let (syn::Expr::Path(owner), syn::Member::Named(field)) = (&*item.base, &item.member)
            && let Some(owner) = owner.path.get_ident()
        {
            self.touch(&owner.to_string(), &field.to_string());
        }
        visit::visit_expr_field(self, item);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.tokens(item.tokens.clone());
    }
}
