//! Containers are killed, run out of memory, are removed and paused; their engine dies.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::docker::Container;
use crate::dockerd::Dockerd;
use crate::postgres::children;
use crate::shims::DataDir;
use crate::story::{Outcome, Story};
use crate::world::{World, eventually};

/// An agent that speaks until it is stopped. So slowly that its shim keeps up: what it has noted it has said, and
/// what it has said is in its spool, but for the number that it is at.
const SPEAK: &str = "speak 100000 0.03";

/// The task failed, in a way that may pass; gives the cause.
fn cause(end: &Value) -> &str {
    assert_eq!((&end["type"], &end["retryable"]), (&json!("task:failed"), &json!(true)), "{end}");
    end["error"].as_str().unwrap()
}

/// Its agent died while it spoke: all that it said is in the journal, then its end; the session goes on, with the
/// same files.
async fn was_heard_to_its_end(world: &mut World, story: Story, container: &Container) -> Outcome {
    let session = story.session.clone();
    let outcome = story.check(&world.journal().await).await;
    let noted = container.noted();
    assert!(outcome.said == noted || outcome.said + 1 == noted, "{} of {noted} numbers", outcome.said);
    assert_eq!(world.hear(&session, "text $(wc -l <said)").await, noted.to_string(), "the same workspace");
    println!("{}: {noted} numbers noted, {} in the journal", cause(&outcome.end), outcome.said);
    outcome
}

/// Three stories in mid-speech.
async fn speakers(world: &mut World) -> Vec<(Story, Container)> {
    let mut speakers = Vec::new();
    for _ in 0..3 {
        let story = world.tell_shell(0, SPEAK).await;
        let container = world.container(&story.session).await;
        speakers.push((story, container));
    }
    for (story, _) in &mut speakers {
        story.until_seen(story.seen() + 20).await;
    }
    speakers
}

