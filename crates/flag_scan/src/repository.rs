//! Which repository and commit a folder is, read from `.git` itself.
//!
//! git is not run: it need not be there, and its configuration can run commands.
//!
//! Files: gitrepository-layout(5), gitformat-… of packed-refs, git-config(1). Not here: reftable repositories, whose commit stays unknown.

use std::path::{Path, PathBuf};

/// Names that point to names: HEAD → a branch; more is a circle.
const HOPS_MAX: usize = 5;
/// Larger than any of these files but packed-refs of a very large repository.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What is known of a checkout's origin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Repository {
    /// The address of `origin`, or of the first remote, without credentials; without a remote the folder's name.
    pub address: Option<String>,
    /// 40 or 64 hexadecimal digits.
    pub commit: Option<String>,
}

impl Repository {
    /// Of the checkout that the folder is in. Whatever cannot be read is absent.
    pub fn read(folder: &Path) -> Self {
        let Ok(folder) = folder.canonicalize() else { return Self::default() };
        let Some(root) = folder.ancestors().find(|folder| folder.join(".git").exists()) else { return Self::default() };
        let Some(own) = git_folder(root) else { return Self::default() };
        // A worktree has its own HEAD; branches and configuration are in the common folder.
        let common = text(&own.join("commondir")).map_or_else(|| own.clone(), |path| own.join(path.trim()));
        let named = || root.file_name().map(|name| name.to_string_lossy().into_owned());
        Self { address: text(&common.join("config")).and_then(|config| remote(&config)).or_else(named), commit: commit(&own, &common) }
    }
}

/// `.git`, or what the file `.git` of a worktree or submodule points to.
fn git_folder(root: &Path) -> Option<PathBuf> {
    let git = root.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let pointer = text(&git)?;
    Some(root.join(pointer.strip_prefix("gitdir:")?.trim()))
}

fn commit(own: &Path, common: &Path) -> Option<String> {
    let mut name = "HEAD".to_owned();
    for _ in 0..HOPS_MAX {
        let value = text(&own.join(&name)).or_else(|| text(&common.join(&name)));
        let Some(value) = value else { return packed(common, &name) };
        match value.trim().strip_prefix("ref:") {
            // A name with `..` would lead out of the folder.
            Some(next) if !next.contains("..") => next.trim().clone_into(&mut name),
            Some(_) => return None,
            None => return id(value.trim()),
        }
    }
    None
}

fn packed(common: &Path, name: &str) -> Option<String> {
    let packed = text(&common.join("packed-refs"))?;
    packed.lines().find_map(|line| line.split_once(' ').filter(|(_, other)| *other == name).and_then(|(found, _)| id(found)))
}

fn id(text: &str) -> Option<String> {
    (matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_owned())
}

/// The address of `origin`, else of the first remote.
fn remote(config: &str) -> Option<String> {
    let mut section = String::new();
    let mut first = None;
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            line.clone_into(&mut section);
        } else if let Some((name, value)) = line.split_once('=')
            && name.trim().eq_ignore_ascii_case("url")
            && section.starts_with("[remote ")
        {
            let address = bare(value.trim().trim_matches('"'));
            if section == "[remote \"origin\"]" {
                return Some(address);
            }
            first.get_or_insert(address);
        }
    }
    first
}

/// Without user name and password. `git@host:path` has no secret in it.
fn bare(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

fn text(path: &Path) -> Option<String> {
    let size = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?.len();
    if size <= FILE_BYTES_MAX { std::fs::read_to_string(path).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Repository, bare};

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
    }

    #[test]
    fn a_branch_is_a_file_or_packed() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = "[core]\n\tbare = false\n[remote \"other\"]\n\turl = a:b\n[remote \"origin\"]\n\turl = https://me:secret@example.org/shop.git\n";
        let packed = format!("# pack-refs\n{ID} refs/heads/main\n^{ID}\n");
        write(
            folder.path(),
            &[(".git/HEAD", "ref: refs/heads/main\n"), (".git/packed-refs", &packed), (".git/config", config), ("web/a.js", "")],
        );
        let found = Repository::read(&folder.path().join("web"));
        assert_eq!(found, Repository { address: Some("https://example.org/shop.git".to_owned()), commit: Some(ID.to_owned()) });
        let newer = ID.replace('0', "f");
        write(folder.path(), &[(".git/refs/heads/main", &format!("{newer}\n"))]);
        assert_eq!(Repository::read(folder.path()).commit, Some(newer));
    }

    #[test]
    fn a_worktree_points_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let packed = format!("{ID} refs/heads/fix\n");
        write(
            folder.path(),
            &[
                ("main/.git/worktrees/fix/HEAD", "ref: refs/heads/fix\n"),
                ("main/.git/worktrees/fix/commondir", "../..\n"),
                ("main/.git/packed-refs", &packed),
                ("fix/.git", "gitdir: ../main/.git/worktrees/fix\n"),
            ],
        );
        let found = Repository::read(&folder.path().join("fix"));
        assert_eq!(found, Repository { address: Some("fix".to_owned()), commit: Some(ID.to_owned()) });
    }

    #[test]
    fn what_is_odd_is_absent() {
        let folder = tempfile::tempdir().expect("a folder");
        for head in ["ref: HEAD\n", "ref: ../../secret\n", "nonsense", ""] {
            write(folder.path(), &[(".git/HEAD", head)]);
            assert_eq!(Repository::read(folder.path()).commit, None, "{head}");
        }
        assert_eq!(bare("git@example.org:shop.git"), "git@example.org:shop.git");
        assert_eq!(bare("ssh://git@example.org:22/shop"), "ssh://example.org:22/shop");
    }
}
