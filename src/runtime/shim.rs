//! The shim that runs beside every agent: carried in this binary, put where agents can be started from.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::auth::api_token::hex;

/// A static program: it runs in any Linux image.
const SHIM: &[u8] = include_bytes!(env!("SHIM_PROGRAM"));
/// How long a program may be busy, and how often that is looked at.
const BUSY: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// Puts the shim into `directory` unless it is there; gives its path. Its name holds a checksum, so that
/// gateways of several versions don't take each other's.
pub(super) fn install(directory: &Path) -> io::Result<PathBuf> {
    let checksum = hex(&Sha256::digest(SHIM));
    let path = directory.join(format!("streamgate-shim-{}", &checksum[..16]));
    if fs::read(&path).is_ok_and(|there| there == SHIM) {
        return Ok(path);
    }
    // Whole or not at all, also when two gateways do this at once: in containers they may have the same pid.
    let new = directory.join(format!("streamgate-shim-{}.new", Uuid::now_v7().simple()));
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o755).open(&new)?;
    file.write_all(SHIM)?;
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    file.sync_all()?;
    drop(file);
    fs::rename(&new, &path)?;
    Ok(path)
}

/// Starts a program that this process may have written a moment ago. A child that another thread forks
/// meanwhile holds the file open for writing until it runs its own program, and until then the kernel
/// refuses to run this one (`ETXTBSY`).
pub(super) async fn spawn(command: &mut Command) -> io::Result<Child> {
    let deadline = Instant::now() + BUSY;
    loop {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                sleep(LOOK).await;
            }
            started => return started,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_shim_that_is_still_open_for_writing_is_started_when_it_no_longer_is() {
        let directory = tempfile::tempdir().unwrap();
        let shim = install(directory.path()).unwrap();
        let writer = fs::OpenOptions::new().append(true).open(&shim).unwrap();
        let mut command = Command::new(&shim);
        let mut started = pin!(spawn(command.arg("--no-such-option")));
        assert!(tokio::time::timeout(5 * LOOK, &mut started).await.is_err(), "started while it was busy");
        drop(writer);
        started.await.unwrap().wait().await.unwrap();
    }
}
