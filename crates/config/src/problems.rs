//! What is wrong with a file, collected, and shown the way rustc does.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::node::At;

/// More than this helps nobody.
const SHOWN_MAX: usize = 20;

/// One mistake and its place; line and column count from 1, columns are characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub line: usize,
    pub column: usize,
    pub message: String,
    pub hint: Option<String>,
    marked: Range<usize>,
}

/// The file cannot be used. Displays every mistake with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub diagnostics: Vec<Diagnostic>,
    path: String,
    text: String,
}

#[derive(Default)]
pub(crate) struct Problems(Vec<(At, String, Option<String>)>);

impl Problems {
    pub(crate) fn add(&mut self, at: &At, message: impl Into<String>, hint: Option<String>) {
        self.0.push((at.clone(), message.into(), hint));
    }

    pub(crate) fn into_result<T>(mut self, value: Option<T>, text: &str, path: &Path) -> Result<T, Rejected> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => {
                self.0.sort_by_key(|(at, ..)| at.0.start);
                let diagnostics = self.0.into_iter().map(|(at, m, h)| diagnostic(&at, m, h, text)).collect();
                Err(Rejected { diagnostics, path: path.display().to_string(), text: text.to_owned() })
            }
        }
    }
}

fn diagnostic(at: &At, message: String, hint: Option<String>, text: &str) -> Diagnostic {
    let start = text.floor_char_boundary(at.0.start);
    let line_end = text[start..].find(['\n', '\r']).map_or(text.len(), |length| start + length);
    let next = text[start..line_end].chars().next().map_or(start, |c| start + c.len_utf8());
    let end = text.floor_char_boundary(at.0.end.min(line_end)).max(next);
    let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    Diagnostic {
        line: text[..start].matches('\n').count() + 1,
        column: text[line_start..start].chars().count() + 1,
        message,
        hint,
        marked: start..end,
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().take(SHOWN_MAX).enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            f.write_str(&self.render(diagnostic))?;
        }
        match self.diagnostics.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\n\nerror: and {more} more mistakes"),
        }
    }
}

impl std::error::Error for Rejected {}

impl Rejected {
    fn render(&self, diagnostic: &Diagnostic) -> String {
        let marked = AnnotationKind::Primary.span(diagnostic.marked.clone());
        let marked = match &diagnostic.hint {
            Some(hint) => marked.label(hint),
            None => marked,
        };
        let snippet = Snippet::source(&self.text).path(&self.path).annotation(marked);
        Renderer::plain().render(&[Level::ERROR.primary_title(&diagnostic.message).element(snippet)])
    }
}
