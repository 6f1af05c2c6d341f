//! The token file: who may ask over TCP, and what. One token a line: `<scope> <name> <token>`.
//!
//! **Invariant**: a file that others may read, or with one bad line, admits nobody. Tokens are kept as digests only.

use std::fmt;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

/// Shorter ones can be guessed; ours have 67.
pub const TOKEN_CHARS_MIN: usize = 32;
/// Also keeps the comparison of a wrong token short.
const TOKEN_CHARS_MAX: usize = 256;
/// A person or a machine each; the comparison goes through all of them.
const TOKENS_MAX: usize = 200;
/// Longer than any file with so many lines.
const FILE_BYTES_MAX: u64 = 128 * 1024;
const NAME_CHARS_MAX: usize = 64;

pub(crate) type Digest = [u8; 32];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// May look.
    Read,
    /// May also change what runs.
    Act,
    /// Flags only, of one environment or, when absent, of all.
    Flags { may: FlagRight, environment: Option<String> },
}

/// Each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlagRight {
    /// What a flag answers; never its rules.
    Evaluate,
    /// Whole sets, rules included.
    Sync,
    /// May change flags.
    Write,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
            Self::Act => f.write_str("act"),
            Self::Flags { may, environment } => {
                f.write_str(match may {
                    FlagRight::Evaluate => "evaluate",
                    FlagRight::Sync => "sync",
                    FlagRight::Write => "write",
                })?;
                environment.iter().try_for_each(|environment| write!(f, ":{environment}"))
            }
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = ();

    /// `read`, `act`, or `evaluate`, `sync` and `write`, alone or with `:ENVIRONMENT`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (right, environment) = text.split_once(':').map_or((text, None), |(right, name)| (right, Some(name.to_owned())));
        let may = match (right, &environment) {
            ("read", None) => return Ok(Self::Read),
            ("act", None) => return Ok(Self::Act),
            ("evaluate", _) => FlagRight::Evaluate,
            ("sync", _) => FlagRight::Sync,
            ("write", _) => FlagRight::Write,
            _ => return Err(()),
        };
        if environment.as_ref().is_some_and(String::is_empty) { Err(()) } else { Ok(Self::Flags { may, environment }) }
    }
}

impl Scope {
    /// Whether it permits this of flags in some environment, and if it is bound to one, in which. Whoever may look at everything may
    /// look at flags.
    pub fn of_flags(&self, wanted: FlagRight) -> Option<Option<&str>> {
        match self {
            Self::Act => Some(None),
            Self::Read => (wanted <= FlagRight::Sync).then_some(None),
            Self::Flags { may, environment } => (*may >= wanted).then_some(environment.as_deref()),
        }
    }
}

/// Why the token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("cannot use the token file {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the token file {path} can be read by others (mode {mode:03o})")]
    Open { path: PathBuf, mode: u32 },
    #[error("the token file {path} is larger than {FILE_BYTES_MAX} bytes")]
    Large { path: PathBuf },
    #[error("{path}:{line}: {what}")]
    Line { path: PathBuf, line: usize, what: String },
    #[error("`{name}` cannot be the name of a token")]
    Name { name: String },
}

impl TokenFileError {
    pub fn hint(&self) -> String {
        match self {
            Self::Io { .. } => "only the user who runs changeover needs to read it".to_owned(),
            Self::Open { path, .. } => {
                format!("chmod 600 {}; if others could really read it, make new tokens with `changeover token`", path.display())
            }
            Self::Large { .. } => format!("it holds at most {TOKENS_MAX} tokens, one a line"),
            Self::Line { .. } => "a line is `act <name> <token>` or `read <name> <token>`, for flags `evaluate`, `sync` or `write`; `changeover token` adds one".to_owned(),
            Self::Name { .. } => format!("1 to {NAME_CHARS_MAX} of a-z, A-Z, 0-9, `.`, `_`, `@` and `-`"),
        }
    }
}

pub struct Token {
    pub name: String,
    pub scope: Scope,
    pub(crate) digest: Digest,
}

#[derive(Default)]
pub struct Tokens(Vec<Token>);

impl Tokens {
    /// A file that is not there holds none.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let io = |source| TokenFileError::Io { path: path.to_owned(), source };
        let file = match std::fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            opened => opened.map_err(io)?,
        };
        guarded(&file, path)?;
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(io)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(TokenFileError::Large { path: path.to_owned() });
        }
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, TokenFileError> {
        let mut tokens: Vec<Token> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let wrong = |what: &str| TokenFileError::Line { path: path.to_owned(), line: index + 1, what: what.to_owned() };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let [scope, name, token] = words[..] else {
                return Err(wrong(&format!("three words are needed, found {}", words.len())));
            };
            // What stands there may be a token: it is not repeated.
            let scope = scope.parse().map_err(|()| wrong("the first word must be `read`, `act`, or a scope of flags"))?;
            if !is_name(name) {
                return Err(wrong("the second word must be a name"));
            }
            if !(TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&token.len()) {
                let length = token.len();
                return Err(wrong(&format!("a token has {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} characters, this one has {length}")));
            }
            let digest = digest(token);
            if tokens.iter().any(|other| other.digest == digest) {
                return Err(wrong("this token stands in the file already"));
            }
            if tokens.len() == TOKENS_MAX {
                return Err(wrong(&format!("more than {TOKENS_MAX} tokens")));
            }
            tokens.push(Token { name: name.to_owned(), scope, digest });
        }
        Ok(Self(tokens))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn of(&self, presented: &str) -> Option<&Token> {
        self.with(&digest(presented))
    }

    /// Takes as long whichever it is, and if it is none.
    pub(crate) fn with(&self, digest: &Digest) -> Option<&Token> {
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.digest.ct_eq(digest)) {
                found = Some(token);
            }
        }
        found
    }
}

