//! The shim that runs beside every agent: carried in this binary, put where agents can be started from.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::auth::api_token::hex;

/// A static program: it runs in any Linux image.
const SHIM: &[u8] = include_bytes!(env!("SHIM_PROGRAM"));

/// Puts the shim into `directory` unless it is there; gives its path. Its name holds a checksum, so that
/// gateways of several versions don't take each other's.
pub(super) fn install(directory: &Path) -> io::Result<PathBuf> {
    let checksum = hex(&Sha256::digest(SHIM));
    let path = directory.join(format!("streamgate-shim-{}", &checksum[..16]));
    if fs::read(&path).is_ok_and(|there| there == SHIM) {
        return Ok(path);
    }
    // Whole or not at all, also when two gateways do this at once.
    let new = directory.join(format!("streamgate-shim-{}.new", std::process::id()));
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o755).open(&new)?;
    file.write_all(SHIM)?;
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    file.sync_all()?;
    drop(file);
    fs::rename(&new, &path)?;
    Ok(path)
}
