//! A file, folder or module is named after what it holds. These names hold anything.

use super::{Finding, source::Source};
use syn::visit::Visit;

const EMPTY_NAMES: [&str; 8] =
    ["utils", "util", "helpers", "helper", "managers", "manager", "common", "misc"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for part in source.path.split('/') {
        let stem = part.split('.').next().unwrap_or(part);
        if EMPTY_NAMES.contains(&stem) {
            findings.push(complaint(source, 1, stem));
        }
    }
    if let Some(rust) = &source.rust {
        let mut modules = Modules(Vec::new());
        modules.visit_file(&rust.tree);
        findings.extend(modules.0.into_iter().map(|(name, line)| complaint(source, line, &name)));
    }
    findings
}

fn complaint(source: &Source, line: usize, name: &str) -> Finding {
    Finding::new(source, line, format!("'{name}' says nothing of what is inside: name it after its idea"))
}

/// Modules with an empty name, and their lines.
struct Modules(Vec<(String, usize)>);

impl<'ast> Visit<'ast> for Modules {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        if EMPTY_NAMES.contains(&name.as_str()) {
            self.0.push((name, item.ident.span().start().line));
        }
        syn::visit::visit_item_mod(self, item);
    }
}
