//! Any fault at any instant, again and again: a short run among the tests, a long one by `scripts/soak`.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;
use sqlx::{Executor as _, PgPool};
use streamgate::domain::{Clock, Timestamp};
use tokio::time::{Instant, sleep};

use crate::program::Program;
use crate::proxy::Moment;
use crate::shims::DataDir;
use crate::story::{MANNERS, Story, all_go_on};
use crate::witness::Manner;
use crate::world::World;

/// What is done to a gateway at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillGateway,
    KillGatewayAtCommit,
    RestartGateway,
    CrashDatabase,
    FreezeDatabase,
    SwallowDatabase,
    EndDatabaseConnections,
    LoseCommitReply,
    ResetClients,
    SwallowClients,
}

const FAULTS: [Fault; 10] = [
    Fault::KillGateway,
    Fault::KillGatewayAtCommit,
    Fault::RestartGateway,
    Fault::CrashDatabase,
    Fault::FreezeDatabase,
    Fault::SwallowDatabase,
    Fault::EndDatabaseConnections,
    Fault::LoseCommitReply,
    Fault::ResetClients,
    Fault::SwallowClients,
];

/// How much is done. `scripts/soak` sets it.
struct Plan {
    minutes: f64,
    sessions: usize,
    /// Numbers a second that each session's agent says.
    rate: usize,
    /// For how long it says them.
    seconds: usize,
    faults: Vec<Fault>,
    manners: Vec<Manner>,
}

impl Plan {
    fn read() -> Self {
        let read = |name: &str, default: f64| {
            std::env::var(format!("STREAMGATE_SOAK_{name}")).map_or(default, |value| value.parse().unwrap())
        };
        let only_kills = std::env::var("STREAMGATE_SOAK_ONLY_KILLS").is_ok();
        let whole = |number: f64| number.to_string().parse().unwrap();
        Self {
            minutes: read("MINUTES", 0.75),
            sessions: whole(read("SESSIONS", 6.0)),
            rate: whole(read("RATE", 50.0)),
            seconds: whole(read("SECONDS", 30.0)),
            faults: if only_kills { vec![Fault::KillGateway] } else { FAULTS.to_vec() },
            manners: if only_kills { vec![Manner::Steady] } else { MANNERS.to_vec() },
        }
    }

    /// A session at work.
    async fn tell(&self, world: &mut World) -> Story {
        let (words, every) = (self.rate * self.seconds, 1_000 / self.rate);
        world.tell_to(&self.manners, words, format!("/tokens {words} {every}"), None).await
    }
}

/// What was checked so far.
#[derive(Default)]
struct Tally {
    sessions: usize,
    events: usize,
    connections: u32,
}

