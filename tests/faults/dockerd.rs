//! A Docker engine that a test may kill: its own daemon, containerd, images and sockets, in a directory of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::docker::{client, load_image, remove};
use crate::postgres::is_root;

/// How long a daemon may take to come up or to end.
const PATIENCE: Duration = Duration::from_mins(1);

/// The engine, with the demo agent's image and without networks. Everything of it ends with it.
pub(crate) struct Dockerd {
    directory: tempfile::TempDir,
    /// The containers' parent: it outlives the daemon, as in production.
    containerd: Child,
    daemon: Child,
}

impl Dockerd {
    /// A new one, up.
    pub(crate) fn start() -> Self {
        assert!(is_root(), "this test starts a Docker engine of its own: run it as root");
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = '{}'\nstate = '{}'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n\
             [grpc]\naddress = '{}'\n",
            path("containerd"),
            path("containerd-state"),
            path("containerd.sock")
        );
        std::fs::write(path("containerd.toml"), config).unwrap();
        std::fs::write(path("daemon.json"), "{}").unwrap();
        let containerd = spawn(Command::new("containerd").args(["--config", &path("containerd.toml")]));
        let daemon = spawn(&mut daemon(&directory));
        let mut engine = Self { directory, containerd, daemon };
        assert!(engine.answers(), "the engine did not come up");
        load_image(&engine.socket());
        engine
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }

    /// Starts the daemon again. Returns when it answers.
    pub(crate) fn up(&mut self) {
        self.daemon = spawn(&mut daemon(&self.directory));
        assert!(self.answers(), "the engine did not come up again");
    }

    /// Whether it answers before our patience ends.
    fn answers(&mut self) -> bool {
        let give_up_at = Instant::now() + PATIENCE;
        while Instant::now() < give_up_at {
            let asked = client(&self.socket(), &["info"]).output();
            if asked.is_ok_and(|output| output.status.success()) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // Containers outlive their daemon: it must be up to take them away.
        if !matches!(self.daemon.try_wait(), Ok(None)) {
            self.daemon = spawn(&mut daemon(&self.directory));
        }
        if self.answers()
            && let Ok(found) = client(&self.socket(), &["ps", "-aq"]).output()
        {
            remove(&self.socket(), &found);
        }
        end(&mut self.daemon);
        end(&mut self.containerd);
        // The daemon mounts its data on themselves, and does not always take that back.
        let _ = Command::new("umount").arg(self.directory.path().join("data")).output();
    }
}

/// Its network is its own, or it would take the bridge of this machine's engine away.
fn daemon(directory: &tempfile::TempDir) -> Command {
    let path = |name: &str| directory.path().join(name).display().to_string();
    let mut command = Command::new("unshare");
    command.args(["--net", "--", "dockerd"]);
    command.args(["--live-restore", "--bridge=none", "--iptables=false", "--config-file", &path("daemon.json")]);
    command.args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("docker.pid")]);
    command.args(["--containerd", &path("containerd.sock"), "-H", &format!("unix://{}", path("docker.sock"))]);
    command
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; apt-get install docker.io"))
}

/// SIGTERM, and SIGKILL when that does not help.
fn end(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM); // It is ours until it is waited for.
    }
    let give_up_at = Instant::now() + PATIENCE;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < give_up_at {
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}
