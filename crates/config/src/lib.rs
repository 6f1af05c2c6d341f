//! The file `changeover.yaml`: from text to [`model::Desired`], or to messages that point at the mistake.
//!
//! **Invariant**: what `parse` returns is valid; nobody checks it again. Text never panics it.
//! Not here: reading files, the clock, the network. The YAML library is named in `node.rs` only.

mod acme;
mod api;
mod canary;
mod command;
mod file;
mod flags;
mod forwarders;
mod node;
mod problems;
mod schema;
mod service;
mod strategy;
mod table;
mod tcp;
mod tls;
mod values;

use std::path::Path;

pub use problems::{Diagnostic, Rejected};
pub use schema::schema;

/// Reads the file's `text`. `path` is shown in messages, and relative folders start at its parent.
pub fn parse(text: &str, path: &Path) -> Result<model::Desired, Rejected> {
    let mut problems = problems::Problems::default();
    let desired = match node::read(text) {
        Ok(root) => file::desired(&root, &folder_of(path), &mut problems),
        Err((at, message)) => {
            let hint = message.contains("flow mapping").then(|| "inside `{ }`, put quotes around a value with `{`, `}` or `,`".to_owned());
            problems.add(&at, message, hint);
            None
        }
    };
    problems.into_result(desired, text, path)
}

/// What `changeover init` writes; works as it is.
pub fn template() -> &'static str {
    include_str!("template.yaml")
}

fn folder_of(path: &Path) -> std::path::PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.parent().unwrap_or(&absolute).to_owned()
}

#[cfg(test)]
mod tests;