#[tokio::test]
async fn a_container_that_is_killed_in_mid_speech_has_been_heard_to_its_last_word() {
    let mut world = World::docker().await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    for (story, container) in speakers(&mut world).await {
        sleep(world.moment(0..200)).await;
        world.engine().run(&["kill", &container.name]);
        let outcome = was_heard_to_its_end(&mut world, story, &container).await;
        assert_eq!(cause(&outcome.end), "Container exited 137");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_container_that_is_killed_or_removed_while_the_gateway_is_dead_is_heard_to_its_last_word() {
    let mut world = World::docker().await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let speakers = speakers(&mut world).await;
    gateway.kill().await;
    let noted: Vec<usize> = speakers.iter().map(|(_, container)| container.noted()).collect();
    eventually("they speak on", || {
        speakers.iter().zip(&noted).all(|((_, container), noted)| container.noted() > noted + 20)
    })
    .await;
    let [first, second, third] = [0, 1, 2].map(|number| speakers[number].1.name.clone());
    world.engine().run(&["kill", &first, &second]);
    world.engine().run(&["rm", "-f", &third]);

    let gateway = world.start(&node).await;
    let causes = ["Container exited 137", "Container exited 137", "Container is gone"];
    for ((story, container), expected) in speakers.into_iter().zip(causes) {
        let outcome = was_heard_to_its_end(&mut world, story, &container).await;
        assert_eq!(cause(&outcome.end), expected);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_container_that_is_removed_behind_our_back_has_been_heard_to_its_last_word() {
    let mut world = World::docker().await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    for (story, container) in speakers(&mut world).await {
        world.engine().run(&["rm", "-f", &container.name]);
        let outcome = was_heard_to_its_end(&mut world, story, &container).await;
        // How it ended may have been told before it was gone.
        assert!(["Container exited 137", "Container is gone"].contains(&cause(&outcome.end)), "{}", outcome.end);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_container_that_is_paused_goes_on_where_it_stood() {
    let mut world = World::docker().await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let mut story = world.tell(400, 10).await;
    let container = world.container(&story.session).await;
    story.until_seen(100).await;
    world.engine().run(&["pause", &container.name]);
    // What was said before may still be on its way.
    let mut seen = 0;
    while story.seen() > seen {
        seen = story.seen();
        sleep(Duration::from_secs(1)).await;
    }
    sleep(Duration::from_secs(3)).await;
    assert_eq!(story.seen(), seen, "nobody speaks");
    world.engine().run(&["unpause", &container.name]);
    story.check_whole(&world.journal().await).await;
    gateway.stop().await;
}

/// Nothing in it hears that it is to stop: it goes as a whole.
#[tokio::test]
async fn a_task_in_a_paused_container_can_be_cancelled() {
    let mut world = World::docker().await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let mut story = world.tell_shell(0, SPEAK).await;
    let container = world.container(&story.session).await;
    story.until_seen(20).await;
    world.engine().run(&["pause", &container.name]);
    let began = Instant::now();
    world.door().ask(json!({"type": "task.cancel", "task_id": story.task})).await;
    let session = story.session.clone();
    let outcome = story.check(&world.journal().await).await;
    println!("cancelled after {:?}", began.elapsed());
    assert_eq!(outcome.end["status"], "cancelled", "{}", outcome.end);
    assert_eq!(world.hear(&session, "text well").await, "well");
    gateway.stop().await;
}

#[tokio::test]
async fn who_runs_out_of_memory_fails_and_says_so_and_a_child_alone_does_not() {
    let mut world = World::docker().await;
    world.set("PROFILES__SHELL__MEMORY_BYTES", "33554432");
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let eat = "x=xxxxxxxx; while :; do x=$x$x; done";

    // A child of the agent.
    let story = world.tell_shell(40, "speak 20 0.02; tail /dev/zero; speak 20 0.02").await;
    let outcome = story.check_whole(&world.journal().await).await;
    println!("a child: {}", outcome.end["status"]);

    // The agent.
    let story = world.tell_shell(0, &format!("speak 20 0.02; {eat}")).await;
    let container = world.container(&story.session).await;
    let outcome = was_heard_to_its_end(&mut world, story, &container).await;
    assert_eq!((cause(&outcome.end), outcome.said), ("the container ran out of memory", 20));

    // The shim: the host makes it the kernel's first choice.
    let story = world.tell_shell(0, &format!("speak 20 0.02; await go; {eat}")).await;
    let container = world.container(&story.session).await;
    eventually("it has spoken", || container.noted() == 20).await;
    let shim = world.engine().shim(&container.name);
    for (pid, score) in children(shim).into_iter().map(|pid| (pid, "0")).chain([(shim, "1000")]) {
        std::fs::write(format!("/proc/{pid}/oom_score_adj"), score).expect("this test is run as root");
    }
    container.make("go");
    let outcome = was_heard_to_its_end(&mut world, story, &container).await;
    assert_eq!((cause(&outcome.end), outcome.said), ("the container ran out of memory", 20));
    gateway.stop().await;
}

#[tokio::test]
async fn an_engine_that_is_killed_and_restarted_is_not_noticed_by_agents() {
    let mut engine = Dockerd::start();
    let mut world = World::docker_at(&engine.socket()).await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let mut stories = Vec::new();
    for _ in 0..2 {
        stories.push(world.tell(800, 10).await);
    }
    let short = world.tell_shell(20, "await go; speak 20 0.02").await;
    let container = world.container(&short.session).await;
    let journal = world.journal().await;
    for _ in 0..3 {
        for story in &mut stories {
            story.until_seen(story.seen() + 50).await;
        }
        engine.kill();
        for story in &mut stories {
            story.until_seen(story.seen() + 50).await;
        }
        engine.up();
    }

    // While there is none: a turn that runs ends well, and who wants a new session hears when to ask again.
    engine.kill();
    container.make("go");
    let session = short.session.clone();
    short.check_whole(&journal).await;
    let began = Instant::now();
    let refused = world.door().ask_once(&json!({"type": "session.start", "request_id": "new"})).await.unwrap();
    println!("refused after {:?}: {refused}", began.elapsed());
    assert!(refused["retry_after_ms"].is_u64(), "{refused}");
    engine.up();
    for story in stories {
        let session = story.session.clone();
        story.check_whole(&journal).await;
        assert_eq!(world.hear(&session, "/say well").await, "well");
    }
    assert_eq!(world.hear(&session, "text $(wc -l <said)").await, "20");
    world.tell(20, 10).await.check_whole(&journal).await;
    gateway.stop().await;
}
