//! Files, functions and lines that fit on screens; family tables that fit on one.

use super::{Finding, source::Source};
use syn::spanned::Spanned;
use syn::visit::Visit;

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;
const FAMILY_LINES: usize = 120;
const COLUMNS: usize = 120;

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = source.text.lines().count();
    let code = source.rust.is_some() || source.path.ends_with(".py");
    if code && lines > FILE_LINES {
        findings.push(Finding::new(source, 1, format!("{lines} lines, at most {FILE_LINES}: split by idea")));
    }
    let family = source.path.starts_with("crates/models/src/families/") && !source.path.ends_with("/mod.rs");
    if family && lines > FAMILY_LINES {
        let message =
            format!("{lines} lines, a family is a table of at most {FAMILY_LINES}: code goes elsewhere");
        findings.push(Finding::new(source, 1, message));
    }
    if code || source.path.ends_with(".yaml") {
        findings.extend(wide_lines(source));
    }
    if let Some(rust) = &source.rust {
        let mut functions = Functions(Vec::new());
        functions.visit_file(&rust.tree);
        for (name, line, length) in functions.0 {
            let message = format!("function `{name}` has {length} lines, at most {FUNCTION_LINES}: split it");
            findings.push(Finding::new(source, line, message));
        }
    }
    findings
}

/// A line with a quoted text may be as long as the text: messages and test data are found by searching for them.
fn wide_lines(source: &Source) -> impl Iterator<Item = Finding> {
    source.text.lines().enumerate().filter_map(|(index, line)| {
        let columns = line.chars().count();
        let quotes = line.contains(['"', '\'']) && !line.trim_start().starts_with("//");
        (columns > COLUMNS && !quotes)
            .then(|| Finding::new(source, index + 1, format!("{columns} columns, at most {COLUMNS}")))
    })
}

/// Functions that are too long: name, line, length from the signature to the closing brace.
struct Functions(Vec<(String, usize, usize)>);

impl Functions {
    fn measure(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let first = signature.span().start().line;
        let length = block.span().end().line - first + 1;
        if length > FUNCTION_LINES {
            self.0.push((signature.ident.to_string(), first, length));
        }
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.measure(&item.sig, &item.block);
        syn::visit::visit_item_fn(self, item);
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.measure(&item.sig, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }
    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.measure(&item.sig, block);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }
}
