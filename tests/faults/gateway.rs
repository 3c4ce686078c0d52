//! The gateway dies, stands still, is replaced.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::gauges::eventually;
use crate::proxy::Moment;
use crate::shims::DataDir;
use crate::story::all_go_on;
use crate::witness::Manner;
use crate::world::World;

#[tokio::test]
async fn a_gateway_that_is_killed_at_fifty_instants_loses_nothing_and_doubles_nothing() {
    let mut world = World::new().await;
    let node = DataDir::new();
    let mut gateway = world.start(&node).await;
    let mut stories = Vec::new();
    for _ in 0..4 {
        stories.push(world.tell(1_500, 20).await);
    }
    let mut recoveries = Vec::new();
    let (mut events, mut connections) = (0, 0);
    let journal = world.journal().await;
    for _ in 0..50 {
        sleep(world.moment(50..900)).await;
        gateway.kill().await;
        let began = Instant::now();
        gateway = world.start(&node).await;
        all_go_on(&mut stories).await;
        recoveries.push(began.elapsed());
        // What was told to its end makes room for another.
        for story in &mut stories {
            if story.is_over() {
                let story = std::mem::replace(story, world.tell(1_500, 20).await);
                let outcome = story.check_whole(&journal).await;
                events += outcome.events;
                connections += outcome.connections;
            }
        }
    }
    for story in stories {
        let outcome = story.check_whole(&journal).await;
        events += outcome.events;
        connections += outcome.connections;
    }
    recoveries.sort_unstable();
    println!("50 kills: {events} events over {connections} connections, none lost, none doubled");
    println!("all sessions live again after a start: {:?} (median), {:?} at most", recoveries[25], recoveries[49]);
    gateway.stop().await;
}

#[tokio::test]
async fn a_gateway_that_is_killed_around_its_commit_loses_nothing_and_doubles_nothing() {
    let mut world = World::new().await;
    let node = DataDir::new();
    let mut gateway = world.start(&node).await;
    let mut story = world.tell(1_500, 10).await;
    story.until_seen(20).await;
    for round in 0..12 {
        // Before: what the agent said is in no journal. After: it is, and nobody has been told; what the gateway
        // may have written to its clients is swallowed too.
        let moment = if round % 2 == 0 { Moment::Before } else { Moment::After };
        let held = world.to_postgres.hold_commit(moment).await;
        if round % 4 == 3 {
            // The gateway hears of its commit, and dies before a client hears of the event.
            world.front.swallow(true);
            let commits = "streamgate_journal_commit_events_count";
            let before = gateway.metric(commits).await;
            held.release();
            eventually("it hears of it", async || gateway.metric(commits).await > before).await;
            gateway.kill().await;
            world.front.reset_all();
            world.front.swallow(false);
        } else {
            gateway.kill().await;
            drop(held);
        }
        gateway = world.start(&node).await;
        story.until_seen(story.seen() + 5).await;
    }
    let outcome = story.check_whole(&world.journal().await).await;
    println!("12 kills around a commit: {} events, none lost, none doubled", outcome.events);
    gateway.stop().await;
}

/// Of an agent that says nothing: nothing else tells how long it has worked.
#[tokio::test]
async fn the_time_that_a_silent_task_has_worked_outlives_its_gateway() {
    let mut world = World::new().await;
    let node = DataDir::new();
    let mut gateway = world.start(&node).await;
    let story = world.tell_to(&[Manner::Steady], 0, "/hang".to_owned(), None).await;
    let journal = world.journal().await;
    let worked = async || -> i64 {
        let select = "SELECT COALESCE((run_state::json ->> 'worked_ms')::bigint, 0) FROM sessions WHERE id = $1";
        sqlx::query_scalar(select).bind(&story.session).fetch_one(&journal).await.unwrap()
    };
    for _ in 0..2 {
        let before = worked().await;
        gateway.kill().await;
        gateway = world.start(&node).await;
        eventually("it works on", async || {
            let now = worked().await;
            assert!(now >= before, "{now} ms after {before} ms");
            now > before + 6_000
        })
        .await;
    }
    gateway.stop().await;
}

