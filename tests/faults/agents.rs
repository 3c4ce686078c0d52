//! Agents misbehave: they exit while nobody listens, flood, talk nonsense, don't listen, fall silent.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::docker::Container;
use crate::postgres::children;
use crate::program::Program;
use crate::shims::DataDir;
use crate::story::Story;
use crate::witness::Manner;
use crate::world::{World, eventually};

/// More than this a gateway with a few sessions never takes, whatever its agents do.
const MOST_MEMORY: usize = 400 << 20;

/// Within this others are served, whatever an agent does. Generous: agents, their gateway and what else the machine
/// does share its cores.
const SOON: Duration = Duration::from_secs(45);

/// The gateway has never taken more memory than it may (proc(5)).
fn stayed_small(gateway: &Program) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid().as_raw_pid())).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let bytes = most.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10;
    println!("the gateway took {} MiB at most", bytes >> 20);
    assert!(bytes < MOST_MEMORY, "{bytes}");
}

/// A session that is to notice nothing of what others do.
struct Bystander(Story, Instant);

impl Bystander {
    async fn in_the(world: &mut World) -> Self {
        Self(world.tell(500, 20).await, Instant::now())
    }

    /// It was told to its end, at its pace: 10 s. More on a busy machine, but not as if it had waited for others.
    async fn noticed_nothing(self, world: &World) {
        self.0.check_whole(&world.journal().await).await;
        println!("the bystander's 10 s took {:?}", self.1.elapsed());
        assert!(self.1.elapsed() < SOON, "{:?}", self.1.elapsed());
    }
}

/// The task failed: why, and how many numbers it had said.
async fn failed(world: &World, story: Story) -> (String, usize) {
    let outcome = story.check(&world.journal().await).await;
    assert_eq!(outcome.end["type"], "task:failed", "{}", outcome.end);
    println!("{} numbers, then {}", outcome.said, outcome.end["error"]);
    (outcome.end["error"].as_str().unwrap().to_owned(), outcome.said)
}

/// An agent that awaits the word to speak fast and to exit, with each of these codes.
async fn about_to_exit(world: &mut World) -> Vec<(Story, Container, i32)> {
    let mut exiting = Vec::new();
    for code in [0, 7] {
        let story = world.tell_shell(0, &format!("speak 10 0; await go; speak 500 0; exit {code}")).await;
        let container = world.container(&story.session).await;
        eventually("it speaks", || container.noted() == 10).await;
        exiting.push((story, container, code));
    }
    exiting
}

/// They are told to, and do.
async fn exit(world: &World, exiting: &[(Story, Container, i32)]) {
    for (_, container, _) in exiting {
        container.make("go");
    }
    for (_, container, _) in exiting {
        let shim = world.engine().shim(&container.name);
        eventually("the agent is gone", || children(shim).is_empty()).await;
        assert_eq!(container.noted(), 510);
    }
}

/// All that they had said is there, and their ends.
async fn were_heard(world: &mut World, exiting: Vec<(Story, Container, i32)>) {
    for (story, _, code) in exiting {
        let session = story.session.clone();
        assert_eq!(failed(world, story).await, (format!("Container exited {code}"), 510));
        assert_eq!(world.hear(&session, "text $(wc -l <said)").await, "510", "the same workspace");
    }
}

#[tokio::test]
async fn an_agent_that_exits_while_the_gateway_stands_still_or_is_dead_is_heard_to_its_end() {
    let mut world = World::docker().await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let exiting = about_to_exit(&mut world).await;
    gateway.signal(Signal::STOP);
    exit(&world, &exiting).await;
    gateway.signal(Signal::CONT);
    were_heard(&mut world, exiting).await;

    let exiting = about_to_exit(&mut world).await;
    gateway.kill().await;
    exit(&world, &exiting).await;
    let gateway = world.start(&node).await;
    were_heard(&mut world, exiting).await;
    gateway.stop().await;
}

