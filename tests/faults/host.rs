//! The host: its clock steps, is not its neighbour's, its files run out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::gauges::eventually;
use crate::program::Program;
use crate::shims::DataDir;
use crate::witness::Manner;
use crate::world::{PATIENCE, World};

/// Four times what a gateway takes to renew its leases, and longer than one lasts.
const LEASES: Duration = Duration::from_secs(20);

/// A wall clock that steps as the test says, for gateways that are started with it; monotonic time is left alone, as
/// the kernel leaves it.
struct Wall {
    directory: tempfile::TempDir,
    library: PathBuf,
}

impl Wall {
    fn new() -> Self {
        let library = std::fs::read_dir("/usr/lib").unwrap().filter_map(Result::ok);
        let library = library.map(|entry| entry.path().join("faketime/libfaketime.so.1")).find(|path| path.exists());
        let library = library.expect("this test steps a clock; install what it takes: apt-get install faketime");
        let wall = Self { directory: tempfile::tempdir().unwrap(), library };
        wall.step(0);
        wall
    }

    /// From now on it is this many seconds off.
    fn step(&self, seconds: i64) {
        // At once: the file is read at every look at the clock.
        let new = self.directory.path().join("new");
        std::fs::write(&new, format!("{seconds:+}s\n")).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("offset")
    }

    /// A gateway that goes by it. Clients are not led to it.
    async fn start(&self, world: &mut World, node: &DataDir) -> Program {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let faked = [
            ("LD_PRELOAD", text(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.file())),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        let settings = world.settings.clone();
        world.settings.extend(faked.map(|(name, value)| (name.to_owned(), value)));
        let gateway = world.start_aside(node).await;
        world.settings = settings;
        gateway
    }
}

async fn epoch(journal: &PgPool, session: &str) -> i64 {
    sqlx::query_scalar("SELECT epoch FROM sessions WHERE id = $1").bind(session).fetch_one(journal).await.unwrap()
}

/// The links in what a session has said by now, as a new replay has them.
async fn link(world: &World, session: &str) -> String {
    let mut line = world.door().line().await;
    line.send(&json!({"type": "session.resume", "session_id": session})).await;
    let text = line.until(|frame| frame.to_string().contains("_pvt=")).await.to_string();
    let start = text.find("http://").unwrap();
    text[start..].split([')', '"', '\\']).next().unwrap().to_owned()
}

async fn opens(link: &str) -> bool {
    reqwest::get(link).await.unwrap().status().is_success()
}

#[tokio::test]
async fn a_wall_clock_that_steps_under_a_gateway_at_work_changes_nothing_but_its_stamps() {
    let wall = Wall::new();
    let mut world = World::new().await;
    let (one, two) = (DataDir::new(), DataDir::new());
    let gateway = wall.start(&mut world, &one).await;
    world.front.lead_to(Some(gateway.address));
    // It would take what the first one seems to have given up.
    let second = world.start_aside(&two).await;
    let mut story = world.tell_to(&[Manner::Steady], 3_000, "/tokens 3000 10".to_owned(), None).await;
    story.until_seen(100).await;
    let submit = json!({"type": "task.submit", "prompt": "/image a.png", "idempotency_key": "image"});
    let pictures = world.door().ask(submit).await["session_id"].as_str().unwrap().to_owned();
    let first_link = link(&world, &pictures).await;
    assert!(opens(&first_link).await, "{first_link}");
    let journal = world.journal().await;
    let before = epoch(&journal, &story.session).await;

    // The last step is longer than a task may work, and than a link lives.
    for (seconds, lives) in [(-10, true), (0, true), (-3_600, true), (4_000, false)] {
        wall.step(seconds);
        story.until_seen(story.seen() + 300).await;
        assert_eq!(opens(&first_link).await, lives, "{seconds} s");
        assert!(opens(&link(&world, &pictures).await).await, "a replay's link is fresh");
        // What is new is taken in and gets an agent, under the token that there is.
        let other = world.tell_to(&[Manner::Steady], 20, "/tokens 20 1".to_owned(), None).await;
        let other = other.check_whole(&journal).await;
        assert_eq!(other.seen[0].connections, 1);
    }
    let after = story.check_whole(&journal).await;
    assert_eq!(after.seen[0].connections, 1, "nobody was cut off");
    let stamps: Vec<i64> = after.seen[0].events.iter().map(|(_, frame)| stamp(frame)).collect();
    let steps: Vec<i64> = stamps.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000).filter(|s| s.abs() >= 5).collect();
    println!("as the stamps have it, the clock stepped by {steps:?} s");
    assert!(steps.iter().any(|step| *step < -3_000) && steps.iter().any(|step| *step > 7_000), "{steps:?}");
    assert_eq!(gateway.panics() + second.panics(), 0);
    gateway.stop().await;
    second.stop().await;
    let epochs: Vec<i64> = sqlx::query_scalar("SELECT DISTINCT epoch FROM sessions").fetch_all(&journal).await.unwrap();
    assert_eq!((before, epochs), (1, vec![1]), "sessions stayed where they were");
}

