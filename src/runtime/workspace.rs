//! The files of a box, read and written from outside while a hostile agent may rearrange them.
//!
//! Used by `http::files` and by the runtimes, which mount or enter the directory. Every access goes
//! through a directory handle that no path and no symlink leads out of (`cap-std`, `openat2`), opens
//! without blocking, and looks at what it opened rather than at what was there before. Quotas are the
//! file system's business.

mod erase;
mod list;
mod path;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _, OpenOptions, OpenOptionsExt as _};
use rustix::fs::{AtFlags, Gid, OFlags, Uid, chownat};
use rustix::io::Errno;
use uuid::Uuid;

pub use self::list::FileEntry;
use self::path::RelativePath;
use super::blocking;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// The path is absolute, has a `..`, or is no path at all.
    #[error("`{0}` is not a path inside the workspace")]
    BadPath(String),
    /// The file is larger than allowed.
    #[error("the file is larger than {limit} bytes")]
    TooLarge {
        /// The most that is allowed.
        limit: u64,
    },
    /// A directory, pipe, socket or device; or a link that leads out of the workspace.
    #[error("not a regular file of the workspace")]
    NotAFile,
    /// The disk.
    #[error("workspace: {0}")]
    Io(#[from] io::Error),
}

/// The files of one box.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// The directory of all workspaces; only the gateway may enter it.
    parent: PathBuf,
    name: String,
    owner: Option<(u32, u32)>,
}

/// Where a runtime keeps the workspaces of all its boxes.
#[derive(Clone, Debug)]
pub(super) struct Workspaces {
    parent: PathBuf,
    owner: Option<(u32, u32)>,
}

impl Workspaces {
    /// Makes `<data_dir>/workspaces`. With an `owner`, all that is made inside is handed to that user and
    /// group, which takes root.
    pub(super) fn open(data_dir: &Path, owner: Option<(u32, u32)>) -> io::Result<Self> {
        Self::open_named(data_dir, "workspaces", owner)
    }

    /// The same for other directories that an agent can write.
    pub(super) fn open_named(data_dir: &Path, name: &str, owner: Option<(u32, u32)>) -> io::Result<Self> {
        let parent = data_dir.join(name);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&parent)?;
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o700))?;
        Ok(Self { parent: parent.canonicalize()?, owner })
    }

    /// Where they all are: absolute, without symlinks.
    pub(super) fn path(&self) -> &Path {
        &self.parent
    }

    /// The one of that name.
    pub(super) fn get(&self, id: impl std::fmt::Display) -> Workspace {
        Workspace { parent: self.parent.clone(), name: id.to_string(), owner: self.owner }
    }
}

