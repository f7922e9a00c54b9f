//! The way of a path through links, one name after the other, as the kernel goes it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::wire::Link;

/// Most links that are followed on the way of one path, as many as the kernel follows.
const MAX_HOPS: usize = 40;

/// What `path` is without links, if it is there. `folder` gets the folder of each place at which its last name
/// stands for something: its own, those of links, the target's. A link that `follows` does not take ends the way.
pub(crate) fn walk(
    path: &Path,
    mut folder: impl FnMut(&Path),
    mut follows: impl FnMut(&Path, &Path) -> bool,
) -> Option<PathBuf> {
    let mut real = PathBuf::from("/");
    let mut names = names_from_the_last(path);
    let mut hops = 0;
    while let Some(name) = names.pop() {
        if name == ".." {
            real.pop();
            continue;
        }
        if names.is_empty() {
            folder(&real);
        }
        let next = real.join(name);
        match fs::read_link(&next) {
            Ok(target) if hops == MAX_HOPS || !follows(&next, &target) => return None,
            Ok(target) => {
                hops += 1;
                if target.is_absolute() {
                    real = PathBuf::from("/");
                }
                names.extend(names_from_the_last(&target));
            }
            // It is there, and no link.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => real = next,
            Err(_) => return None,
        }
    }
    Some(real)
}

/// The links on the way of a path.
pub(crate) fn links_on(path: &Path) -> Vec<Link> {
    let mut links = Vec::new();
    walk(
        path,
        |_| {},
        |path, target| {
            links.push(Link { path: path.to_owned(), target: target.to_owned() });
            true
        },
    );
    links
}

fn names_from_the_last(path: &Path) -> Vec<OsString> {
    let names =
        path.components().rev().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    names.map(|part| part.as_os_str().to_owned()).collect()
}
