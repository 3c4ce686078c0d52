//! Ending the shims that outlive a gateway: after a test nobody comes back for them.
#![allow(dead_code, reason = "each test binary uses what it needs")]
#![allow(clippy::expect_used, reason = "a test that has no directory fails")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A data directory; what still runs on it ends with it.
pub(crate) struct DataDir(tempfile::TempDir);

impl DataDir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory for temporary files"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        end_all(self.0.path());
    }
}

/// Ends all shims of a data directory and what runs below them. Returns when they are gone.
pub(crate) fn end_all(data_dir: &Path) {
    let Ok(notes) = std::fs::read_dir(data_dir.join("shims")) else { return };
    let texts = notes.filter_map(|note| std::fs::read(note.ok()?.path()).ok());
    let pids: Vec<String> = texts
        .filter_map(|note| Some(serde_json::from_slice::<serde_json::Value>(&note).ok()?["pid"].to_string()))
        .filter(|pid| is_shim(pid))
        .collect();
    for pid in &pids {
        let _ = Command::new("kill").arg(pid).status();
    }
    let give_up_at = Instant::now() + Duration::from_secs(10);
    while pids.iter().any(|pid| is_shim(pid)) && Instant::now() < give_up_at {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_shim(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("streamgate-shim"))
}
