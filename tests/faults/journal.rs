//! The database dies, freezes, goes dumb, loses a reply, takes nothing in, has no room.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::time::{Instant, sleep, sleep_until};

use crate::postgres::{Postgres, children};
use crate::program::Program;
use crate::proxy::Moment;
use crate::shims::DataDir;
use crate::story::Story;
use crate::witness::{Line, Manner};
use crate::world::{PATIENCE, World, eventually};

/// A gateway at work when its database is about to fail it, and a client that has been connected for long.
struct Stage {
    world: World,
    gateway: Program,
    story: Story,
    line: Line,
    _node: DataDir,
}

impl Stage {
    async fn set(mut world: World, words: usize, every: u64) -> Self {
        let node = DataDir::new();
        let gateway = world.start(&node).await;
        let mut story = world.tell(words, every).await;
        let line = world.door().line().await;
        story.until_seen(100).await;
        Self { world, gateway, story, line, _node: node }
    }

    /// Soon after the outage has begun, new work is refused, with a hint when to come back, on a connection that
    /// stays open.
    async fn refuses_new_work(&mut self) {
        let refused = async {
            // What is asked before the journal knows waits for it, and runs in the end.
            for number in 0.. {
                let submit = json!({"type": "task.submit", "prompt": "/say late", "request_id": number.to_string()});
                self.line.send(&submit).await;
                let soon = tokio::time::timeout(Duration::from_secs(1), self.line.next()).await;
                if let Ok(frame) = soon
                    && frame["code"] == "STORAGE_UNAVAILABLE"
                {
                    assert!(frame["retry_after_ms"].is_u64(), "{frame}");
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, refused).await.expect("a refusal in time");
    }

    /// After an outage that ended `since` then: all that the agent said is there, once; new work is taken, on the
    /// connection that was open all the time.
    async fn goes_on(mut self, since: Instant) {
        self.story.until_seen(self.story.seen() + 1).await;
        let again = since.elapsed();
        self.line.send(&json!({"type": "ping", "request_id": "alive"})).await;
        self.line.until(|frame| frame["request_id"] == "alive").await;
        let submit = json!({"type": "task.submit", "prompt": "/say on", "request_id": "again"});
        let taken = async {
            loop {
                self.line.send(&submit).await;
                let reply = self.line.until(|frame: &Value| frame["request_id"] == "again").await;
                if reply["type"] == "session.ready" {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, taken).await.expect("new work is taken in time");
        let outcome = self.story.check_whole(&self.world.journal().await).await;
        println!("seen again {again:?} after the outage; {} events, none lost, none doubled", outcome.events);
        self.gateway.stop().await;
    }
}

#[tokio::test]
async fn a_database_that_crashes_and_comes_back_costs_nothing_but_time() {
    let mut stage = Stage::set(World::new().await, 2_500, 10).await;
    for _ in 0..3 {
        stage.story.until_seen(stage.story.seen() + 100).await;
        stage.world.postgres.crash();
        stage.refuses_new_work().await;
        sleep(stage.world.moment(0..2_000)).await;
        stage.world.postgres.up();
    }
    stage.goes_on(Instant::now()).await;
}

/// 20 s: longer than every deadline of a statement.
#[tokio::test]
async fn a_database_that_is_frozen_costs_nothing_but_time() {
    let mut stage = Stage::set(World::new().await, 3_000, 10).await;
    stage.world.postgres.freeze();
    let frozen_at = Instant::now();
    stage.refuses_new_work().await;
    sleep_until(frozen_at + Duration::from_secs(20)).await;
    stage.world.postgres.thaw();
    stage.goes_on(Instant::now()).await;
}

/// Packets go and none comes back, on old connections and on new ones.
#[tokio::test]
async fn a_database_behind_a_black_hole_costs_nothing_but_time() {
    let mut stage = Stage::set(World::new().await, 3_000, 10).await;
    stage.world.to_postgres.swallow(true);
    let began = Instant::now();
    stage.refuses_new_work().await;
    sleep_until(began + Duration::from_secs(20)).await;
    stage.world.to_postgres.swallow(false);
    stage.goes_on(Instant::now()).await;
}

/// For longer than a lease: each finds that those of the other have run out.
#[tokio::test]
async fn gateways_keep_their_sessions_and_viewers_when_their_database_was_away_for_long() {
    let mut world = World::new().await;
    let (one, two) = (DataDir::new(), DataDir::new());
    let first = world.start(&one).await;
    let mut stories = vec![world.tell_to(&[Manner::Patient], 3_500, "/tokens 3500 10".to_owned(), None).await];
    let second = world.start_aside(&two).await;
    world.front.lead_to(Some(second.address));
    stories.push(world.tell_to(&[Manner::Patient], 3_500, "/tokens 3500 10".to_owned(), None).await);
    for story in &mut stories {
        story.until_seen(100).await;
    }
    let owners = async || -> Vec<String> {
        let owners = sqlx::query_scalar("SELECT owner_node FROM sessions ORDER BY id");
        owners.fetch_all(&world.journal().await).await.unwrap()
    };
    let before = owners().await;
    world.postgres.crash();
    sleep(Duration::from_secs(20)).await;
    world.postgres.up();
    for story in &mut stories {
        story.until_seen(story.seen() + 500).await;
    }
    assert_eq!(owners().await, before, "all gateways are there");
    let journal = world.journal().await;
    for story in stories {
        let outcome = story.check_whole(&journal).await;
        assert_eq!(outcome.connections, 1, "it stayed where it was");
    }
    first.stop().await;
    second.stop().await;
}

/// As when a firewall has forgotten them, or the database has moved to another host: the kernel would go on trying for
/// a quarter of an hour.
#[tokio::test]
async fn connections_to_the_database_that_die_without_a_word_are_given_up() {
    let stage = Stage::set(World::new().await, 4_000, 10).await;
    // In the middle of a commit, more often than there are connections to write on.
    let mut never = Vec::new();
    for _ in 0..4 {
        never.push(stage.world.to_postgres.hold_commit(Moment::Before).await);
        stage.world.to_postgres.forsake();
    }
    stage.goes_on(Instant::now()).await;
}

/// Of an agent that talks: what it says fills the room that there is for what waits to be committed, long before its
/// time is up.
#[tokio::test]
async fn a_task_is_stopped_when_its_time_is_up_while_the_database_is_away() {
    let mut world = World::docker().await;
    let node = DataDir::new();
    world.set("PROFILES__SHELL__TIMEOUT_SECONDS", "10");
    let gateway = world.start(&node).await;
    let story = world.tell_shell(0, "speak 100000 0.005").await;
    let container = world.container(&story.session).await;
    eventually("it speaks", || container.noted() > 20).await;
    world.postgres.freeze();
    let shim = world.engine().shim(&container.name);
    eventually("it is stopped", || children(shim).is_empty()).await;
    world.postgres.thaw();
    let outcome = story.check(&world.journal().await).await;
    assert_eq!(outcome.end["type"], "task:failed", "{}", outcome.end);
    gateway.stop().await;
}

#[tokio::test]
async fn a_database_that_ends_our_connections_is_not_noticed() {
    let mut stage = Stage::set(World::new().await, 2_000, 10).await;
    let journal = stage.world.journal().await;
    for _ in 0..10 {
        stage.story.until_seen(stage.story.seen() + 50).await;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'streamgate'";
        journal.execute(end).await.unwrap();
        sleep(stage.world.moment(0..500)).await;
    }
    stage.goes_on(Instant::now()).await;
}

#[tokio::test]
async fn a_database_that_can_only_be_read_costs_nothing_but_time() {
    let mut stage = Stage::set(World::new().await, 2_000, 10).await;
    let journal = stage.world.journal().await;
    let read_only = async |on: bool| {
        let mut connection = journal.acquire().await.unwrap();
        connection.execute("SET default_transaction_read_only = off").await.unwrap();
        let setting = format!("ALTER SYSTEM SET default_transaction_read_only = {on}");
        connection.execute(AssertSqlSafe(setting)).await.unwrap();
        connection.execute("SELECT pg_reload_conf()").await.unwrap();
    };
    read_only(true).await;
    stage.refuses_new_work().await;
    sleep(stage.world.moment(1_000..3_000)).await;
    read_only(false).await;
    stage.goes_on(Instant::now()).await;
}

#[tokio::test]
async fn a_database_without_room_costs_nothing_but_time() {
    let mut stage = Stage::set(World::on(Postgres::start_on_disk_of(96)).await, 4_000, 5).await;
    let filler = stage.world.postgres.fill_disk();
    stage.refuses_new_work().await;
    sleep(stage.world.moment(1_000..3_000)).await;
    std::fs::remove_file(filler).unwrap();
    if !stage.world.postgres.is_up() {
        // Without room for its log Postgres gives up; somebody starts it again.
        stage.world.postgres.up();
    }
    stage.goes_on(Instant::now()).await;
}

#[tokio::test]
async fn a_commit_whose_reply_is_lost_happens_once() {
    let mut stage = Stage::set(World::new().await, 2_000, 10).await;
    for round in 0..20 {
        let moment = if round % 2 == 0 { Moment::After } else { Moment::Before };
        drop(stage.world.to_postgres.hold_commit(moment).await);
        stage.story.until_seen(stage.story.seen() + 10).await;
    }
    stage.goes_on(Instant::now()).await;
}
