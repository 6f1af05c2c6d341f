//! Whether a file sees a constant of another file: by importing its name, or by qualifying it.
//!
//! Chosen for precision: an unqualified name counts only when an import of the file names it beside its module or class (or takes all of
//! them), when both files are one package (Go, Kotlin, Swift), or when the class is inherited. Re-exports are not followed.
//!
//! Not here: the same file (`uses`).

use std::path::Path;
use std::sync::LazyLock;

use regex::bytes::Regex;

use crate::language::Language;
use crate::needles::is_word;
use crate::source::Source;
use crate::uses::Holder;

fn fixed(pattern: &str) -> Regex {
    regex::bytes::RegexBuilder::new(pattern).unicode(false).build().expect("a fixed pattern")
}

static SCRIPT: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r#"\b(?:import|export)\s[^;'"`]{0,2000}?\bfrom\s*['"][^'"\n]+['"]|\b(?:const|let|var)\s*(?:\{[^}]*\}|\w+)\s*=\s*(?:await\s+import|require)\(\s*['"][^'"\n]+['"]"#,
    )
});
static PYTHON: LazyLock<Regex> = LazyLock::new(|| fixed(r"(?m)^[ \t]*(?:from\s+[\w.]+\s+import\s+(?:\([^)]*\)|[^\n]*)|import\s+[^\n]*)"));
static GO: LazyLock<Regex> = LazyLock::new(|| fixed(r#"(?m)^[ \t]*(?:import\s+)?(?:[\w.]+\s+)?"[\w./-]+"[ \t]*$"#));
static RUST: LazyLock<Regex> = LazyLock::new(|| fixed(r"(?m)^[ \t]*(?:pub(?:\([^)]*\))?\s+)?use\s+[^;]+;"));
static CLASSES: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"(?m)^[ \t]*(?:import|using|use)\s+[^;\n(]+|\b(?:extends|implements)\s+[^{;]*|\bclass\s+\w+[^:{;\n]*:[^{;]*"));
static INCLUDE: LazyLock<Regex> = LazyLock::new(|| fixed(r"(?m)^[ \t]*(?:#\s*include|require\S*|include|extend|source|\.)\s+[^\n]+"));

/// Statements that bring in all names of what they mention.
static WHOLE: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"^\s*(?:#?\s*include|extend|require|source|\.\s|implements|class|using\s+static)|\*|import\s+\."));

/// The imports of a file: ranges of bytes.
pub(crate) struct Imports(Vec<(usize, usize)>);

/// How a name is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is imported here.
    Imported,
    Used,
}

impl Imports {
    pub(crate) fn of(source: &Source<'_>) -> Self {
        let regex = match source.language {
            Language::Script | Language::Markup => &SCRIPT,
            Language::Python => &PYTHON,
            Language::Go => &GO,
            Language::Rust => &RUST,
            Language::Jvm | Language::CSharp | Language::Php | Language::Swift => &CLASSES,
            _ => &INCLUDE,
        };
        Self(regex.find_iter(source.bytes).map(|found| (found.start(), found.end())).collect())
    }

    /// The import that the place is in.
    pub(crate) fn around(&self, at: usize) -> Option<(usize, usize)> {
        self.0.iter().copied().find(|(start, end)| (*start..*end).contains(&at))
    }

    fn any(&self, source: &Source<'_>, holds: impl Fn(&[u8]) -> bool) -> bool {
        self.0.iter().any(|(start, end)| holds(source.slice(*start, *end)))
    }
}

/// Whether the name at `start` is the constant of another file.
pub(crate) fn seen(source: &Source<'_>, imports: &Imports, holder: &Holder, start: usize) -> Option<Seen> {
    let constant = &holder.constant;
    if constant.reach.is_some() {
        return None;
    }
    let modules = modules(&holder.path, holder.language);
    let container = constant.container.as_deref().map(str::as_bytes);
    let mentions =
        |text: &[u8]| container.is_some_and(|name| has_word(text, name)) || modules.iter().any(|module| has_word(text, module.as_bytes()));
    if let Some((from, to)) = imports.around(start) {
        return mentions(source.slice(from, to)).then_some(Seen::Imported);
    }
    let same_folder = || source.path.parent() == holder.path.parent();
    let visible = match (source.qualifier(start), container) {
        (Some(qualifier), Some(container)) => qualifier == container,
        // `flags.DARK`, where `flags` is the module or what an import calls it.
        (Some(qualifier), None) => {
            !qualifier.is_empty()
                && (modules.iter().any(|module| module.as_bytes() == qualifier)
                    || imports.any(source, |text| has_word(text, qualifier) && mentions(text)))
        }
        (None, Some(_)) if constant.qualified => false,
        (None, _) => {
            let name = constant.name.as_bytes();
            let packaged = matches!(source.language, Language::Go | Language::Jvm | Language::Swift) && container.is_none();
            packaged && same_folder() || imports.any(source, |text| mentions(text) && (has_word(text, name) || WHOLE.is_match(text)))
        }
    };
    visible.then_some(Seen::Used)
}

/// The other name that an import gives: `DARK as OTHER`, `DARK: other`.
pub(crate) fn renamed<'a>(source: &Source<'a>, end: usize) -> Option<&'a [u8]> {
    let rest = source.slice(end, (end + 80).min(source.bytes.len())).trim_ascii_start();
    let rest = rest.strip_prefix(b"as ").or_else(|| rest.strip_prefix(b":").filter(|rest| !rest.starts_with(b":")))?.trim_ascii_start();
    let length = rest.iter().take_while(|byte| is_word(**byte)).count();
    (length > 0).then(|| &rest[..length])
}

/// The names under which others know the file: its own, or its folder's where the folder is the module.
fn modules(path: &Path, language: Language) -> Vec<String> {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let stem = name(path).and_then(|name| name.split('.').next().map(str::to_owned)).unwrap_or_default();
    let folder = path.parent().and_then(name).unwrap_or_default();
    let mut modules = match stem.as_str() {
        "index" | "mod" | "__init__" => vec![folder],
        "lib" | "main" if language == Language::Rust => {
            let package = path.parent().and_then(Path::parent).and_then(name).unwrap_or_default();
            vec!["crate".to_owned(), package.replace('-', "_")]
        }
        _ if language == Language::Go => vec![folder],
        _ => vec![stem],
    };
    modules.retain(|module| !module.is_empty());
    modules
}

/// Whether a word stands in a text, not as a part of a longer one.
pub(crate) fn has_word(text: &[u8], word: &[u8]) -> bool {
    !word.is_empty()
        && memchr::memmem::find_iter(text, word).any(|at| {
            let before = at.checked_sub(1).and_then(|before| text.get(before));
            !before.is_some_and(|byte| is_word(*byte)) && !text.get(at + word.len()).is_some_and(|byte| is_word(*byte))
        })
}
