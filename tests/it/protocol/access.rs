//! What admins may, and what only they see.

use serde_json::json;

use crate::frames::{last, only, replay, text};
use crate::support::{TestGateway, of_type, on_both, types};

#[tokio::test]
async fn an_admin_may_read_cancel_and_end_what_others_own_but_not_speak_in_it() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut alice = gateway.client("alice").await;
        let held = alice.held("never").await;
        alice.send(json!({"type": "task.submit", "prompt": "/ask Well? | Yes"})).await;
        let ask = alice.expect("task:ask_user").await;

        let mut admin = gateway.admin().await;
        let history = replay(&mut admin, &held.session).await;
        assert!(types(&history).contains(&"task:tool_use"));
        let newest = gateway.head(&held.session).await;
        for frame in [
            json!({"type": "session.turn", "session_id": held.session, "prompt": "x"}),
            json!({"type": "task.submit", "session_id": held.session, "prompt": "x"}),
            json!({"type": "session.turn", "session_id": held.session, "prompt": "x", "on_busy": "interrupt"}),
            json!({"type": "task.answer", "task_id": ask["task_id"], "answer": "Yes"}),
        ] {
            let error = admin.request(frame.clone()).await;
            assert_eq!(error["code"], "FORBIDDEN", "{frame}");
        }
        assert_eq!(gateway.head(&held.session).await, newest);

        let ack = admin.request(json!({"type": "task.cancel", "task_id": held.task})).await;
        assert_eq!((&ack["type"], &ack["status"]), (&json!("ack"), &json!("cancelled")));
        let ack = admin.request(json!({"type": "session.end", "session_id": ask["session_id"]})).await;
        assert_eq!((&ack["type"], &ack["status"]), (&json!("ack"), &json!("closed")));
        alice.until(|frame| frame["type"] == "session.closed").await;
        // Its own sessions are like anybody's.
        assert_eq!(last(&admin.run("/say mine").await)["status"], "completed");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_system_prompt_is_for_admins_live_and_replayed() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut alice = gateway.client("alice").await;
        let session = text(&alice.start_session().await, "session_id");
        let mut admin = gateway.admin().await;
        replay(&mut admin, &session).await;
        // One that knows nothing but the document sees it too.
        let token = gateway.token("root", Some("admin")).await;
        let mut document = crate::support::Client::connect(gateway.address(), &token, false).await;
        replay(&mut document, &session).await;

        let hers = alice.turn(&session, "/say hello").await;
        assert!(!types(&hers).contains(&"task:system_prompt"));
        assert!(!types(&replay(&mut alice, &session).await).contains(&"task:system_prompt"));
        for client in [&mut admin, &mut document] {
            let live = client.until_task_end().await;
            let prompt = only(&live, "task:system_prompt").clone();
            assert!(text(&prompt, "prompt").contains("demo agent"), "{prompt}");
            assert_eq!((text(&prompt, "session_id"), &prompt["task_id"]), (session.clone(), &last(&hers)["task_id"]));
            assert_eq!(only(&replay(client, &session).await, "task:system_prompt"), &prompt);
        }
        // Her own, an admin sees as well; with a token of no role she is anybody.
        assert_eq!(of_type(&admin.run("/say x").await, "task:system_prompt").len(), 1);
        let mut plain = gateway.client("root").await;
        assert!(!types(&plain.run("/say x").await).contains(&"task:system_prompt"));
        gateway.stop().await;
    })
    .await;
}
