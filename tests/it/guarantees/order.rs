//! G2 In order, exactly once. G3 Replay then live.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::frames::{replay_texts, replay_texts_of, seq, seqs, text};
use crate::support::{Client, TestGateway, on_both, types};

/// Numbers without a pattern, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

/// The history by place, as it came.
async fn by_seq(client: &mut Client, session: &str) -> BTreeMap<u64, String> {
    let texts = replay_texts(client, session).await;
    texts.into_iter().map(|text| (seq(&serde_json::from_str(&text).unwrap()).unwrap(), text)).collect()
}

/// A client that comes and goes until it has seen the task's end: what it saw, in order.
async fn flap(gateway: &TestGateway, token: &str, extended: bool, session: &str, mut dice: Dice) -> Vec<(u64, String)> {
    let mut seen: Vec<(u64, String)> = Vec::new();
    loop {
        let mut client = Client::connect(gateway.address(), token, extended).await;
        let after = seen.last().map_or(0, |(seq, _)| *seq);
        client.send(json!({"type": "session.resume", "session_id": session, "after_seq": after})).await;
        for _ in 0..dice.below(400) {
            let text = client.next_text().await;
            let frame: Value = serde_json::from_str(&text).unwrap();
            if let Some(seq) = seq(&frame) {
                seen.push((seq, text));
            }
            if frame["type"] == "task:done" {
                return seen;
            }
        }
        // Gone without a word: what was on its way is lost.
    }
}

#[tokio::test]
async fn g2_clients_that_come_and_go_miss_nothing_and_see_nothing_twice() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| {
            config.limits.connections_per_user = 1_000;
            config.limits.new_connections_per_second = 100_000;
        })
        .await;
        let mut client = gateway.client("alice").await;
        let session = text(&client.start_session().await, "session_id");
        let token = gateway.token("alice", None).await;
        client.queue(&session, "/tokens 2000 1\n/tool echo x\n/tokens 2000").await;
        let (mut extended, mut document) = tokio::join!(
            futures_util::future::join_all((1..5).map(|number| flap(
                &gateway,
                &token,
                true,
                &session,
                Dice(number * 7_919)
            ))),
            futures_util::future::join_all((1..5).map(|number| flap(
                &gateway,
                &token,
                false,
                &session,
                Dice(number * 104_729)
            ))),
        );
        let history: Vec<_> = by_seq(&mut client, &session).await.into_iter().collect();
        for seen in extended.drain(..) {
            assert_eq!(seen, history);
        }
        let mut viewer = gateway.document_client("alice").await;
        let history: Vec<_> = by_seq(&mut viewer, &session).await.into_iter().collect();
        for seen in document.drain(..) {
            assert_eq!(seen, history);
        }
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g2_a_turn_on_a_session_that_is_followed_already_neither_doubles_nor_skips() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let session = text(&client.start_session().await, "session_id");
        let mut seen = Vec::new();
        for _ in 0..10 {
            // Queued while the one before runs: the connection is in the middle of what it follows.
            for prompt in ["/tokens 300", "/say a"] {
                client.send(json!({"type": "session.turn", "session_id": session, "prompt": prompt})).await;
            }
            for _ in 0..2 {
                seen.extend(seqs(&client.until_task_end().await));
            }
        }
        let history: Vec<u64> = by_seq(&mut client, &session).await.into_keys().collect();
        assert_eq!(seen, history);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g3_the_head_is_fixed_and_both_marks_come_with_nothing_to_replay() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.document_client("alice").await;
        let session = text(&client.start_session().await, "session_id");
        let marks = async |client: &mut Client, mut resume: Value| {
            resume["type"] = json!("session.resume");
            resume["session_id"] = json!(session);
            client.send(resume).await;
            let frames = client.until_type("session.replay_end").await;
            let (start, end) = (frames[0].clone(), frames.last().unwrap().clone());
            assert_eq!(start["type"], "session.replay_start");
            assert_eq!(start["last_seq"], end["last_seq"]);
            assert_eq!(end["count"], frames.len() as u64 - 2);
            (start["after_seq"].as_u64().unwrap(), end["last_seq"].as_u64().unwrap(), seqs(&frames))
        };
        for nothing in [json!({}), json!({"after_seq": 0}), json!({"tail": 0}), json!({"tail": 5})] {
            assert_eq!(marks(&mut client, nothing).await, (0, 0, vec![]));
        }

        client.turn(&session, "/say a b c d").await;
        let head = gateway.head(&session).await;
        let (after, last, all) = marks(&mut client, json!({})).await;
        assert_eq!((after, last, *all.last().unwrap()), (0, head, head));
        assert_eq!(marks(&mut client, json!({"after_seq": 0})).await, (0, head, all.clone()));
        assert_eq!(marks(&mut client, json!({"after_seq": head})).await, (head, head, vec![]));
        assert_eq!(marks(&mut client, json!({"tail": 0})).await, (head, head, vec![]));
        assert_eq!(marks(&mut client, json!({"tail": 2})).await, (head - 2, head, vec![head - 1, head]));
        assert_eq!(marks(&mut client, json!({"tail": head + 7})).await, (0, head, all.clone()));
        let middle = all[2];
        assert_eq!(marks(&mut client, json!({"after_seq": middle})).await, (middle, head, all[3..].to_vec()));

        let both = json!({"type": "session.resume", "session_id": session, "after_seq": 1, "tail": 1});
        let error = client.request(both).await;
        assert_eq!(error["code"], "VALIDATION_FAILED");
        gateway.stop().await;
    })
    .await;
}

