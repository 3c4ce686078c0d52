//! Looking through `/proc` (proc(5)) for what agents started, and ending it.

use std::cell::OnceCell;
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, RawPid, Signal, pidfd_open, pidfd_send_signal};

/// Rounds of killing until nothing new turns up; a fork bomb may outrun us for a few.
const ROUNDS: usize = 200;
const BETWEEN_ROUNDS: Duration = Duration::from_millis(5);

/// A live process (zombies are not) at the moment it was looked at.
pub(super) struct Seen {
    pub(super) pid: RawPid,
    environment: OnceCell<Vec<u8>>,
}

impl Seen {
    /// Whether a variable of the environment it was started with, as `NAME=value`, satisfies `predicate`.
    pub(super) fn environment_has(&self, predicate: impl Fn(&[u8]) -> bool) -> bool {
        // Of other users' processes it can't be read; those are not ours.
        let environment =
            self.environment.get_or_init(|| fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default());
        environment.split(|byte| *byte == 0).any(predicate)
    }

    fn look_at(pid: RawPid) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        // `pid (name) state …`; the name may hold anything, a `)` too.
        let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
        let text = std::str::from_utf8(&stat[after_name..]).ok()?;
        let mut fields = text.split_ascii_whitespace();
        let state = fields.next()?;
        (!matches!(state, "Z" | "X")).then(|| Self { pid, environment: OnceCell::new() })
    }
}

/// All live processes but ourselves.
pub(super) fn processes() -> io::Result<impl Iterator<Item = Seen>> {
    let own = RawPid::try_from(std::process::id()).unwrap_or(0);
    let pids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids.filter(move |pid| *pid != own).filter_map(Seen::look_at))
}

/// Kills every process that `matches`, and what those start meanwhile. Blocks until they are gone, for about a second
/// at most; `false`: not all of them are.
pub(super) fn kill_where(matches: impl Fn(&Seen) -> bool) -> bool {
    for _ in 0..ROUNDS {
        let Ok(processes) = processes() else { return false };
        let round: Vec<RawPid> = processes.filter(|seen| matches(seen)).map(|seen| seen.pid).collect();
        if round.is_empty() {
            return true;
        }
        for pid in round {
            kill_if(pid, &matches);
        }
        thread::sleep(BETWEEN_ROUNDS);
    }
    false
}

/// Kills the process `pid` if it still is one that `matches`: the handle is taken first, so that the
/// signal can't hit a newcomer that was given the same number.
fn kill_if(pid: RawPid, matches: impl Fn(&Seen) -> bool) {
    let handle = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if let Some(handle) = handle
        && Seen::look_at(pid).is_some_and(|seen| matches(&seen))
    {
        let _ = pidfd_send_signal(&handle, Signal::KILL); // It may be gone.
    }
}
