//! Clients that vanish, break off, flap, read slowly or not at all, and resume wherever they like.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::Message;

use crate::gauges::eventually;
use crate::paced::Pace;
use crate::proxy::Proxy;
use crate::shims::DataDir;
use crate::story::Story;
use crate::witness::{Door, Manner, Seen, Socket};
use crate::world::{PATIENCE, World};

/// No event that is sent as it happens comes later, whatever others do. Generous: the machine may be busy.
const LATE: Duration = Duration::from_secs(10);

/// Who stayed saw everything as it happened, on one connection.
fn was_not_disturbed(seen: &Seen) {
    assert_eq!(seen.connections, 1, "{:?} was cut off", seen.manner);
    assert!(seen.lag < LATE, "{:?} had to wait for {:?}", seen.manner, seen.lag);
}

/// The socket of a client that follows a session live, with nothing read from it.
async fn follower(door: &Door, session: &str) -> Socket {
    let mut socket = door.connect(None).await.expect("a gateway that lets us in");
    let resume = json!({"type": "session.resume", "session_id": session, "tail": 1});
    socket.send(Message::text(resume.to_string())).await.unwrap();
    socket
}

#[tokio::test]
async fn a_client_that_vanishes_without_a_word_is_noticed_and_resumes_without_a_gap() {
    let mut world = World::new().await;
    world.set("LIMITS__PING_SECONDS", "1");
    world.set("LIMITS__DEAD_SECONDS", "3");
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let dark = Proxy::start().await;
    dark.lead_to(Some(gateway.address));
    let mut story = world.tell_to(&[Manner::Steady], 1_000, "/tokens 1000 10".to_owned(), None).await;
    let door = Door { address: dark.address, ..world.door() };
    let mut vanishing = world.follow(&mut story, &door, Manner::Steady);
    vanishing.wait_for(|seen| *seen > 50).await.unwrap();

    dark.swallow(true);
    let gone_at = Instant::now();
    eventually("the gateway gives it up", async || gateway.closes(4103).await == 1).await;
    let noticed = gone_at.elapsed();
    // After 3 s without a sign of life; who saw pongs in time was alive.
    assert!(noticed > Duration::from_secs(1) && noticed < Duration::from_secs(3) + LATE, "after {noticed:?}");
    dark.reset_all();
    dark.swallow(false);

    let outcome = story.check_whole(&world.journal().await).await;
    was_not_disturbed(&outcome.seen[0]);
    assert!(outcome.seen[1].connections > 1, "it came back");
    println!("a client without a sign of life was given up after {noticed:?}");
    gateway.until_connections(0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn connections_that_are_reset_in_the_middle_of_a_frame_leave_nothing_behind() {
    let mut world = World::new().await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let cutting = Proxy::start().await;
    cutting.lead_to(Some(gateway.address));
    let mut story = world.tell_to(&[Manner::Steady], 1_000, "/tokens 1000 10".to_owned(), None).await;
    let door = Door { address: cutting.address, ..world.door() };
    let mut cut = world.follow(&mut story, &door, Manner::Steady);
    cut.wait_for(|seen| *seen > 10).await.unwrap();
    gateway.until_connections(2).await;
    let files = gateway.open_files();

    // A text frame of 100 bytes, masked (RFC 6455 §5.2), of which half comes.
    let half = [&[0x81, 0x80 | 0x64, 1, 2, 3, 4][..], &[b'x'; 50]].concat();
    for _ in 0..20 {
        let mut socket = follower(&world.door(), &story.session).await.into_inner().into_inner();
        socket.write_all(&half).await.unwrap();
        socket.set_zero_linger().unwrap();
        drop(socket);
    }
    for _ in 0..10 {
        let seen = *cut.borrow();
        cutting.cut_next();
        cut.wait_for(|now| *now > seen + 5).await.unwrap();
    }
    gateway.until_connections(2).await;
    // The files of its connections to the database come and go.
    eventually("their files are closed", async || gateway.open_files() <= files + 5).await;

    let outcome = story.check_whole(&world.journal().await).await;
    was_not_disturbed(&outcome.seen[0]);
    // Some were cut before they were open.
    println!("{} open connections were cut", outcome.seen[1].connections - 1);
    assert!(outcome.seen[1].connections > 3, "it was cut off again and again");
    gateway.until_connections(0).await;
    assert_eq!(gateway.panics(), 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_flaps_ten_times_a_second_disturbs_nobody_and_misses_nothing() {
    let mut world = World::new().await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let manners = [Manner::Steady, Manner::Fluttering];
    let story = world.tell_to(&manners, 1_500, "/tokens 1500 10".to_owned(), None).await;
    let began = Instant::now();
    let outcome = story.check_whole(&world.journal().await).await;
    let (steady, fluttering) = (&outcome.seen[0], &outcome.seen[1]);
    was_not_disturbed(steady);
    println!(
        "{} connections in {:?}; meanwhile no event came later than {:?}",
        fluttering.connections,
        began.elapsed(),
        steady.lag
    );
    assert!(fluttering.connections > 30, "{} connections are no flapping", fluttering.connections);
    gateway.until_connections(0).await;
    assert_eq!(gateway.panics(), 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_slow_reader_is_served_a_deaf_one_is_closed_and_neither_costs_memory_or_delays_others() {
    const EVENTS: usize = 20;
    let mut world = World::new().await;
    world.set("LIMITS__STALL_SECONDS", "10");
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    // Time to set the pace, 20 MB in large events, then time.
    let prompt = format!("/sleep 2000\n{}/tokens 1200 20", "/big 1000000\n".repeat(EVENTS));
    let mut story = world.tell_to(&[Manner::Steady], 1_200, prompt, None).await;
    let paces = [Pace::free(), Pace::free()];
    for pace in &paces {
        // Straight to the gateway: a proxy would read for them.
        let door = Door { address: gateway.address, pace: pace.clone(), ..world.door() };
        let mut seen = world.follow(&mut story, &door, Manner::Patient);
        seen.wait_for(|seen| *seen > 1).await.unwrap();
    }
    let memory = gateway.memory();
    // In proportion: 1 KB/s where the limit is what it is by default.
    paces[0].set(3_000);
    paces[1].set(0);

    let began = Instant::now();
    let mut most = 0;
    // Twice as long as the deaf one may take, whose last progress is of the stall's first half.
    while began.elapsed() < Duration::from_secs(25) {
        most = most.max(gateway.memory());
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(gateway.closes(4102).await, 1, "who reads 3 KB/s makes progress");
    println!("memory: {} KiB, at most {} KiB more", memory >> 10, most.saturating_sub(memory) >> 10);
    assert!(most < memory + (64 << 20), "{most} bytes, {memory} before");

    for pace in &paces {
        pace.set(usize::MAX);
    }
    let outcome = story.check_whole(&world.journal().await).await;
    was_not_disturbed(&outcome.seen[0]);
    assert_eq!(outcome.seen[1].connections, 1, "the slow one stayed");
    assert_eq!(outcome.seen[2].connections, 2, "the deaf one came back");
    assert_eq!(gateway.panics(), 0);
    gateway.stop().await;
}

/// Checks what one connection hears of a session: whatever it resumes from, each replay and what follows it is
/// exact.
struct Seam {
    socket: Socket,
    session: String,
    /// What is not for us: of admins.
    hidden: Vec<i64>,
    /// The `seq` heard last; `None` before the first replay.
    at: Option<i64>,
    /// Of the replay under way: where it ends, and how many of its frames have come.
    replaying: Option<(i64, i64)>,
}

impl Seam {
    async fn open(door: &Door, session: &str, hidden: &[i64]) -> Self {
        let socket = door.connect(None).await.expect("a gateway that lets us in");
        Self { socket, session: session.to_owned(), hidden: hidden.to_vec(), at: None, replaying: None }
    }

    async fn resume(&mut self, from: Value) {
        let mut frame = json!({"type": "session.resume", "session_id": self.session, "request_id": "r"});
        frame.as_object_mut().unwrap().extend(from.as_object().unwrap().clone());
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The next frame, which must be what follows from those before it.
    async fn next(&mut self) -> Value {
        let next = tokio::time::timeout(PATIENCE, async {
            loop {
                match self.socket.next().await.expect("the connection is open").expect("the connection works") {
                    Message::Text(text) => break serde_json::from_str::<Value>(&text).unwrap(),
                    Message::Ping(_) | Message::Pong(_) => (),
                    other => panic!("expected a frame, got {other:?}"),
                }
            }
        });
        let frame = next.await.expect("a frame in time");
        if let Some(seq) = frame["seq"].as_i64() {
            let expected = self.following(self.at.expect("no event comes before a replay"));
            assert_eq!(seq, expected, "{frame}");
            self.at = Some(seq);
            if let Some((until, count)) = &mut self.replaying {
                assert!(seq <= *until, "{seq} follows the head, {until}, and comes before the replay's end");
                *count += 1;
            }
        }
        match frame["type"].as_str().unwrap() {
            "session.replay_start" => {
                assert_eq!(frame["request_id"], "r", "{frame}");
                let (after, last) = (frame["after_seq"].as_i64().unwrap(), frame["last_seq"].as_i64().unwrap());
                assert!(after <= last, "{frame}");
                self.at = Some(after);
                self.replaying = Some((last, 0));
            }
            "session.replay_end" => {
                let (until, count) = self.replaying.take().expect("a replay has begun");
                assert_eq!((frame["last_seq"].as_i64(), frame["count"].as_i64()), (Some(until), Some(count)));
                assert!(self.following(self.at.unwrap()) > until, "the replay stops short at {:?}: {frame}", self.at);
                self.at = self.at.max(Some(until));
            }
            _ => (),
        }
        frame
    }

    /// The `seq` that we see after this one.
    fn following(&self, seq: i64) -> i64 {
        let mut next = seq + 1;
        while self.hidden.contains(&next) {
            next += 1;
        }
        next
    }

    async fn until(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }
}

/// Where somebody may resume from, as chance has it.
fn anywhere(world: &mut World, head: i64) -> Value {
    match world.chance.random_range(0..40) {
        0 => json!({}),
        1 => json!({"tail": head + world.chance.random_range(0..100)}),
        2 => json!({"after_seq": world.chance.random_range(0..=head)}),
        3..10 => json!({"after_seq": head}),
        10..20 => json!({"tail": world.chance.random_range(0..100)}),
        20..30 => json!({"tail": world.chance.random_range(0..600)}),
        _ => json!({"after_seq": head - world.chance.random_range(0..=head.min(400))}),
    }
}

/// A session that says a thousand words a second or so, and what of it is not for us.
async fn fast_story(world: &mut World, words: usize) -> (Story, Vec<i64>) {
    let mut story = world.tell_to(&[Manner::Steady], words, format!("/tokens {words} 1"), None).await;
    story.until_seen(100).await;
    let hidden = sqlx::query_scalar("SELECT seq FROM events WHERE session_id = $1 AND audience = 2");
    let hidden = hidden.bind(&story.session).fetch_all(&world.journal().await).await.unwrap();
    (story, hidden)
}

#[tokio::test]
async fn every_replay_of_a_session_at_work_meets_what_is_live_without_a_seam() {
    let mut world = World::new().await;
    world.set("LIMITS__FRAMES_PER_SECOND", "10000");
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let (story, hidden) = fast_story(&mut world, 25_000).await;
    let door = world.door();
    let mut again = Seam::open(&door, &story.session, &hidden).await;
    let (mut alone, mut together) = (0, 0);
    let began = Instant::now();
    while !story.is_over() && alone < 150 {
        // On a connection of its own, to the replay's end and a little further.
        let head = i64::try_from(story.seen()).unwrap();
        let mut seam = Seam::open(&door, &story.session, &hidden).await;
        seam.resume(anywhere(&mut world, head)).await;
        seam.until("session.replay_end").await;
        for _ in 0..world.chance.random_range(0..5) {
            if story.is_over() {
                break;
            }
            seam.next().await;
        }
        alone += 1;
        // And on the same connection, whatever it is doing.
        again.resume(anywhere(&mut world, head)).await;
        again.until("session.replay_start").await;
        for _ in 0..world.chance.random_range(0..20) {
            if story.is_over() {
                break;
            }
            again.next().await;
        }
        together += 1;
    }
    println!("{alone} resumes on connections of their own and {together} on one, in {:?}", began.elapsed());
    assert!(alone >= 30, "{alone} resumes are few");
    // The last one goes on to the session's end.
    again.resume(json!({"tail": 100})).await;
    again.until("session.replay_start").await;
    again.until("task:done").await;
    let outcome = story.check_whole(&world.journal().await).await;
    was_not_disturbed(&outcome.seen[0]);
    assert_eq!(gateway.panics(), 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_cursor_that_cannot_be_is_refused_in_words_and_moves_nothing() {
    let mut world = World::new().await;
    world.set("LIMITS__FRAMES_BURST", "1000");
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let (story, hidden) = fast_story(&mut world, 3_000).await;
    let mut seam = Seam::open(&world.door(), &story.session, &hidden).await;
    seam.resume(json!({"tail": 1})).await;
    seam.until("session.replay_end").await;
    let ahead = [json!(1_000_000), json!(1_u64 << 53), json!((1_u64 << 53) + 1), json!(i64::MAX)];
    let no_position =
        [json!(-1), json!(i64::MIN), json!(1.5), json!(1e300), json!("7"), json!(true), json!([]), json!({})];
    let either = [json!(1_u64 << 63), json!(u64::MAX)];
    let cases = ahead.iter().map(|cursor| (json!({"after_seq": cursor}), &["CURSOR_AHEAD"][..]));
    let cases = cases.chain(no_position.iter().flat_map(|cursor| {
        [json!({"after_seq": cursor}), json!({"tail": cursor})].map(|from| (from, &["VALIDATION_FAILED"][..]))
    }));
    let cases = cases.chain(either.iter().map(|cursor| {
        let codes = &["CURSOR_AHEAD", "VALIDATION_FAILED"][..];
        (json!({"after_seq": cursor}), codes)
    }));
    let cases = cases.chain([(json!({"after_seq": 1, "tail": 1}), &["VALIDATION_FAILED"][..])]);
    for (from, codes) in cases {
        seam.resume(from.clone()).await;
        // What is live goes on meanwhile, and no replay begins.
        let error = loop {
            let frame = seam.next().await;
            assert_ne!(frame["type"], "session.replay_start", "{from}");
            if frame["request_id"] == "r" {
                break frame;
            }
        };
        assert!(codes.contains(&error["code"].as_str().unwrap()), "{from}: {error}");
        if error["code"] == "CURSOR_AHEAD" {
            assert!(error["last_seq"].as_i64().unwrap() >= seam.at.unwrap(), "{error}");
        }
    }
    // More than there is of it is all of it.
    seam.resume(json!({"tail": 1_u64 << 53})).await;
    let start = seam.until("session.replay_start").await;
    assert_eq!(start["after_seq"], 0, "{start}");
    seam.until("task:done").await;
    story.check_whole(&world.journal().await).await;
    assert_eq!(gateway.panics(), 0);
    gateway.stop().await;
}