/// A viewer that resumes from here and there while events come: checks each stretch it sees.
async fn roam(gateway: &TestGateway, token: &str, session: &str, mut dice: Dice) -> Vec<(u64, Vec<(u64, String)>)> {
    let mut client = Client::connect(gateway.address(), token, true).await;
    let mut stretches = Vec::new();
    let mut known = 0;
    loop {
        let mut resume = json!({"type": "session.resume", "session_id": session, "request_id": "here"});
        if dice.below(4) == 0 {
            resume["tail"] = json!(dice.below(3_000));
        } else {
            resume["after_seq"] = json!(dice.below(known + 1));
        }
        client.send(resume).await;
        let start = client.until(|frame| frame["request_id"] == "here").await.pop().unwrap();
        assert_eq!(start["type"], "session.replay_start", "{start}");
        let (after, head) = (start["after_seq"].as_u64().unwrap(), start["last_seq"].as_u64().unwrap());
        let mut stretch = Vec::new();
        let (mut live, mut stay) = (false, 200 + dice.below(2_000));
        let mut ended = false;
        while stay > 0 && !ended {
            let text = client.next_text().await;
            let frame: Value = serde_json::from_str(&text).unwrap();
            match seq(&frame) {
                Some(seq) => {
                    assert_eq!(live, seq > head, "history up to {head}, then the end of the replay, then live: {seq}");
                    stay -= u64::from(live);
                    known = known.max(seq);
                    stretch.push((seq, text));
                    ended = frame["type"] == "task:done";
                }
                None if frame["type"] == "session.replay_end" => {
                    assert!(!live);
                    assert_eq!((&frame["last_seq"], &frame["count"]), (&json!(head), &json!(stretch.len())));
                    live = true;
                }
                None => assert_eq!(frame["type"], "session.state"),
            }
        }
        stretches.push((after, stretch));
        if ended {
            return stretches;
        }
    }
}

#[tokio::test]
async fn g3_replay_meets_live_without_a_seam_wherever_and_whenever_it_starts() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let session = text(&client.start_session().await, "session_id");
        let token = gateway.token("alice", None).await;
        // As fast as it goes: over 5,000 events/s.
        client.queue(&session, "/tokens 6000").await;
        let viewers = (1..=5).map(|number| roam(&gateway, &token, &session, Dice(number * 15_485_863)));
        let all = futures_util::future::join_all(viewers).await;
        let history = by_seq(&mut client, &session).await;
        assert!(history.len() > 6_000);
        for (after, stretch) in all.into_iter().flatten() {
            let expected = history.range(after + 1..).take(stretch.len());
            let same = expected.eq(stretch.iter().map(|(seq, text)| (seq, text)).collect::<BTreeMap<_, _>>());
            assert!(same, "the events after {after}, each once and as they are: {:?}", stretch.first());
            assert!(stretch.is_sorted_by(|one, next| one.0 < next.0));
        }
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g3_a_second_resume_moves_the_cursor_and_never_doubles() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let frames = client.run("/tokens 5000").await;
        let session = text(&frames[0], "session_id");
        let history = by_seq(&mut client, &session).await;

        let mut viewer = gateway.client("alice").await;
        for _ in 0..3 {
            viewer.send(json!({"type": "session.resume", "session_id": session, "request_id": "first"})).await;
            viewer.send(json!({"type": "session.resume", "session_id": session, "request_id": "second"})).await;
            let abandoned = viewer.until(|frame| frame["request_id"] == "second").await;
            let of_first: Vec<_> = seqs(&abandoned);
            assert!(of_first.iter().eq(history.keys().take(of_first.len())), "a beginning, in order");
            let ended = types(&abandoned).contains(&"session.replay_end");
            assert!(!ended || of_first.len() == history.len(), "an unfinished replay has no end");
            let replayed = viewer.until_type("session.replay_end").await;
            assert!(seqs(&replayed).iter().eq(history.keys()), "the whole history, once");
        }
        client.turn(&session, "/say more").await;
        let live = viewer.until_task_end().await;
        let head = *history.keys().last().unwrap();
        let after = json!({"type": "session.resume", "session_id": session, "after_seq": head});
        let more = replay_texts_of(&mut client, after).await;
        assert_eq!(seqs(&live).len(), more.len(), "what is live comes once");
        gateway.stop().await;
    })
    .await;
}
