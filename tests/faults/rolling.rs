//! A rolling restart: two data directories, one Postgres, one directory for agents, a balancer before them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::Instant;

use crate::gauges::eventually;
use crate::program::Program;
use crate::shims::DataDir;
use crate::story::all_go_on;
use crate::witness::Manner;
use crate::world::World;

const SESSIONS: usize = 20;
const CLIENTS_PER_SESSION: usize = 50;
/// Each agent says a number twice a second.
const EVERY: u64 = 500;
const WORDS: usize = 100;

/// What a balancer asks: whether to send clients there.
async fn is_ready(gateway: &Program) -> bool {
    let answer = reqwest::get(format!("http://{}/health/ready", gateway.address)).await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

/// A client is three sockets here: its own, and the balancer's two.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let needed = limit.maximum.map_or(8_192, |hard| hard.min(8_192));
    if limit.current.is_some_and(|soft| soft < needed) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: limit.maximum }).unwrap();
    }
}

#[tokio::test]
async fn a_rolling_restart_is_one_reconnect_to_each_of_a_thousand_clients_and_nothing_to_agents() {
    raise_open_files();
    let mut world = World::new().await;
    let (one, two) = (DataDir::new(), DataDir::new());
    world.set("RUNTIME__START_TIMEOUT_SECONDS", "120");
    world.set("DRAIN_NOTICE_SECONDS", "5");
    let first = world.start(&one).await;
    let mut stories = Vec::new();
    for _ in 0..SESSIONS {
        let prompt = format!("/tokens {WORDS} {EVERY}");
        stories.push(world.tell_to(&[Manner::Steady; CLIENTS_PER_SESSION], WORDS, prompt, None).await);
    }
    let clients = (SESSIONS * CLIENTS_PER_SESSION) as u64;
    first.until_connections(clients).await;

    let second = world.start_aside(&two).await;
    first.terminate();
    let told_at = Instant::now();
    // A balancer sends who comes from now on elsewhere; who is connected stays until the gateway closes.
    eventually("it says that it drains", async || !is_ready(&first).await).await;
    assert!(is_ready(&second).await);
    assert_eq!(first.connections().await, clients, "it says so before it closes anything");
    world.front.lead_to(Some(second.address));
    first.stopped().await;
    let drained = told_at.elapsed();
    second.until_connections(clients).await;
    let back = told_at.elapsed();
    println!("drained in {drained:?}; {clients} clients were back after {back:?}");
    all_go_on(&mut stories).await;
    println!("all sessions live again after {:?}", told_at.elapsed());

    let journal = world.journal().await;
    let mut events = 0;
    for story in stories {
        let outcome = story.check_whole(&journal).await;
        assert_eq!(outcome.connections as usize, 2 * CLIENTS_PER_SESSION, "each client came back once");
        events += outcome.events;
    }
    println!("{events} events, none lost, none doubled");
    second.stop().await;
}