/// 60 s, four times the lease.
#[tokio::test]
async fn a_gateway_that_stood_still_while_another_took_over_commits_nothing_more() {
    let mut world = World::new().await;
    let (one, two) = (DataDir::new(), DataDir::new());
    let first = world.start(&one).await;
    let second = world.start_aside(&two).await;
    let mut story = world.tell(4_500, 20).await;
    story.until_seen(50).await;
    let journal = world.journal().await;
    let epoch = async || -> i64 {
        let epoch = sqlx::query_scalar("SELECT epoch FROM sessions WHERE id = $1").bind(&story.session);
        epoch.fetch_one(&journal).await.unwrap()
    };
    let before = epoch().await;

    first.signal(rustix::process::Signal::STOP);
    let stopped_at = Instant::now();
    world.front.lead_to(Some(second.address));
    world.front.reset_all();
    let mut following = story.progress.clone();
    let seen = *following.borrow();
    tokio::time::timeout(crate::world::PATIENCE, following.wait_for(|now| *now > seen + 5)).await.unwrap().unwrap();
    println!("another gateway went on after {:?}", stopped_at.elapsed());
    let taken_over = epoch().await;
    assert!(taken_over > before, "{taken_over} follows {before}");

    tokio::time::sleep_until(stopped_at + Duration::from_mins(1)).await;
    first.signal(rustix::process::Signal::CONT);
    // It finds out, and serves the session's readers on: from the journal, like anybody.
    let mut aside = world.door();
    aside.address = first.address;
    let resume = serde_json::json!({"type": "session.resume", "session_id": story.session, "tail": 1});
    assert_eq!(aside.ask(resume).await["type"], "session.replay_start");
    assert_eq!(epoch().await, taken_over, "it does not take the session back");
    // And on: what the other commits is seen here too.
    world.follow(&mut story, &aside, Manner::Patient);
    story.check_whole(&journal).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_gateway_that_stands_still_in_the_middle_of_a_commit_keeps_nobody_from_taking_over() {
    let mut world = World::new().await;
    let (one, two) = (DataDir::new(), DataDir::new());
    let first = world.start(&one).await;
    let mut story = world.tell(1_500, 20).await;
    story.until_seen(20).await;
    // Its transaction is open in the database, with the session's row locked.
    let held = world.to_postgres.hold_commit(Moment::Before).await;
    first.signal(rustix::process::Signal::STOP);
    let stopped_at = Instant::now();
    let second = world.start_aside(&two).await;
    world.front.lead_to(Some(second.address));
    world.front.reset_all();
    story.until_seen(story.seen() + 5).await;
    println!("another gateway went on after {:?}", stopped_at.elapsed());
    first.signal(rustix::process::Signal::CONT);
    drop(held);
    story.check_whole(&world.journal().await).await;
    first.stop().await;
    second.stop().await;
}

/// Its agent had nothing to do, so nothing told the first gateway that the session is another's.
#[tokio::test]
async fn a_gateway_that_comes_back_leaves_alone_what_another_uses_now() {
    let mut world = World::new().await;
    world.set("RUNTIME__IDLE_STOP_SECONDS", "20");
    let (one, two) = (DataDir::new(), DataDir::new());
    let first = world.start(&one).await;
    let second = world.start_aside(&two).await;
    let story = world.tell_to(&[Manner::Steady], 5, "/tokens 5 1".to_owned(), None).await;
    let session = story.session.clone();
    let journal = world.journal().await;
    story.check_whole(&journal).await;
    let claims = async || -> i64 {
        let epoch = sqlx::query_scalar("SELECT epoch FROM sessions WHERE id = $1").bind(&session);
        epoch.fetch_one(&journal).await.unwrap()
    };
    let before = claims().await;
    first.signal(rustix::process::Signal::STOP);
    world.front.lead_to(Some(second.address));
    eventually("the session has another owner", async || claims().await > before).await;

    let at_work = async || -> bool {
        let running = "SELECT EXISTS (SELECT 1 FROM tasks WHERE session_id = $1 AND state = 'running')";
        sqlx::query_scalar(running).bind(&session).fetch_one(&journal).await.unwrap()
    };
    let come_back = async {
        eventually("the agent has something to do", at_work).await;
        first.signal(rustix::process::Signal::CONT);
        // By its clock the agent has been idle for too long: it would take the box away.
        eventually("it is told that the session is not its own", async || first.log().contains("was refused")).await;
    };
    let (said, ()) = tokio::join!(world.hear(&session, "/tokens 1500 10"), come_back);
    assert!(said.ends_with("t1500 "), "{said}");
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_batch_whose_gateway_died_between_its_end_and_that_of_its_session_is_closed() {
    let mut world = World::new().await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let submit =
        serde_json::json!({"type": "task.submit", "mode": "batch", "prompt": "/say x", "idempotency_key": "b"});
    let session = world.door().ask(submit).await["session_id"].as_str().unwrap().to_owned();
    let journal = world.journal().await;
    let is_closed = async || -> bool {
        let closed = "SELECT status = 'closed' FROM sessions WHERE id = $1";
        sqlx::query_scalar(closed).bind(&session).fetch_one(&journal).await.unwrap()
    };
    eventually("the batch is over", is_closed).await;
    gateway.kill().await;

    // What the journal holds when the task's end has committed, and no more.
    let mut back = journal.begin().await.unwrap();
    for undo in [
        "DELETE FROM events USING sessions WHERE session_id = id AND seq = last_seq AND frame LIKE '%session.closed%'
         AND id = $1",
        "UPDATE sessions SET status = 'active', ending = 'batch_done', last_seq = last_seq - 1 WHERE id = $1",
    ] {
        assert_eq!(sqlx::query(undo).bind(&session).execute(&mut *back).await.unwrap().rows_affected(), 1, "{undo}");
    }
    back.commit().await.unwrap();
    let gateway = world.start(&node).await;
    eventually("it is closed", is_closed).await;
    let last = "SELECT frame FROM events WHERE session_id = $1 ORDER BY seq DESC LIMIT 1";
    let last: String = sqlx::query_scalar(last).bind(&session).fetch_one(&journal).await.unwrap();
    assert!(last.contains("batch_done"), "{last}");
    gateway.stop().await;
}
