//! Folders of git that a workspace needs and that lie outside it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::rights::resolved;
use crate::small_file;

/// The git folders outside `workspace` that git reads when it runs there: of the repository above, if the
/// workspace is a folder of one, and of the repository that the workspace is a worktree of.
///
/// What lies in a workspace may be hostile, so a pointer counts only if what it points to is a git folder
/// of the same owner that points back.
pub(crate) fn common_folders(workspace: &Path, user_home: Option<&Path>) -> Vec<PathBuf> {
    let Ok(workspace) = fs::canonicalize(workspace) else {
        return Vec::new();
    };
    let Some(repository) = repositories_around(&workspace, user_home).next() else {
        return Vec::new();
    };
    let dot_git = repository.join(".git");
    let found = if dot_git.is_dir() { of_repository(&dot_git) } else { of_pointer(&dot_git) };
    found.into_iter().filter(|folder| !folder.starts_with(&workspace)).collect()
}

/// The outermost repository that `workspace` is a folder of, or the workspace of a repository in it.
pub(crate) fn repository_around(workspace: &Path, user_home: Option<&Path>) -> Option<PathBuf> {
    let workspace = fs::canonicalize(workspace).ok()?;
    repositories_around(&workspace, user_home).last().map(Path::to_path_buf)
}

/// The repositories from `workspace` upwards. Neither a home nor what lies above it is one of them, whatever
/// it holds.
fn repositories_around<'a>(
    workspace: &'a Path,
    user_home: Option<&Path>,
) -> impl Iterator<Item = &'a Path> + use<'a> {
    let home = user_home.map(resolved);
    let above = workspace.ancestors().take_while(move |dir| home.as_deref() != Some(*dir));
    above.filter(|dir| dir.parent().is_some() && dir.join(".git").symlink_metadata().is_ok())
}

fn of_repository(dot_git: &Path) -> Vec<PathBuf> {
    let Ok(folder) = fs::canonicalize(dot_git) else {
        return Vec::new();
    };
    // A link called `.git` is a pointer without a way back.
    if folder == dot_git && is_git_folder(&folder) { vec![folder] } else { Vec::new() }
}

/// What a `.git` file points to: the repository of a worktree, or a submodule's folder in the repository
/// above it.
fn of_pointer(dot_git: &Path) -> Vec<PathBuf> {
    let Some(own) = read_pointer(dot_git, "gitdir:") else {
        return Vec::new();
    };
    of_worktree(dot_git, &own).or_else(|| of_submodule(dot_git, own)).into_iter().collect()
}

fn of_worktree(dot_git: &Path, own: &Path) -> Option<PathBuf> {
    let back = read_pointer(&own.join("gitdir"), "")?;
    let common = read_pointer(&own.join("commondir"), "")?;
    (back == dot_git && is_git_folder(&common) && own.starts_with(&common)).then_some(common)
}

fn of_submodule(dot_git: &Path, own: PathBuf) -> Option<PathBuf> {
    let config = small_file::read(&own.join("config"))?;
    let worktree = config.lines().find_map(|line| line.trim().strip_prefix("worktree = "))?;
    let back = fs::canonicalize(own.join(worktree)).ok()?;
    (Some(back.as_path()) == dot_git.parent() && is_git_folder(&own)).then_some(own)
}

/// The path in a file of git's, resolved from the file's folder.
fn read_pointer(file: &Path, prefix: &str) -> Option<PathBuf> {
    let text = small_file::read(file)?;
    let path = text.strip_prefix(prefix)?.trim();
    fs::canonicalize(file.parent()?.join(path)).ok()
}

fn is_git_folder(folder: &Path) -> bool {
    let ours = folder.metadata().is_ok_and(|metadata| metadata.uid() == rustix::process::geteuid().as_raw());
    ours && folder.join("HEAD").is_file() && folder.join("objects").is_dir() && folder.join("refs").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(at: &Path) {
        fs::create_dir_all(at.join("objects")).unwrap();
        fs::create_dir_all(at.join("refs")).unwrap();
        fs::write(at.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    }

    fn root() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(dir.path()).unwrap();
        (dir, path)
    }

    #[test]
    fn a_sub_folder_reads_the_repository_above() {
        let (_dir, root) = root();
        repository(&root.join(".git"));
        fs::create_dir_all(root.join("a/b")).unwrap();
        assert_eq!(common_folders(&root.join("a/b"), None), [root.join(".git")]);
        assert!(common_folders(&root, None).is_empty(), "the workspace's own folder needs no rule");
        assert!(common_folders(&root.join("a/b"), Some(&root)).is_empty(), "not the repository of a home");
    }

    #[test]
    fn a_submodule_reads_its_own_folder_only() {
        let (_dir, root) = root();
        let own = root.join(".git/modules/sub");
        repository(&own);
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/.git"), "gitdir: ../.git/modules/sub\n").unwrap();
        fs::write(own.join("config"), "[core]\n\tworktree = ../../../elsewhere\n").unwrap();
        assert!(common_folders(&root.join("sub"), None).is_empty());
        fs::write(own.join("config"), "[core]\n\tworktree = ../../../sub\n").unwrap();
        assert_eq!(common_folders(&root.join("sub"), None), [own]);
    }

    #[test]
    fn a_worktree_counts_only_if_it_is_pointed_back_to() {
        let (_dir, root) = root();
        let own = root.join("main/.git/worktrees/w");
        repository(&root.join("main/.git"));
        fs::create_dir_all(&own).unwrap();
        fs::create_dir_all(root.join("w")).unwrap();
        fs::write(root.join("w/.git"), format!("gitdir: {}\n", own.display())).unwrap();
        fs::write(own.join("commondir"), "../..\n").unwrap();
        assert!(common_folders(&root.join("w"), None).is_empty());
        fs::write(own.join("gitdir"), format!("{}\n", root.join("w/.git").display())).unwrap();
        assert_eq!(common_folders(&root.join("w"), None), [root.join("main/.git")]);
    }
}
