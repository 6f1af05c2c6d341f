//! The names of variants that a rule writes out as its answers.
//!
//! **Invariant:** only literals that certainly are answers, so that a warning about them is never wrong. Not here: computed names.

use crate::document::{Entry, Node, NodeKind};

/// `$ref`s in `$ref`s that are followed.
const REFERENCES_MAX: usize = 8;

/// Names with the place where each stands.
pub(super) fn of(rule: &Node, evaluators: &[Entry]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    collect(rule, evaluators, 0, &mut found);
    found
}

fn collect(node: &Node, evaluators: &[Entry], references: usize, found: &mut Vec<(String, usize)>) {
    let entries = match &node.kind {
        NodeKind::Text(name) => return found.push((name.to_string(), node.at)),
        NodeKind::Bool(answer) => return found.push((answer.to_string(), node.at)),
        NodeKind::Object(entries) => entries,
        NodeKind::Null | NodeKind::Number(_) | NodeKind::List(_) => return,
    };
    let [entry] = entries.as_slice() else { return };
    let arguments = entry.value.items().unwrap_or(std::slice::from_ref(&entry.value));
    match &*entry.key {
        "if" | "?:" => {
            let (pairs, last) = arguments.as_chunks::<2>();
            for result in pairs.iter().map(|[_, result]| result).chain(last) {
                collect(result, evaluators, references, found);
            }
        }
        "fractional" => {
            for variant in arguments.iter().filter_map(|bucket| bucket.items()?.first()) {
                collect(variant, evaluators, references, found);
            }
        }
        "$ref" if references < REFERENCES_MAX => {
            let evaluator = entry.value.text().and_then(|name| evaluators.iter().find(|entry| &*entry.key == name));
            if let Some(evaluator) = evaluator {
                collect(&evaluator.value, evaluators, references + 1, found);
            }
        }
        _ => {}
    }
}
