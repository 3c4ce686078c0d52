//! The database dies, freezes, goes dumb, loses a reply, fills up.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::postgres::Postgres;
use crate::proxy::Moment;
use crate::shims::DataDir;
use crate::story::Story;
use crate::world::World;

/// A new submission is refused, says when to come back, and costs nobody the connection.
async fn new_work_is_refused(world: &World) {
    let submit = json!({"type": "task.submit", "prompt": "/say no", "request_id": "refused"});
    let reply = world.door().ask_once(&submit).await;
    let reply = reply.expect("a reply on a connection that is open");
    assert_eq!(reply["code"], "STORAGE_UNAVAILABLE", "{reply}");
    assert!(reply["retry_after_ms"].is_u64(), "{reply}");
}

/// After an outage: clients are at the head again within 5 s, and all that the agent said is there.
async fn catches_up(world: &World, mut story: Story, since: Instant) {
    let journal = world.journal().await;
    let seen = story.seen();
    story.until_seen(seen + 1).await;
    println!("seen again {:?} after the outage", since.elapsed());
    let outcome = story.check_whole(&journal).await;
    println!("{} events over {} connections, none lost, none doubled", outcome.events, outcome.connections);
}

#[tokio::test]
async fn a_database_that_crashes_and_comes_back_costs_nothing_but_time() {
    let mut world = World::new().await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let mut story = world.tell(2_500, 10).await;
    for _ in 0..3 {
        story.until_seen(story.seen() + 100).await;
        world.postgres.crash();
        sleep(world.moment(200..3_000)).await;
        world.postgres.up();
    }
    let up_at = Instant::now();
    catches_up(&world, story, up_at).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_database_that_is_frozen_for_twenty_seconds_costs_nothing_but_time() {
    let mut world = World::new().await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let mut story = world.tell(3_000, 10).await;
    story.until_seen(100).await;
    world.postgres.freeze();
    let frozen_at = Instant::now();
    tokio::time::sleep_until(frozen_at + Duration::from_secs(20)).await;
    world.postgres.thaw();
    catches_up(&world, story, Instant::now()).await;
    gateway.stop().await;
}
