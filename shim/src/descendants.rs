//! Everything that descends from this process, wherever it hid: `/proc` (proc(5)), by parents.
//!
//! This process is a subreaper (prctl(2)), so whoever loses a parent becomes its child, and nobody leaves
//! the tree; as a container's first process it has all of the container below it.

use std::collections::HashMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, RawPid, Signal, WaitOptions, WaitStatus, getpid, kill_process_group, pidfd_open,
    pidfd_send_signal, wait,
};

/// How long to go on killing: outside of a container a fork bomb may outrun us, and a process may wait for a disk.
const PATIENCE: Duration = Duration::from_secs(4);
const BETWEEN_ROUNDS: Duration = Duration::from_millis(5);

/// The live descendants; zombies don't count.
pub(crate) fn descendants() -> Vec<RawPid> {
    let own = getpid().as_raw_pid();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let all: Vec<(RawPid, RawPid, bool)> =
        entries.filter_map(|entry| look(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect();
    if own == 1 {
        return all.into_iter().filter(|(pid, _, live)| *pid != 1 && *live).map(|(pid, ..)| pid).collect();
    }
    let mut children: HashMap<RawPid, Vec<(RawPid, bool)>> = HashMap::new();
    for (pid, parent, live) in all {
        children.entry(parent).or_default().push((pid, live));
    }
    let (mut found, mut open) = (Vec::new(), vec![own]);
    while let Some(parent) = open.pop() {
        for (pid, live) in children.remove(&parent).unwrap_or_default() {
            open.push(pid);
            if live {
                found.push(pid);
            }
        }
    }
    found
}

/// A process, its parent, and whether it lives.
fn look(pid: RawPid) -> Option<(RawPid, RawPid, bool)> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // `pid (name) state ppid …`; the name may hold anything, a `)` too.
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = std::str::from_utf8(&stat[after_name..]).ok()?.split_ascii_whitespace();
    let live = !matches!(fields.next()?, "Z" | "X");
    Some((pid, fields.next()?.parse().ok()?, live))
}

/// Kills all descendants and reaps them, telling `ended` of each. `false`: our patience is over, and something is left.
pub(crate) fn kill_all(mut ended: impl FnMut(Pid, WaitStatus)) -> bool {
    let give_up_at = Instant::now() + PATIENCE;
    loop {
        kill_once();
        if reap(&mut ended) && descendants().is_empty() {
            return true;
        }
        if Instant::now() >= give_up_at {
            return false;
        }
        thread::sleep(BETWEEN_ROUNDS);
    }
}

fn kill_once() {
    if getpid() == Pid::INIT {
        // To -1: all in the container but this process, at once (kill(2)). No fork bomb outruns that.
        let _ = kill_process_group(Pid::INIT, Signal::KILL); // Nobody may be left.
        return;
    }
    // Handles first, then another look: a number may be another's by now.
    let handles: Vec<_> = descendants()
        .into_iter()
        .filter_map(|pid| Some((pid, pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?)))
        .collect();
    let still = descendants();
    for (pid, handle) in handles {
        if still.contains(&pid) {
            let _ = pidfd_send_signal(&handle, Signal::KILL); // It may be gone.
        }
    }
}

/// Reaps whoever has ended, telling `ended` of each; whether no child is left.
pub(crate) fn reap(mut ended: impl FnMut(Pid, WaitStatus)) -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => ended(pid, status),
            Ok(None) => return false,
            Err(error) => return error == Errno::CHILD,
        }
    }
}