fn stamp(frame: &str) -> i64 {
    serde_json::from_str::<Value>(frame).unwrap()["ts"].as_i64().unwrap()
}

/// Who owns a session is told by the database's clock, which both share.
async fn own_clocks(offset: i64) {
    let wall = Wall::new();
    wall.step(offset);
    let mut world = World::new().await;
    let (one, two) = (DataDir::new(), DataDir::new());
    let off = wall.start(&mut world, &one).await;
    let right = world.start_aside(&two).await;
    let journal = world.journal().await;
    let mut stories = Vec::new();
    for gateway in [&off, &right] {
        world.front.lead_to(Some(gateway.address));
        let mut story = world.tell_to(&[Manner::Steady], 1_500, "/tokens 1500 20".to_owned(), None).await;
        story.until_seen(10).await;
        stories.push(story);
    }
    sleep(LEASES).await;
    for story in &stories {
        assert_eq!(epoch(&journal, &story.session).await, 1, "each gateway keeps its own");
    }
    // And what is given up is taken, within the lease, a look, and a start.
    off.kill().await;
    let died_at = Instant::now();
    let seen = stories[0].seen();
    stories[0].until_seen(seen + 20).await;
    let taken_after = died_at.elapsed();
    println!("with clocks {offset} s apart, another gateway went on after {taken_after:?}");
    assert!(taken_after < Duration::from_secs(40), "{taken_after:?}");
    for story in stories {
        story.check_whole(&journal).await;
    }
    assert_eq!(right.panics(), 0);
    right.stop().await;
}

#[tokio::test]
async fn a_gateway_whose_clock_is_a_minute_slow_keeps_what_it_owns_until_it_dies() {
    own_clocks(-60).await;
}

#[tokio::test]
async fn a_gateway_whose_clock_is_a_minute_fast_takes_nothing_and_leaves_in_time_what_it_owned() {
    own_clocks(60).await;
}

/// How many files a gateway may open from now on, and before.
fn allow_files(gateway: &Program, files: Option<u64>) -> Option<u64> {
    // A gateway's hard limit is its parent's.
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(Some(gateway.pid()), Resource::Nofile, Rlimit { current: files, maximum }).unwrap().current
}

#[tokio::test]
async fn a_gateway_that_is_out_of_files_serves_on_without_a_spin_and_accepts_again_afterwards() {
    let mut world = World::new().await;
    world.set("RUNTIME__START_TIMEOUT_SECONDS", "5");
    world.set("PROFILES__DEMO__WARM", "0");
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let mut quiet = world.tell_to(&[Manner::Steady], 1_500, "/tokens 1500 20".to_owned(), None).await;
    // Its spool goes from file to file meanwhile: it waits, until there are files again.
    let loud = format!("/sleep 3000\n{}/tokens 10 1", "/big 1000000\n/sleep 300\n".repeat(20));
    let mut loud = world.tell_to(&[Manner::Steady], 10, loud, None).await;
    let mut line = world.door().line().await;
    quiet.until_seen(20).await;
    loud.until_seen(2).await;

    let before = allow_files(&gateway, Some(gateway.open_files() + 4));
    let mut crowd = Vec::new();
    for _ in 0..60 {
        // Straight at its door; they wait there, a few within.
        crowd.push(TcpStream::connect(gateway.address).await.unwrap());
    }
    let (computed, began, seen) = (gateway.computed(), Instant::now(), quiet.seen());
    quiet.until_seen(seen + 200).await;
    let (computed, wall) = (gateway.computed().saturating_sub(computed), began.elapsed());
    println!("out of files, it computed for {computed:?} in {wall:?}");
    assert!(computed < wall.mul_f64(0.7), "it spins: {computed:?} in {wall:?}");

    // New work: no agent is to be had, and that is said.
    line.send(&json!({"type": "task.submit", "prompt": "/say no", "request_id": "new"})).await;
    let refused = line.until(|frame| frame["request_id"] == "new").await;
    println!("{refused}");
    assert_eq!(refused["type"], "error", "{refused}");
    assert!(matches!(refused["code"].as_str(), Some("CAPACITY" | "STORAGE_UNAVAILABLE")), "{refused}");
    assert!(refused["retry_after_ms"].is_u64(), "{refused}");

    allow_files(&gateway, before);
    drop(crowd);
    let other = world.tell_to(&[Manner::Steady], 20, "/tokens 20 1".to_owned(), None);
    let other = tokio::time::timeout(PATIENCE, other).await.expect("it accepts again");
    let journal = world.journal().await;
    for story in [quiet, loud, other] {
        story.check_whole(&journal).await;
    }
    // Nothing is left of what was refused.
    eventually("no task is stuck", async || {
        let open: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM tasks WHERE ended_at IS NULL").fetch_one(&journal).await.unwrap();
        open == 0
    })
    .await;
    assert_eq!(gateway.panics(), 0);
    gateway.stop().await;
}
