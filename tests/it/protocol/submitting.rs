//! `task.submit`, `session.start`, batch mode, and sessions without a container.

use serde_json::json;

use crate::frames::{last, only, replay, seq, text};
use crate::support::{TestGateway, of_type, on_both, types};
use crate::world::{eventually, processes};

#[tokio::test]
async fn a_submit_without_a_session_makes_one_and_its_ready_comes_first() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let submit = json!({"type": "task.submit", "mode": "session", "profile_id": "prof_demo", "prompt": "/say hi",
                            "request_id": "mine", "unknown": {"ignored": true}});
        client.send(submit).await;
        let frames = client.until_task_end().await;
        assert_eq!(types(&frames)[..3], ["session.ready", "user.message", "task:queued"]);
        assert_eq!(frames[0]["request_id"], "mine");
        assert_eq!(frames[0]["profile_id"], "prof_demo");
        assert_eq!(frames[0]["task_id"], frames[1]["task_id"]);
        assert_eq!((seq(&frames[1]), &frames[1]["text"]), (Some(1), &json!("/say hi")));
        let started = only(&frames, "task:started");
        for field in ["container_id", "container_name"] {
            assert_eq!(started[field], frames[0][field], "the container that is up");
        }
        assert!(frames.iter().all(|frame| frame["session_id"] == frames[0]["session_id"]));
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_started_session_has_no_events_and_a_title() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let ready = client.request(json!({"type": "session.start", "title": "Mine"})).await;
        assert_eq!(ready["type"], "session.ready");
        let session = text(&ready, "session_id");
        assert_eq!(replay(&mut client, &session).await, [json!(null); 0]);
        let state = client.expect("session.state").await;
        assert_eq!((&state["title"], &state["last_seq"]), (&json!("Mine"), &json!(0)));
        assert_eq!((&state["status"], &state["task"]), (&json!("active"), &json!(null)));
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_batch_task_has_a_session_of_its_own_that_closes_with_it() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        for (prompt, end) in [("/image a.png", "task:done"), ("/image a.png\n/fail", "task:failed")] {
            client.send(json!({"type": "task.submit", "mode": "batch", "prompt": prompt})).await;
            let frames = client.until_type("session.closed").await;
            assert_eq!(frames[0]["type"], "session.ready");
            assert!(types(&frames).contains(&end));
            assert_eq!(last(&frames)["reason"], "batch_done");
            let (session, container) = (text(&frames[0], "session_id"), text(&frames[0], "container_id"));
            eventually("its container goes", async || processes(&container).is_empty()).await;
            assert!(gateway.file(&container, "a.png").exists(), "its files stay");
            let turn = json!({"type": "session.turn", "session_id": session, "prompt": "more"});
            assert_eq!(client.request(turn).await["code"], "SESSION_CLOSED");
            let history = replay(&mut client, &session).await;
            assert_eq!(history.last(), frames.last());
            client.settle().await;
        }
        // Cancelled before it began, it closes as well.
        let session = json!({"type": "task.submit", "mode": "batch", "prompt": "x", "session_id":
                             client.start_session().await["session_id"]});
        assert_eq!(client.request(session).await["code"], "VALIDATION_FAILED");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn without_a_container_the_task_fails_and_the_new_session_closes() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| {
            let mut broken = config.profiles["demo"].clone();
            broken.command = vec!["/there/is/no/such/program".to_owned()];
            broken.warm = 0;
            config.profiles.insert("broken".to_owned(), broken);
        })
        .await;
        let mut client = gateway.client("alice").await;
        let submit = json!({"type": "task.submit", "profile_id": "prof_broken", "prompt": "hello"});
        let error = client.request(submit).await;
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("CAPACITY")));
        assert!(error["retry_after_ms"].is_u64());
        let session = text(&error, "session_id");
        let history = replay(&mut client, &session).await;
        let failed = only(&history, "task:failed");
        assert_eq!((&failed["retryable"], &failed["task_id"]), (&json!(true), &error["task_id"]));
        assert_eq!(history.last().unwrap()["reason"], "no_container");
        assert_eq!(client.expect("session.state").await["status"], "closed");

        let error = client.request(json!({"type": "session.start", "profile_id": "prof_broken"})).await;
        assert_eq!(error["code"], "CAPACITY");
        assert_eq!(of_type(&client.settle().await, "session.ready").len(), 0);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_profile_must_exist_and_be_the_sessions_own() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| {
            config.profiles.insert("other".to_owned(), config.profiles["demo"].clone());
            let mut admins = config.profiles["demo"].clone();
            admins.roles = vec!["admin".to_owned()];
            config.profiles.insert("admins".to_owned(), admins);
        })
        .await;
        let mut client = gateway.client("alice").await;
        for kind in ["session.start", "task.submit"] {
            for (profile, code) in [("prof_none", "NOT_FOUND"), ("none", "NOT_FOUND"), ("prof_admins", "FORBIDDEN")] {
                let error = client.request(json!({"type": kind, "profile_id": profile, "prompt": "x"})).await;
                assert_eq!(error["code"], code, "{kind} {profile}");
            }
        }
        let ready = client.request(json!({"type": "session.start", "profile_id": "prof_other"})).await;
        assert_eq!(ready["profile_id"], "prof_other");
        let session = text(&ready, "session_id");
        let turn = |profile| {
            json!({"type": "session.turn", "session_id": session, "profile_id": profile,
                                    "prompt": "/say x"})
        };
        assert_eq!(client.request(turn("prof_demo")).await["code"], "CONFLICT");
        assert_eq!(client.request(turn("prof_other")).await["type"], "ack");
        client.until_task_end().await;
        // Named by none, it is the session's.
        assert_eq!(client.turn(&session, "/say y").await.last().unwrap()["type"], "task:done");
        let history = replay(&mut client, &session).await;
        assert_eq!(of_type(&history, "user.message").len(), 2, "what was refused is not there");
        gateway.stop().await;
    })
    .await;
}
