//! Which gateway this is: an id in the data directory, locked while the gateway runs.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use uuid::Uuid;

/// Makes the data directory when there is none, for this user's eyes only, and returns its full path.
pub fn make_data_dir(path: &Path) -> anyhow::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| {
        format!("can't make the directory {} — set `data_dir` to one that can be written", path.display())
    })?;
    std::fs::canonicalize(path).with_context(|| format!("can't open the directory {}", path.display()))
}

/// The lock on a data directory; given back on drop.
#[derive(Debug)]
pub struct Node {
    id: String,
    lock: File,
}

impl Drop for Node {
    fn drop(&mut self) {
        // Not by closing the file alone: a program that is being started just now has inherited it, and would
        // hold the lock until it runs. A lock that can't be given back ends with the last of them.
        let _ = self.lock.unlock();
    }
}

impl Node {
    /// Takes the data directory for this process. Fails when another gateway has it.
    pub fn take(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("node_id");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("can't open `{}`; may this user write there?", path.display()))?;
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                bail!("another gateway runs on `{}`; stop it, or set another `data_dir`", data_dir.display())
            }
            Err(TryLockError::Error(error)) => return Err(error).context("can't lock the data directory"),
        }
        let mut id = String::new();
        file.read_to_string(&mut id)?;
        if Uuid::try_parse(id.trim()).is_err() {
            id = Uuid::now_v7().simple().to_string();
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(id.as_bytes())?;
            file.sync_all()?;
        }
        Ok(Self { id: id.trim().to_owned(), lock: file })
    }

    /// The id, the same after every restart on this data directory.
    pub fn id(&self) -> &str {
        &self.id
    }
}
