//! Walking a workspace, bounded in files, depth and steps.

use std::io;
use std::time::UNIX_EPOCH;

use cap_std::fs::{Dir, Metadata};
use serde::Serialize;

/// Files that a listing shows.
const MAX_FILES: usize = 10_000;
/// Directories within directories, which is also how many are open at once.
const MAX_DEPTH: usize = 32;
/// Entries of any kind that are looked at, so that a million pipes take no longer than their share.
const MAX_STEPS: usize = 100_000;

/// One regular file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct FileEntry {
    /// From the workspace's root: `plots/a.png`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Unix milliseconds.
    pub modified_ms: i64,
}

/// The files below `root`, in order of their paths.
pub(super) fn list(root: &Dir) -> io::Result<Vec<FileEntry>> {
    let mut walk = Walk { files: Vec::new(), steps_left: MAX_STEPS };
    walk.enter(root, "", 0)?;
    walk.files.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    Ok(walk.files)
}

struct Walk {
    files: Vec<FileEntry>,
    steps_left: usize,
}

impl Walk {
    fn enter(&mut self, directory: &Dir, prefix: &str, depth: usize) -> io::Result<()> {
        for entry in directory.entries()? {
            if self.files.len() >= MAX_FILES || self.steps_left == 0 {
                break;
            }
            self.steps_left -= 1;
            // The agent works on: what vanished or can't be read is not there. Names that are not UTF-8
            // can't be asked for.
            let Ok(entry) = entry else { continue };
            let Ok(metadata) = entry.metadata() else { continue };
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            if metadata.is_file() {
                self.files.push(FileEntry { path, size: metadata.len(), modified_ms: modified_ms(&metadata) });
            } else if metadata.is_dir() && depth < MAX_DEPTH
                // Relative to the handle: a link put in its place meanwhile leads nowhere else.
                && let Ok(inner) = entry.open_dir()
            {
                // A directory that vanished meanwhile is no failure of the listing.
                let _ = self.enter(&inner, &path, depth + 1);
            }
        }
        Ok(())
    }
}

fn modified_ms(metadata: &Metadata) -> i64 {
    let modified = metadata.modified().ok().and_then(|time| time.into_std().duration_since(UNIX_EPOCH).ok());
    modified.and_then(|since_epoch| i64::try_from(since_epoch.as_millis()).ok()).unwrap_or(0)
}
