//! Removing a workspace whatever an agent built in it.

use std::io;
use std::path::Path;

use cap_std::fs::{Dir, Permissions, PermissionsExt as _};
use uuid::Uuid;

/// Removes the directory `name` of `parent` with all that is in it.
///
/// Not `remove_dir_all`: that holds a descriptor per level, and an agent can nest directories deeper than
/// the gateway may open files. Here a directory's subdirectories are first moved up to the root, so two
/// are open at any depth, and each is moved once.
pub(super) fn erase(parent: &Dir, name: &str) -> io::Result<()> {
    unlock(parent, name);
    let root = match parent.open_dir(name) {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    loop {
        let directories = remove_files(&root)?;
        if directories.is_empty() {
            return parent.remove_dir(name);
        }
        for directory in directories {
            unlock(&root, &directory);
            let inner = root.open_dir(&directory)?;
            for deeper in remove_files(&inner)? {
                unlock(&inner, &deeper);
                inner.rename(&deeper, &root, Uuid::now_v7().simple().to_string())?;
            }
            root.remove_dir(&directory)?;
        }
    }
}

/// Removes all that is no directory; gives the names of the directories.
fn remove_files(directory: &Dir) -> io::Result<Vec<std::ffi::OsString>> {
    let mut directories = Vec::new();
    for entry in directory.entries()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            directories.push(entry.file_name());
        } else {
            entry.remove_file()?;
        }
    }
    Ok(directories)
}

/// Lets us into a directory whose mode forbids it, which only a gateway without root notices.
fn unlock(parent: &Dir, name: impl AsRef<Path>) {
    // If it fails, what needs it fails with the better error.
    let _ = parent.set_permissions(name, Permissions::from_mode(0o700));
}
