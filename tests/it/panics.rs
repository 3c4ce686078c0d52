//! A panic costs what panicked, and nobody waits for it. Settings that `Config::check` refuses make the program panic
//! where they are used; these gateways are started without that check.

use serde_json::json;

use crate::frames::text;
use crate::support::{TestGateway, of_type, on_both};

#[tokio::test]
async fn a_connection_that_panics_is_closed_with_1011() {
    on_both(|database| async move {
        let gateway = TestGateway::start_with(database, |config| config.limits.ping_seconds = 0).await;
        let mut client = gateway.client("alice").await;
        assert_eq!(u16::from(client.closed().await.expect("a close frame").code), 1011);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_session_whose_worker_panics_loses_its_task_and_nothing_else() {
    on_both(|database| async move {
        let gateway = TestGateway::start_with(database, |config| {
            // The end of its time is beyond what an instant can be: whoever works it out panics.
            let mut broken = config.profiles["demo"].clone();
            broken.timeout_seconds = u64::MAX;
            config.profiles.insert("broken".to_owned(), broken);
        })
        .await;
        let mut other = gateway.client("bob").await;
        let held = other.held("go").await;

        let mut client = gateway.client("alice").await;
        let start = json!({"type": "session.start", "profile_id": "prof_broken"});
        let session = text(&client.request(start).await, "session_id");
        for _ in 0..2 {
            let turn = json!({"type": "session.turn", "session_id": session, "prompt": "/say never"});
            assert_eq!(client.request(turn).await["type"], "ack");
            let end = client.expect("task:failed").await;
            assert_eq!(end["retryable"], true, "{end}");
        }
        // It can be ended, and read to its end.
        let ended = client.request(json!({"type": "session.end", "session_id": session})).await;
        assert_eq!(ended["type"], "ack", "{ended}");
        client.send(json!({"type": "session.resume", "session_id": session})).await;
        let all = client.until_type("session.state").await;
        assert_eq!(of_type(&all, "task:failed").len(), 2);

        gateway.let_go(&held.container, "go");
        let done = other.until_task_end().await.pop().unwrap();
        assert_eq!(done["status"], "completed", "{done}");
        gateway.stop().await;
    })
    .await;
}
