//! A Postgres of its own, with the settings that it comes with, and how much it and the machine have to do.

use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};

/// A running server. It ends with this process, however that ends.
pub(crate) struct Cluster {
    directory: tempfile::TempDir,
    port: u16,
    server: Child,
    pool: PgPool,
}

/// What the server has done so far.
pub(crate) struct Work {
    /// Transactions that were committed.
    pub(crate) commits: f64,
    /// Syncs of the write-ahead log.
    pub(crate) syncs: f64,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let programs = programs();
        let directory = tempfile::tempdir().unwrap();
        // Postgres refuses to be root; then it is another user, who must get in.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let data = directory.path().join("data");
        let made = as_postgres(&programs.join("initdb"))
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status();
        assert!(made.expect("setpriv, of util-linux").success(), "initdb failed");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = as_postgres(&programs.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-c", &format!("port={port}"), "-c", "listen_addresses=127.0.0.1"])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", data.display()))
            .stderr(File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(30));
        let pool = pool.connect(&url(port)).await.expect("Postgres answers");
        Self { directory, port, server, pool }
    }

    pub(crate) fn url(&self) -> String {
        url(self.port)
    }

    /// Which one, on what.
    pub(crate) async fn describe(&self) -> String {
        let mut settings = Vec::new();
        for name in ["server_version", "fsync", "full_page_writes", "wal_sync_method"] {
            settings.push(format!("{name}={}", self.setting(name).await));
        }
        let cores = std::thread::available_parallelism().unwrap();
        let sync = sync_time(self.directory.path());
        format!("{}\n{cores} cores; 8 KiB written and synced: {sync:.2} ms (median)", settings.join(", "))
    }

    /// Whether commits wait until they are on the disk. Holds for connections that are there, too.
    pub(crate) async fn set_durable(&self, durable: bool) {
        let value = if durable { "on" } else { "off" };
        let statement = format!("ALTER SYSTEM SET synchronous_commit = {value}");
        sqlx::query(AssertSqlSafe(statement)).execute(&self.pool).await.unwrap();
        sqlx::query("SELECT pg_reload_conf()").execute(&self.pool).await.unwrap();
        while self.setting("synchronous_commit").await != value {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn setting(&self, name: &str) -> String {
        let setting = sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&self.pool);
        setting.await.unwrap()
    }

    /// What was done so far, while it has nothing to do.
    pub(crate) async fn work(&self) -> Work {
        // Backends tell at most once a second what they did.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let commits = "SELECT xact_commit::float8 FROM pg_stat_database WHERE datname = 'postgres'";
        let syncs = "SELECT wal_sync::float8 FROM pg_stat_wal";
        Work {
            commits: sqlx::query_scalar(commits).fetch_one(&self.pool).await.unwrap(),
            syncs: sqlx::query_scalar(syncs).fetch_one(&self.pool).await.unwrap(),
        }
    }

    pub(crate) fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.server);
        // INT: without waiting for clients to leave.
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.server.wait().unwrap();
    }
}

fn url(port: u16) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/postgres")
}

/// Where `initdb` and `postgres` are: the newest that Debian has, or the `PATH`'s.
fn programs() -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<_> = std::env::split_paths(&path).collect();
    all.extend(debian.map(|entry| entry.unwrap().path().join("bin")));
    let found = all.into_iter().rfind(|directory| directory.join("initdb").exists());
    found.expect("a Postgres; install it: apt-get install postgresql")
}

/// A program as a user that is not root, which ends with us.
fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig", "INT"]).arg(program).stdin(Stdio::null());
    command
}

/// How long it takes to have a page on the disk, in milliseconds.
fn sync_time(directory: &Path) -> f64 {
    let mut file = File::create(directory.join("sync")).unwrap();
    let mut times: Vec<_> = (0..201)
        .map(|_| {
            let began = Instant::now();
            file.write_all(&[1; 8 << 10]).unwrap();
            file.sync_data().unwrap();
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

/// How long all cores together had nothing to do, since the machine was started. Source: `proc_stat(5)`.
pub(crate) fn idle_seconds() -> f64 {
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let fields: Vec<f64> =
        stat.lines().next().unwrap().split_whitespace().skip(1).map(|f| f.parse().unwrap()).collect();
    // Idle, and idle while a disk is busy.
    (fields[3] + fields[4]) / TICKS
}