impl Workspace {
    /// Its directory on the host: absolute. Only for mounting it or starting a process in it.
    pub(super) fn path(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    /// Makes the directory when it is missing.
    pub(super) async fn ensure(&self) -> io::Result<()> {
        let workspace = self.clone();
        blocking(move || workspace.open().map(drop)).await?
    }

    /// Its regular files in order of their paths: at most 10,000, at most 32 directories deep. What is
    /// neither a file nor a directory is left out, links too. Cancel safe.
    pub async fn list(&self) -> Result<Vec<FileEntry>, WorkspaceError> {
        let workspace = self.clone();
        Ok(blocking(move || list::list(&workspace.open()?)).await??)
    }

    /// The bytes of the file at `path`; `None` when there is none. Links that stay inside the workspace
    /// are followed. Cancel safe.
    pub async fn read(&self, path: &str, max_bytes: u64) -> Result<Option<Bytes>, WorkspaceError> {
        let path = RelativePath::parse(path)?;
        let workspace = self.clone();
        blocking(move || workspace.read_now(&path, max_bytes)).await?
    }

    /// The file at `path` to be read, and its size in bytes; otherwise as [`Self::read`]. It may grow or shrink
    /// meanwhile. Cancel safe.
    pub async fn open_file(&self, path: &str, max_bytes: u64) -> Result<Option<(File, u64)>, WorkspaceError> {
        let path = RelativePath::parse(path)?;
        let workspace = self.clone();
        blocking(move || workspace.open_now(&path, max_bytes)).await?
    }

    /// Whether there is a regular file at `path`. Cancel safe.
    pub async fn has_file(&self, path: &str) -> bool {
        matches!(self.open_file(path, u64::MAX).await, Ok(Some(_)))
    }

    /// Begins to put a file at `path`, making the directories on the way. Cancelled, it may leave a hidden file.
    pub async fn draft(&self, path: &str) -> Result<Draft, WorkspaceError> {
        let path = RelativePath::parse(path)?;
        let workspace = self.clone();
        blocking(move || workspace.draft_now(&path)).await?
    }

    /// Puts `bytes` at `path`, at once: [`Self::draft`] and all of [`Draft`]. Cancelled, it may still happen.
    pub async fn write(&self, path: &str, bytes: Bytes) -> Result<(), WorkspaceError> {
        let mut draft = self.draft(path).await?;
        draft.append(bytes).await?;
        draft.finish().await
    }

    /// Removes all files and the directory itself. Nothing may run in the box. Of a workspace that is not
    /// there: succeeds. Cancelled, it still happens.
    pub async fn erase(&self) -> Result<(), WorkspaceError> {
        let workspace = self.clone();
        Ok(blocking(move || erase::erase(&workspace.open_parent()?, &workspace.name)).await??)
    }

    fn open_parent(&self) -> io::Result<Dir> {
        Dir::open_ambient_dir(&self.parent, ambient_authority())
    }

    fn open(&self) -> io::Result<Dir> {
        let parent = self.open_parent()?;
        self.make_dir(&parent, &self.name)?;
        parent.open_dir(&self.name)
    }

    /// Makes one directory and hands it over, unless it is there.
    fn make_dir(&self, parent: &Dir, name: &str) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        match parent.create_dir_with(name, builder.mode(0o700)) {
            // By name, because `Dir` is only a path to the system; a link put there meanwhile is not followed.
            Ok(()) => self.owner.map_or(Ok(()), |(user, group)| {
                let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
                Ok(chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn open_now(&self, path: &RelativePath, max_bytes: u64) -> Result<Option<(File, u64)>, WorkspaceError> {
        // A FIFO without a writer would hold the thread for ever, a terminal could become ours.
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        let file = match self.open()?.open_with(path.as_str(), OpenOptions::new().read(true).custom_flags(flags)) {
            Ok(file) => file,
            Err(error) => return refuse(error).map_or(Ok(None), Err),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(WorkspaceError::NotAFile);
        }
        if metadata.len() > max_bytes {
            return Err(WorkspaceError::TooLarge { limit: max_bytes });
        }
        Ok(Some((file.into_std(), metadata.len())))
    }

    fn read_now(&self, path: &RelativePath, max_bytes: u64) -> Result<Option<Bytes>, WorkspaceError> {
        let Some((file, size)) = self.open_now(path, max_bytes)? else { return Ok(None) };
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        // It may grow while we read.
        file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max_bytes {
            return Err(WorkspaceError::TooLarge { limit: max_bytes });
        }
        Ok(Some(Bytes::from(bytes)))
    }

    fn draft_now(&self, path: &RelativePath) -> Result<Draft, WorkspaceError> {
        let mut directory = self.open()?;
        for name in path.directories() {
            directory = self
                .make_dir(&directory, name)
                .and_then(|()| directory.open_dir(name))
                .map_err(|error| refuse(error).unwrap_or(WorkspaceError::NotAFile))?;
        }
        let hidden = format!(".streamgate-{}.tmp", Uuid::now_v7().simple());
        let mut options = OpenOptions::new();
        let file = directory.open_with(&hidden, options.write(true).create_new(true).mode(0o644));
        let file = file.map_err(|error| refuse(error).unwrap_or(WorkspaceError::NotAFile))?.into_std();
        let draft =
            Draft { directory: Arc::new(directory), hidden, name: path.file_name().to_owned(), file: Arc::new(file) };
        self.owner.map_or(Ok(()), |(user, group)| fchown(&*draft.file, Some(user), Some(group)))?;
        Ok(draft)
    }
}

/// A file that is being written under another name. Dropped, it is gone.
pub struct Draft {
    directory: Arc<Dir>,
    /// What it is called until it is whole.
    hidden: String,
    name: String,
    file: Arc<File>,
}

impl Draft {
    /// Writes on. Cancelled, it may still happen.
    pub async fn append(&mut self, bytes: Bytes) -> Result<(), WorkspaceError> {
        let file = Arc::clone(&self.file);
        Ok(blocking(move || (&*file).write_all(&bytes)).await??)
    }

    /// Gives it its name. Readers see the old file or this one, never half; a link of that name is replaced, not
    /// followed. Cancelled, it may still happen.
    pub async fn finish(self) -> Result<(), WorkspaceError> {
        blocking(move || match self.directory.rename(&self.hidden, &self.directory, &self.name) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => Err(WorkspaceError::NotAFile),
            // Its directory has gone meanwhile.
            Err(error) => Err(refuse(error).unwrap_or(WorkspaceError::NotAFile)),
        })
        .await?
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After `finish` there is none. What can't be removed is hidden.
        let _ = self.directory.remove_file(&self.hidden);
    }
}

/// What an error of opening means; `None`: nothing is there.
fn refuse(error: io::Error) -> Option<WorkspaceError> {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => None,
        ErrorKind::NotADirectory | ErrorKind::IsADirectory => Some(WorkspaceError::NotAFile),
        // Made by `cap-std`, not by the system: the path leads out of the workspace.
        ErrorKind::PermissionDenied if error.raw_os_error().is_none() => Some(WorkspaceError::NotAFile),
        // A socket (open(2)), or a link that leads to itself.
        _ if matches!(Errno::from_io_error(&error), Some(Errno::NXIO | Errno::LOOP)) => Some(WorkspaceError::NotAFile),
        _ => Some(WorkspaceError::Io(error)),
    }
}

#[cfg(test)]
mod tests;
