//! The containers of a gateway under test, through the engine's own client.
#![allow(dead_code, reason = "each test binary uses what it needs")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't have its engine fails")]

use std::path::Path;

use crate::database::TestDatabase;

/// The demo agent around the binary under test.
pub(crate) const IMAGE: &str = "streamgate-demo-agent:test";

/// The containers of one gateway. They go with this, however the test ends.
pub(crate) struct Containers {
    instance: String,
}

impl Containers {
    /// Those of the gateway on this database, which must be Postgres. Fails without an engine or image.
    pub(crate) async fn of(database: &TestDatabase) -> Self {
        need_image().await;
        let pool = database.pool().await;
        let instance = sqlx::query_scalar("SELECT value FROM settings WHERE name = 'instance_id'");
        Self { instance: instance.fetch_one(&pool).await.unwrap() }
    }

    /// What there is, running or not: what `docker ps --all` shows, sorted by name.
    pub(crate) async fn names(&self) -> Vec<String> {
        self.list(&["--all"]).await
    }

    /// What runs.
    pub(crate) async fn up(&self) -> Vec<String> {
        self.list(&[]).await
    }

    /// What runs of a profile.
    pub(crate) async fn up_of(&self, profile: &str) -> Vec<String> {
        self.list(&["--filter", &format!("label=streamgate.profile={profile}")]).await
    }

    async fn list(&self, arguments: &[&str]) -> Vec<String> {
        let of_instance = format!("label=streamgate.instance={}", self.instance);
        let all = [&["ps", "--format", "{{.Names}}", "--filter", &of_instance], arguments].concat();
        let mut names: Vec<String> = docker(&all).await.unwrap().lines().map(str::to_owned).collect();
        names.sort_unstable();
        names
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        // The test may be panicking, on a runtime that is going away.
        let filter = format!("label=streamgate.instance={}", self.instance);
        let found = std::process::Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().unwrap();
        for id in String::from_utf8_lossy(&found.stdout).split_whitespace() {
            let _ = std::process::Command::new("docker").args(["rm", "-f", id]).output();
        }
    }
}

/// Fails with what to do when there is no engine or no image.
pub(crate) async fn need_image() {
    if let Err(error) = docker(&["image", "inspect", "--format", "{{.Id}}", IMAGE]).await {
        panic!("this test needs a Docker engine and the image `{IMAGE}`, which scripts/test builds: {error}");
    }
}

/// What the engine's client prints; its complaint when it fails.
pub(crate) async fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = tokio::process::Command::new("docker").args(arguments).output().await;
    let output = output.map_err(|error| format!("docker: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The engine's id of a container: another one of the same name has another.
pub(crate) async fn engine_id(name: &str) -> String {
    docker(&["inspect", "--format", "{{.Id}}", name]).await.unwrap()
}

/// A command line that no other process of this machine has, for a process that stays.
pub(crate) fn endless() -> String {
    format!("sleep 1000.{}", uuid::Uuid::now_v7().as_u128())
}

/// Whether a process with this command line runs anywhere on this machine.
pub(crate) fn runs(command: &str) -> bool {
    let command = command.replace(' ', "\0");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let line = |process: &Path| std::fs::read(process.join("cmdline")).unwrap_or_default();
    processes.map(|entry| line(&entry.path())).any(|line| line.strip_suffix(b"\0") == Some(command.as_bytes()))
}
