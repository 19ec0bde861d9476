//! One file as the rules see it: text, tokens, syntax tree, and which lines are tests.

use super::Finding;
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

/// A file below the root.
pub(super) struct Source {
    /// Relative to the root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
    /// Rust files only.
    pub(super) rust: Option<Rust>,
}

/// What only Rust files have.
pub(super) struct Rust {
    pub(super) tree: syn::File,
    /// Every token with its line, groups opened: `(`, `)`, `{`, `}`, `[`, `]` are tokens of their own.
    pub(super) tokens: Vec<(String, usize)>,
    /// First and last line of each item under `#[cfg(test)]`.
    test_items: Vec<(usize, usize)>,
}

impl Source {
    pub(super) fn new(path: &str, text: String) -> Result<Self, Finding> {
        let mut source = Self { path: path.to_string(), text, rust: None };
        if !path.ends_with(".rs") {
            return Ok(source);
        }
        let broken = |error: &dyn std::fmt::Display, line| Finding {
            file: path.to_string(),
            line,
            message: format!("is not Rust: {error}"),
        };
        let tree =
            syn::parse_file(&source.text).map_err(|error| broken(&error, error.span().start().line))?;
        let stream: TokenStream = source
            .text
            .parse()
            .map_err(|error: proc_macro2::LexError| broken(&error, error.span().start().line))?;
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        let mut finder = TestItems(Vec::new());
        finder.visit_file(&tree);
        source.rust = Some(Rust { tree, tokens, test_items: finder.0 });
        Ok(source)
    }

    /// The line belongs to tests, an example or a benchmark, not to what ships.
    pub(super) fn is_test(&self, line: usize) -> bool {
        let beside = ["/tests/", "/examples/", "/benches/"].iter().any(|folder| self.path.contains(folder));
        let named = self.path.ends_with("/tests.rs") || self.path.ends_with("/build.rs");
        let inside =
            self.rust.iter().flat_map(|rust| &rust.test_items).any(|&(a, b)| (a..=b).contains(&line));
        beside || named || inside
    }
}

fn flatten(stream: TokenStream, into: &mut Vec<(String, usize)>) {
    for token in stream {
        let line = token.span().start().line;
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    proc_macro2::Delimiter::Parenthesis => ("(", ")"),
                    proc_macro2::Delimiter::Brace => ("{", "}"),
                    proc_macro2::Delimiter::Bracket => ("[", "]"),
                    proc_macro2::Delimiter::None => ("", ""),
                };
                into.push((open.to_string(), line));
                flatten(group.stream(), into);
                into.push((close.to_string(), group.span_close().start().line));
            }
            // The text of a literal is no code: `"unsafe"` is a word.
            TokenTree::Literal(_) => into.push(("literal".to_string(), line)),
            TokenTree::Ident(ident) => into.push((ident.to_string(), line)),
            TokenTree::Punct(punct) => into.push((punct.as_char().to_string(), line)),
        }
    }
}

/// Finds modules and functions under `#[cfg(test)]` or `#[test]`.
struct TestItems(Vec<(usize, usize)>);

impl TestItems {
    fn consider(&mut self, attributes: &[syn::Attribute], item: &dyn syn::spanned::Spanned) {
        let test = attributes.iter().any(|attribute| {
            attribute.path().is_ident("test")
                || (attribute.path().is_ident("cfg")
                    && attribute.parse_args::<syn::Ident>().is_ok_and(|ident| ident == "test"))
        });
        if test {
            let span = item.span();
            self.0.push((span.start().line, span.end().line));
        }
    }
}

impl<'ast> Visit<'ast> for TestItems {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.consider(&item.attrs, item);
        syn::visit::visit_item_mod(self, item);
    }
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.consider(&item.attrs, item);
        syn::visit::visit_item_fn(self, item);
    }
    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.consider(&item.attrs, item);
        syn::visit::visit_item_impl(self, item);
    }
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.consider(&item.attrs, item);
    }
}
