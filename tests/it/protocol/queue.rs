//! Tasks that wait: order, priority, `on_busy`.

use serde_json::{Value, json};

use crate::frames::{check_history, of_task, only, replay, text};
use crate::support::{TestGateway, of_type, on_both, types};

fn started(history: &[Value]) -> Vec<String> {
    of_type(history, "task:started").iter().map(|frame| text(frame, "task_id")).collect()
}

#[tokio::test]
async fn tasks_wait_in_order_by_priority_and_know_their_position() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let held = client.held("go").await;
        let mut tasks = Vec::new();
        let waiting = [("normal", 0), ("low", 1), ("high", 0), ("normal", 2), ("high", 1), ("low", 5), ("normal", 4)];
        for (priority, position) in waiting {
            let turn = json!({"type": "session.turn", "session_id": held.session, "prompt": "/say x",
                              "priority": priority});
            let ack = client.request(turn).await;
            assert_eq!((&ack["status"], &ack["position"]), (&json!("queued"), &json!(position)), "{priority}");
            tasks.push(text(&ack, "task_id"));
        }
        let history = replay(&mut client, &held.session).await;
        for (task, (_, position)) in tasks.iter().zip(waiting) {
            assert_eq!(only(&of_task(&history, task), "task:queued")["position"], position);
        }
        gateway.let_go(&held.container, "go");
        for _ in 0..8 {
            client.until_task_end().await;
        }
        let history = replay(&mut client, &held.session).await;
        let order = [2, 4, 0, 3, 6, 1, 5].map(|number: usize| tasks[number].clone());
        assert_eq!(started(&history)[1..], order);
        check_history(&history);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn on_busy_reject_is_refused_while_the_session_works_and_taken_when_it_does_not() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let held = client.held("go").await;
        let turn = json!({"type": "session.turn", "session_id": held.session, "prompt": "/say x",
                          "on_busy": "reject"});
        let error = client.request(turn.clone()).await;
        assert_eq!((&error["code"], &error["session_id"]), (&json!("CONFLICT"), &json!(held.session)));
        gateway.let_go(&held.container, "go");
        client.until_task_end().await;
        assert_eq!(client.request(turn).await["type"], "ack");
        client.until_task_end().await;
        let history = replay(&mut client, &held.session).await;
        assert_eq!(of_type(&history, "user.message").len(), 2, "what was refused left nothing");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn on_busy_interrupt_cancels_the_task_at_work_and_goes_next() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let held = client.held("never").await;
        let waiting = text(&client.queue(&held.session, "/say later").await, "task_id");
        let turn = json!({"type": "session.turn", "session_id": held.session, "prompt": "/say now",
                          "priority": "low", "on_busy": "interrupt"});
        let ack = client.request(turn).await;
        assert_eq!(ack["position"], 0);
        let urgent = text(&ack, "task_id");
        for _ in 0..3 {
            client.until_task_end().await;
        }
        let history = replay(&mut client, &held.session).await;
        check_history(&history);
        assert_eq!(started(&history), [held.task.clone(), urgent.clone(), waiting.clone()]);
        assert_eq!(of_task(&history, &held.task).last().unwrap()["status"], "cancelled");
        for task in [&urgent, &waiting] {
            assert_eq!(of_task(&history, task).last().unwrap()["status"], "completed");
        }

        // Idle, it interrupts nothing.
        let turn = json!({"type": "session.turn", "session_id": held.session, "prompt": "/say idle",
                          "on_busy": "interrupt"});
        client.send(turn).await;
        assert_eq!(client.until_task_end().await.last().unwrap()["status"], "completed");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_user_runs_only_so_many_tasks_and_the_others_wait() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.running_per_user = 1).await;
        let mut client = gateway.client("alice").await;
        let held = client.held("go").await;
        let other = text(&client.start_session().await, "session_id");
        client.queue(&other, "/say two").await;
        let mut bob = gateway.client("bob").await;
        assert_eq!(bob.run("/say mine").await.last().unwrap()["status"], "completed");
        assert!(!types(&client.settle().await).contains(&"task:started"));
        gateway.let_go(&held.container, "go");
        let (mut first, second) = (client.until_task_end().await, client.until_task_end().await);
        first.extend(second);
        let ends = of_type(&first, "task:done");
        assert_eq!((&ends[0]["session_id"], &ends[1]["session_id"]), (&json!(held.session), &json!(other)));
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn prompts_of_one_connection_run_in_the_order_they_were_sent() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let session = text(&client.start_session().await, "session_id");
        for number in 0..15 {
            let prompt = format!("/say {number}");
            client.send(json!({"type": "session.turn", "session_id": session, "prompt": prompt})).await;
        }
        let mut said = Vec::new();
        for _ in 0..15 {
            said.push(text(only(&client.until_task_end().await, "turn.done"), "result_text"));
        }
        assert_eq!(said, (0..15).map(|number: i32| number.to_string()).collect::<Vec<_>>());
        gateway.stop().await;
    })
    .await;
}