impl Tally {
    async fn check(&mut self, story: Story, world: &World) {
        let outcome = story.check_whole(&world.journal().await).await;
        self.sessions += 1;
        self.events += outcome.events;
        self.connections += outcome.connections;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_fault_at_any_instant_loses_nothing_and_doubles_nothing() {
    let plan = Plan::read();
    let mut world = World::new().await;
    let node = DataDir::new();
    world.set("RUNTIME__START_TIMEOUT_SECONDS", "120");
    let mut gateway = world.start(&node).await;
    let mut stories = Vec::new();
    for _ in 0..plan.sessions {
        stories.push(plan.tell(&mut world).await);
    }
    let mut tally = Tally::default();
    let mut recoveries: BTreeMap<Fault, Vec<Duration>> = BTreeMap::new();
    let (mut starts, clock) = (Vec::new(), Clock::default());
    let began = Instant::now();
    while began.elapsed().as_secs_f64() < plan.minutes * 60.0 {
        sleep(world.moment(200..2_000)).await;
        let fault = plan.faults[world.chance.random_range(0..plan.faults.len())];
        let over_at;
        (gateway, over_at) = suffer(fault, &mut world, gateway, &node).await;
        if fault == Fault::KillGateway {
            starts.push(Timestamp(clock.now().0 - i64::try_from(over_at.elapsed().as_millis()).unwrap()));
        }
        all_go_on(&mut stories).await;
        recoveries.entry(fault).or_default().push(over_at.elapsed());
        // What was told to its end makes room for another.
        for story in &mut stories {
            if story.is_over() {
                let told = std::mem::replace(story, plan.tell(&mut world).await);
                tally.check(told, &world).await;
            }
        }
    }
    for story in stories {
        tally.check(story, &world).await;
    }
    let Tally { sessions, events, connections } = tally;
    println!("{sessions} sessions, {events} events over {connections} connections: none lost, none doubled");
    for (fault, mut times) in recoveries {
        times.sort_unstable();
        let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
        println!(
            "{fault:?}: {} times; all sessions live again {median:.2?} after (median), {most:.2?} at most",
            times.len()
        );
    }
    let mut heard = heard_again(&world.journal().await, &starts).await;
    heard.sort_unstable();
    if let Some((median, _)) = heard.get(heard.len() / 2) {
        let slowest = heard.iter().rev().take(5).map(|(took, kill)| format!("{took:.2?} (kill {kill})"));
        let slowest = slowest.collect::<Vec<_>>().join(", ");
        println!("KillGateway: all agents heard again {median:.2?} after the start (median); the slowest: {slowest}");
    }
    gateway.stop().await;
}

/// How long after each of these starts of a gateway it took until something new of every agent at work was published,
/// by the time that its events bear, and which start it was.
async fn heard_again(journal: &PgPool, starts: &[Timestamp]) -> Vec<(Duration, usize)> {
    let published = "SELECT session_id, (frame::json ->> 'ts')::bigint FROM events ORDER BY session_id, seq";
    let mut sessions: BTreeMap<String, Vec<Timestamp>> = BTreeMap::new();
    for (session, ts) in sqlx::query_as::<_, (String, i64)>(published).fetch_all(journal).await.unwrap() {
        sessions.entry(session).or_default().push(Timestamp(ts));
    }
    let first_since = |start: Timestamp| {
        let at_work = sessions.values().filter(move |published| published.first().is_some_and(|first| *first < start));
        at_work.filter_map(move |published| published.iter().find(|ts| **ts >= start)).max().copied()
    };
    let starts = (1..).zip(starts);
    starts.filter_map(|(kill, start)| Some((first_since(*start)?.since(*start), kill))).collect()
}

/// Does it, and undoes it. Returns the gateway that is there then, and since when nothing is in its way.
async fn suffer(fault: Fault, world: &mut World, gateway: Program, node: &DataDir) -> (Program, Instant) {
    let over_at = match fault {
        Fault::KillGateway => {
            gateway.kill().await;
            return start(world, node).await;
        }
        Fault::KillGatewayAtCommit => {
            let moment = if world.chance.random() { Moment::Before } else { Moment::After };
            let held = world.to_postgres.hold_commit(moment).await;
            gateway.kill().await;
            drop(held);
            return start(world, node).await;
        }
        Fault::RestartGateway => {
            gateway.stop().await;
            return start(world, node).await;
        }
        Fault::CrashDatabase => {
            world.postgres.crash();
            sleep(world.moment(0..5_000)).await;
            world.postgres.up();
            Instant::now()
        }
        Fault::FreezeDatabase => {
            world.postgres.freeze();
            sleep(world.moment(100..12_000)).await;
            world.postgres.thaw();
            Instant::now()
        }
        Fault::SwallowDatabase => {
            world.to_postgres.swallow(true);
            sleep(world.moment(100..12_000)).await;
            world.to_postgres.swallow(false);
            Instant::now()
        }
        Fault::EndDatabaseConnections => {
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'streamgate'";
            world.journal().await.execute(end).await.unwrap();
            Instant::now()
        }
        Fault::LoseCommitReply => {
            drop(world.to_postgres.hold_commit(Moment::After).await);
            Instant::now()
        }
        Fault::ResetClients => {
            world.front.reset_all();
            Instant::now()
        }
        Fault::SwallowClients => {
            world.front.swallow(true);
            sleep(world.moment(100..5_000)).await;
            world.front.swallow(false);
            Instant::now()
        }
    };
    (gateway, over_at)
}

async fn start(world: &mut World, node: &DataDir) -> (Program, Instant) {
    let over_at = Instant::now();
    (world.start(node).await, over_at)
}
