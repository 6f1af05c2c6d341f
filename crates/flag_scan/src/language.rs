//! What kind of file a path names: its language, its role, and whether it is a test.
//!
//! Not here: what is skipped (`walk`); the tests inside of a Rust file (`source`).

use std::path::Path;

/// Languages that are lexed alike and see each other's constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Language {
    /// JavaScript and TypeScript, with JSX.
    Script,
    /// HTML and the components that have scripts in them.
    Markup,
    Python,
    Go,
    /// Java, Kotlin, Scala, Groovy; Dart is near enough.
    Jvm,
    Swift,
    CSharp,
    /// C, C++, Objective-C.
    C,
    Rust,
    /// Ruby, Elixir, Crystal.
    Ruby,
    Php,
    Shell,
    Json,
    Yaml,
    Toml,
    /// `name=value` lines, with or without sections.
    Properties,
    /// Terraform's.
    Hcl,
    Xml,
    /// Documentation: all of it is comment.
    Prose,
    /// Any other text: nothing is known of its comments.
    Other,
}

impl Language {
    /// By the name and its extension.
    pub(crate) fn of(path: &Path) -> Self {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "js" | "jsx" | "mjs" | "cjs" | "ts" | "tsx" | "mts" | "cts" => Self::Script,
            "html" | "htm" | "vue" | "svelte" | "astro" | "hbs" | "ejs" | "erb" | "cshtml" | "razor" => Self::Markup,
            "py" | "pyi" | "pyx" => Self::Python,
            "go" => Self::Go,
            "java" | "kt" | "kts" | "scala" | "sc" | "groovy" | "gradle" | "dart" => Self::Jvm,
            "swift" => Self::Swift,
            "cs" => Self::CSharp,
            "c" | "h" | "cc" | "cpp" | "cxx" | "hh" | "hpp" | "hxx" | "m" | "mm" => Self::C,
            "rs" => Self::Rust,
            "rb" | "rake" | "ex" | "exs" | "cr" => Self::Ruby,
            "php" | "phtml" => Self::Php,
            "sh" | "bash" | "zsh" | "fish" | "ksh" => Self::Shell,
            "json" | "jsonc" | "json5" => Self::Json,
            "yaml" | "yml" => Self::Yaml,
            "toml" => Self::Toml,
            "properties" | "ini" | "env" | "conf" | "cfg" => Self::Properties,
            "tf" | "tfvars" | "hcl" => Self::Hcl,
            "xml" | "plist" | "csproj" | "props" | "resx" => Self::Xml,
            "md" | "mdx" | "rst" | "adoc" | "txt" | "textile" | "org" => Self::Prose,
            _ if name.starts_with(".env") => Self::Properties,
            _ if matches!(name, "Dockerfile" | "Makefile" | "Jenkinsfile" | "Procfile" | "Containerfile") => Self::Shell,
            _ if matches!(name, "Rakefile" | "Gemfile" | "Fastfile") => Self::Ruby,
            _ => Self::Other,
        }
    }

    pub(crate) fn is_config(self) -> bool {
        matches!(self, Self::Json | Self::Yaml | Self::Toml | Self::Properties | Self::Hcl | Self::Xml)
    }

    /// Whether a constant that is defined in `self` may be used in `other`.
    pub(crate) fn sees(self, other: Self) -> bool {
        let scripts = |language| matches!(language, Self::Script | Self::Markup);
        self == other || scripts(self) && scripts(other)
    }
}

const TEST_FOLDERS: [&str; 16] = [
    "test",
    "tests",
    "Test",
    "Tests",
    "spec",
    "specs",
    "__tests__",
    "__mocks__",
    "__fixtures__",
    "testdata",
    "testing",
    "fixtures",
    "e2e",
    "cypress",
    "androidTest",
    "integration-tests",
];

/// By the conventions of paths and names: `tests/`, `__tests__/`, `x_test.go`, `test_x.py`, `x.spec.ts`, `XTest.java`, `x_spec.rb`, ….
/// `path`: relative to the checkout, so that the checkout's own place says nothing.
pub(crate) fn is_test(path: &Path) -> bool {
    let folders = path.parent().into_iter().flat_map(Path::components);
    if folders.filter_map(|folder| folder.as_os_str().to_str()).any(|folder| TEST_FOLDERS.contains(&folder) || folder.ends_with(".Tests")) {
        return true;
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
    let inner: Vec<&str> = name.split('.').skip(1).collect();
    name == "conftest.py"
        || stem.starts_with("test_")
        || ["_test", "_tests", "_spec", "-test", "-spec", "Test", "Tests", "TestCase", "Spec"].iter().any(|end| stem.ends_with(end))
        || inner.iter().any(|part| matches!(*part, "test" | "tests" | "spec" | "e2e" | "cy"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::is_test;

    #[test]
    fn tests_are_known_by_their_names() {
        for path in
            ["a/tests/x.rs", "x_test.go", "test_x.py", "src/x.spec.ts", "src/x.test.tsx", "XTest.java", "spec/x.rb", "Shop.Tests/A.cs"]
        {
            assert!(is_test(Path::new(path)), "{path}");
        }
        for path in ["src/contest.py", "src/latest.go", "attest/x.rs", "Unit.java"] {
            assert!(!is_test(Path::new(path)), "{path}");
        }
    }
}