#[tokio::test]
async fn an_agent_that_floods_is_heard_as_fast_as_the_journal_takes_it_and_disturbs_nobody() {
    let mut world = World::docker().await;
    world.set("PROFILES__SHELL__TIMEOUT_SECONDS", "4");
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let bystander = world.tell_to(&[Manner::Steady], 1, "/tokens 1".to_owned(), None).await;
    let session = bystander.session.clone();
    bystander.check_whole(&world.journal().await).await;
    let mut floods = Vec::new();
    for flood in ["speak 1000000000 0", "flood 1000000000 100000"] {
        floods.push(world.tell_to(&[Manner::Steady], 0, flood.to_owned(), Some("prof_shell")).await);
    }
    let mut turns = Vec::new();
    while !floods.iter().all(Story::is_over) {
        let began = Instant::now();
        assert_eq!(world.hear(&session, "/say well").await, "well");
        turns.push(began.elapsed());
    }
    turns.sort_unstable();
    let (median, slowest) = (turns[turns.len() / 2], turns[turns.len() - 1]);
    println!("{} turns of another session meanwhile, {median:?} each (median), {slowest:?} at most", turns.len());
    assert!(slowest < SOON, "{slowest:?}");
    for story in floods {
        assert_eq!(failed(&world, story).await.0, "timeout: the task worked for 4 s, its limit");
    }
    stayed_small(&gateway);
    gateway.stop().await;
}

/// 120 MB a piece; a spool holds 64 MiB.
#[tokio::test]
async fn an_agent_that_floods_while_the_gateway_is_dead_waits_and_is_heard_whole() {
    let mut world = World::docker().await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let mut flooding = Vec::new();
    for _ in 0..2 {
        let story = world.tell_shell(1_200, "await go; flood 1200 100000").await;
        let container = world.container(&story.session).await;
        flooding.push((story, container));
    }
    gateway.kill().await;
    for (_, container) in &flooding {
        container.make("go");
    }
    for (_, container) in &flooding {
        eventually("its spool is full", || container.spooled() >= 64 << 20).await;
        let noted = container.noted();
        sleep(Duration::from_secs(1)).await;
        assert!(container.noted() <= noted + 1, "it waits");
        println!("{noted} numbers, {} MiB", container.spooled() >> 20);
        assert!(container.spooled() < 69 << 20, "a segment more at most");
    }
    let gateway = world.start(&node).await;
    for (story, _) in flooding {
        story.check_whole(&world.journal().await).await;
    }
    stayed_small(&gateway);
    gateway.stop().await;
}

/// A gigabyte without a newline, lines of 8 MiB and of one byte more, and everything that is no text.
#[tokio::test]
async fn what_is_no_line_is_dropped_and_what_comes_after_is_heard() {
    let mut world = World::docker().await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let bystander = Bystander::in_the(&mut world).await;
    let story = world.tell_shell(12, "speak 5 0; speak_in 8388608; nonsense; speak_in 8388607; speak 5 0").await;
    story.check_whole(&world.journal().await).await;
    bystander.noticed_nothing(&world).await;
    stayed_small(&gateway);
    gateway.stop().await;
}

/// 96 MB of it; a spool holds 64 MiB.
#[tokio::test]
async fn an_agent_that_says_much_that_means_nothing_does_not_wait_for_a_word_that_does() {
    let mut world = World::docker().await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let script = "speak 5 0; for k in $(seq 12); do letters 8000000; echo; done; speak 5 0";
    world.tell_shell(10, script).await.check_whole(&world.journal().await).await;
    stayed_small(&gateway);
    gateway.stop().await;
}

#[tokio::test]
async fn an_agent_that_never_reads_or_closes_its_output_fails_alone() {
    let mut world = World::docker().await;
    world.set("PROFILES__SHELL__TIMEOUT_SECONDS", "5");
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let bystander = Bystander::in_the(&mut world).await;
    let deaf = Some("prof_deaf");
    // More than a pipe holds; then less, which the agent could still read.
    let long = world.tell_to(&[Manner::Steady], 0, "x".repeat(300_000), deaf).await;
    let closed = world.tell_shell(0, "speak 3 0; exec >&-; sleep 1000").await;
    let session = closed.session.clone();
    assert_eq!(failed(&world, closed).await, ("timeout: the task worked for 5 s, its limit".to_owned(), 3));
    assert_eq!(world.hear(&session, "text $(wc -l <said)").await, "3", "the same workspace");
    bystander.noticed_nothing(&world).await;
    assert_eq!(failed(&world, long).await.0, "the agent does not read its input");
    stayed_small(&gateway);
    gateway.stop().await;
}
