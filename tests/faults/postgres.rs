//! A Postgres server that a test may kill, freeze and starve.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

/// A server of its own cluster, durable as by default. It ends with this.
pub(crate) struct Postgres {
    directory: tempfile::TempDir,
    programs: PathBuf,
    /// Where it listens, on 127.0.0.1.
    pub(crate) port: u16,
    mounted: bool,
}

impl Postgres {
    /// A new one, up.
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), false)
    }

    /// A new one, up, whose disk holds this many mebibytes.
    pub(crate) fn start_on_disk_of(mebibytes: u32) -> Self {
        assert!(is_root(), "this test mounts a small file system for Postgres: run it as root");
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path()));
        Self::start_in(directory, true)
    }

    fn start_in(directory: tempfile::TempDir, mounted: bool) -> Self {
        let programs = find_programs();
        let port = free_port();
        let server = Self { directory, programs, port, mounted };
        run(Command::new("chmod").arg("755").arg(server.directory.path()));
        std::fs::create_dir(server.data()).unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(server.data()));
        }
        let mut initdb = server.command("initdb");
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "--wal-segsize=1"]);
        run(initdb.arg("-D").arg(server.data()));
        let settings = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nmax_connections = 60\n\
             shared_buffers = 16MB\nmin_wal_size = 4MB\nmax_wal_size = 16MB\nautovacuum = off\n",
            server.data().display()
        );
        std::fs::write(server.data().join("postgresql.auto.conf"), settings).unwrap();
        server.up();
        server
    }

    /// Starts it again.
    pub(crate) fn up(&self) {
        run(self
            .command("pg_ctl")
            .args(["-w", "-t", "60", "-l"])
            .arg(self.data().join("log"))
            .arg("-D")
            .arg(self.data())
            .arg("start"));
    }

    /// Stops it in the middle of everything, as a crash does.
    pub(crate) fn crash(&self) {
        run(self.command("pg_ctl").args(["-m", "immediate", "-w", "-D"]).arg(self.data()).arg("stop"));
    }

    /// Stops every process of it where it stands.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let postmaster = self.postmaster().expect("the server is up");
        for pid in children(postmaster).into_iter().chain([postmaster]) {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), signal); // A child may have ended.
        }
    }

    /// Whether the server process is there.
    pub(crate) fn is_up(&self) -> bool {
        self.postmaster().is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists())
    }

    fn postmaster(&self) -> Option<i32> {
        std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?.lines().next()?.parse().ok()
    }

    /// Takes all the room that its disk has left. Returns the file that takes it.
    pub(crate) fn fill_disk(&self) -> PathBuf {
        let path = self.directory.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4_096]).is_ok() {}
        path
    }

    /// A few connections past every proxy.
    pub(crate) async fn pool(&self) -> PgPool {
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(self.port).username("postgres");
        PgPoolOptions::new().max_connections(2).connect_with(options.database("postgres")).await.unwrap()
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// One of its programs. The server refuses to run as root.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.directory.path());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.is_up() {
            self.thaw();
            let _ = self.command("pg_ctl").args(["-m", "immediate", "-w", "-D"]).arg(self.data()).arg("stop").output();
        }
        if self.mounted {
            // A moment may pass until the last of its processes is gone.
            let give_up_at = Instant::now() + Duration::from_secs(10);
            while !Command::new("umount").arg(self.directory.path()).output().is_ok_and(|done| done.status.success()) {
                assert!(Instant::now() < give_up_at, "{} can't be unmounted", self.directory.path().display());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The processes that this one has started, directly.
pub(crate) fn children(parent: i32) -> Vec<i32> {
    let processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// proc(5): what follows the command, which is in parentheses, are the state and the parent.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// A port that nobody has, and nobody gets by connecting somewhere: it stays free while the server is down.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(20_000..32_000);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn find_programs() -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = installed.chain(std::env::split_paths(&path)).find(|directory| directory.join("initdb").exists());
    found.expect("this test starts a Postgres of its own, and there is none; install it: apt-get install postgresql")
}

/// Runs a program, which must succeed.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
