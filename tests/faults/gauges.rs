//! What a gateway shows of itself: its metrics, and what the kernel counts of its process.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::program::Program;
use crate::world::PATIENCE;

/// The ticks of a second in `/proc/<pid>/stat`: the same on every Linux that we run on.
const TICKS: u64 = 100;

impl Program {
    /// A metric by its whole name, labels included.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let url = format!("http://{}/metrics", self.operators);
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value: f64 = line.unwrap_or_else(|| panic!("a metric `{name}`:\n{text}")).trim().parse().unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "these are counts")]
        return value as u64;
    }

    /// How many connections it has closed with a code; 1006: without a close frame.
    pub(crate) async fn closes(&self, code: u16) -> u64 {
        self.metric(&format!("streamgate_connections_closed_total{{code=\"{code}\"}}")).await
    }

    /// How many connections it has.
    pub(crate) async fn connections(&self) -> u64 {
        self.metric("streamgate_connections_open").await
    }

    /// Waits until it has so many connections and no more.
    pub(crate) async fn until_connections(&self, count: u64) {
        eventually(&format!("{count} connections"), async || self.connections().await == count).await;
    }

    /// Bytes of memory that it holds.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    }

    /// The time that it has computed.
    pub(crate) fn computed(&self) -> Duration {
        let stat = std::fs::read_to_string(self.proc("stat")).unwrap();
        // What follows the command, which is in parentheses; proc(5) counts from 1 and calls these 14 and 15.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1_000 / TICKS)
    }

    /// How many files it has open.
    pub(crate) fn open_files(&self) -> u64 {
        std::fs::read_dir(self.proc("fd")).unwrap().count() as u64
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.pid().as_raw_nonzero())
    }
}

/// Looks again and again until it is so, but not for ever.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "in time: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}