/// Makes a token, adds it to the file and returns it: the only time it is seen.
pub fn make(path: &Path, scope: Scope, name: &str) -> Result<String, TokenFileError> {
    if !is_name(name) {
        return Err(TokenFileError::Name { name: name.to_owned() });
    }
    let io = |source| TokenFileError::Io { path: path.to_owned(), source };
    // What is there already must be good: a line after a bad one would not count.
    Tokens::read(path)?;
    let mut file = std::fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(io)?;
    guarded(&file, path)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(io)?;
    let token = format!("co_{}", random_hex().map_err(io)?);
    let line = format!("{}{scope} {name} {token}\n", if text.is_empty() || text.ends_with('\n') { "" } else { "\n" });
    Tokens::parse(&format!("{text}{line}"), path)?;
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
    Ok(token)
}

fn guarded(file: &std::fs::File, path: &Path) -> Result<(), TokenFileError> {
    let mode = file.metadata().map_err(|source| TokenFileError::Io { path: path.to_owned(), source })?.mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(TokenFileError::Open { path: path.to_owned(), mode }) }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@-".contains(&b))
}

pub(crate) fn digest(text: &str) -> Digest {
    Sha256::digest(text.as_bytes()).into()
}

/// 256 bits from the system.
pub(crate) fn random_hex() -> std::io::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The file's tokens, read again when it has changed.
pub struct TokenFile {
    path: PathBuf,
    seen: Mutex<Option<(Stamp, Arc<Admitted>)>>,
}

/// The tokens, or why there are none.
pub type Admitted = Result<Tokens, TokenFileError>;

#[derive(PartialEq, Eq)]
struct Stamp(Option<(i64, i64, i64, u64, u64, u32)>);

impl TokenFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path, seen: Mutex::new(None) }
    }

    /// One `stat` a request, so that a token that was taken out no longer counts.
    pub fn now(&self) -> Arc<Admitted> {
        let stamp = Stamp(
            std::fs::metadata(&self.path).ok().map(|it| (it.mtime(), it.mtime_nsec(), it.ctime_nsec(), it.size(), it.ino(), it.mode())),
        );
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, admitted)) = &*seen
            && *last == stamp
        {
            return admitted.clone();
        }
        let admitted = Arc::new(Tokens::read(&self.path));
        match &*admitted {
            Err(error) => eprintln!("error: nobody is admitted to the API over TCP: {error}\n  hint: {}", error.hint()),
            Ok(tokens) if tokens.is_empty() => eprintln!("nobody can use the API over TCP yet: make a token with `changeover token`"),
            Ok(_) => {}
        }
        *seen = Some((stamp, admitted.clone()));
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<usize, &str>) {
        let read = Tokens::parse(text, Path::new("tokens"));
        match (read, expect) {
            (Ok(tokens), Ok(count)) => assert_eq!(tokens.0.len(), count, "{text}"),
            (Err(error), Err(expect)) => assert_eq!(error.to_string(), expect, "{text}"),
            (read, expect) => panic!("{text}: {:?}, expected {expect:?}", read.map(|it| it.0.len()).map_err(|it| it.to_string())),
        }
    }

    #[test]
    fn each_line_is_a_token() {
        let token = "0123456789abcdef0123456789abcdef";
        check("", Ok(0));
        check(&format!("# ours\n\nact ana {token}\n  read  board  {token}x \n"), Ok(2));
        check(&format!("evaluate:production sdk {token}\nwrite ana {token}x"), Ok(2));
        check(&format!("sync: sdk {token}"), Err("tokens:1: the first word must be `read`, `act`, or a scope of flags"));
        check(&format!("act {token}"), Err("tokens:1: three words are needed, found 2"));
        check(&format!("own ana {token}"), Err("tokens:1: the first word must be `read`, `act`, or a scope of flags"));
        check(&format!("act a/b {token}"), Err("tokens:1: the second word must be a name"));
        check("\nact ana short", Err("tokens:2: a token has 32 to 256 characters, this one has 5"));
        check(&format!("act ana {token}\nread ben {token}"), Err("tokens:2: this token stands in the file already"));
    }

    #[test]
    fn a_file_that_others_may_read_admits_nobody() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens");
        let token = make(&path, Scope::Act, "ana").expect("a token");
        let file = TokenFile::new(path.clone());
        let scope = || file.now().as_ref().as_ref().ok().and_then(|tokens| tokens.of(&token).map(|token| token.scope.clone()));
        assert_eq!(scope(), Some(Scope::Act));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("its mode");
        assert_eq!(scope(), None);
        let error = make(&path, Scope::Read, "ben").expect_err("open to others");
        assert!(error.to_string().ends_with("can be read by others (mode 640)"), "{error}");
        assert!(error.hint().starts_with("chmod 600 "), "{}", error.hint());
    }
}
