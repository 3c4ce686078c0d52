//! Where the gateway's ends of boxes' relays are: a directory per box, with one socket in it.
//!
//! The directory is mounted and not the socket: a gateway that restarts puts another socket there. Agents can't
//! write in it, in containers; only the gateway can enter the directory of all of them.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use tokio::net::UnixListener;
use uuid::Uuid;

use crate::domain::ContainerId;

/// The socket's name.
pub const SOCKET: &str = "socket";

/// The directories of all boxes.
#[derive(Clone, Debug)]
pub struct Places {
    parent: PathBuf,
}

impl Places {
    /// Those of a runtime that keeps its things in `runtime_dir`. Nothing is made yet.
    pub fn at(runtime_dir: &Path) -> Self {
        // As the runtimes have it: mounts are told by real paths.
        let real = runtime_dir.canonicalize().unwrap_or_else(|_| runtime_dir.to_owned());
        Self { parent: real.join("proxies") }
    }

    /// The directory of a box.
    pub fn path(&self, container_id: ContainerId) -> PathBuf {
        self.parent.join(container_id.to_string())
    }

    /// Makes it when it is missing.
    pub fn ensure(&self, container_id: ContainerId) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.parent)?;
        fs::set_permissions(&self.parent, fs::Permissions::from_mode(0o700))?;
        let directory = self.path(container_id);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => (),
        }
        // The agent's user passes, and changes nothing.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))
    }

    /// Listens there, in place of who did before.
    pub fn bind(&self, container_id: ContainerId) -> io::Result<UnixListener> {
        self.ensure(container_id)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(CWD, self.path(container_id), flags, Mode::empty())?;
        // By a short name: addresses are at most 108 bytes long (unix(7)).
        let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        let new = short.join(Uuid::now_v7().simple().to_string());
        let listener = std::os::unix::net::UnixListener::bind(&new)?;
        listener.set_nonblocking(true)?;
        // Whoever can enter may connect: that is the gateway, and the box that has this mounted.
        let placed = fs::set_permissions(&new, fs::Permissions::from_mode(0o666))
            .and_then(|()| fs::rename(&new, short.join(SOCKET)));
        if let Err(error) = placed {
            let _ = fs::remove_file(&new); // The first error is the one to tell.
            return Err(error);
        }
        UnixListener::from_std(listener)
    }

    /// Removes it, with its socket. Of one that is not there: succeeds.
    pub fn erase(&self, container_id: ContainerId) -> io::Result<()> {
        match fs::remove_dir_all(self.path(container_id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_later_one_takes_the_place_of_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        let (places, id) = (Places::at(&deep), ContainerId::generate());
        let first = places.bind(id).unwrap();
        let second = places.bind(id).unwrap();
        let short = dir.path().join("short");
        std::os::unix::fs::symlink(places.path(id), &short).unwrap();
        let _connected = UnixStream::connect(short.join(SOCKET)).await.unwrap();
        second.accept().await.unwrap();
        drop(first);
        let names = fs::read_dir(places.path(id)).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), [SOCKET]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&places.parent), 0o700);
        assert_eq!(mode(&places.path(id)), 0o755);
        assert_eq!(mode(&places.path(id).join(SOCKET)), 0o666);
        places.erase(id).unwrap();
        places.erase(id).unwrap();
        assert!(!places.path(id).exists());
    }
}
