//! G9 Independence.

use std::sync::Arc;

use serde_json::json;
use tokio::net::TcpSocket;
use tokio::sync::Notify;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::frames::{replay, seqs, text};
use crate::support::{Client, PATIENCE, TestGateway, of_type, on_both};
use crate::world::eventually;

/// More than any socket buffers take.
const FLOOD: &str = "/big 1000000\n/big 1000000\n/big 1000000\n/big 1000000\n/big 1000000\n/big 1000000\n\
                     /big 1000000\n/big 1000000\n/big 1000000\n/big 1000000\n/big 1000000\n/big 1000000";

/// A client whose socket takes little and that reads nothing unless it is asked to.
async fn deaf_client(gateway: &TestGateway, user: &str) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let stream = socket.connect(gateway.address()).await.unwrap();
    let token = gateway.token(user, None).await;
    let request = format!("ws://{}/v1/stream?token={token}&protocol=streamgate.v1", gateway.address());
    let request = request.into_client_request().unwrap();
    let (socket, _) = tokio_tungstenite::client_async(request, MaybeTlsStream::Plain(stream)).await.unwrap();
    Client::on(socket)
}

#[tokio::test]
async fn g9_a_client_that_does_not_read_delays_no_other_and_misses_nothing() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.stall_seconds = 600).await;
        let mut client = gateway.client("alice").await;
        let session = text(&client.start_session().await, "session_id");
        let mut deaf = Vec::new();
        for _ in 0..3 {
            let mut viewer = deaf_client(&gateway, "alice").await;
            viewer.send(json!({"type": "session.resume", "session_id": session})).await;
            viewer.expect("session.state").await;
            deaf.push(viewer);
        }
        let mut reader = gateway.client("alice").await;
        replay(&mut reader, &session).await;

        let frames = client.turn(&session, FLOOD).await;
        assert_eq!(of_type(&frames, "task:tool_result").len(), 12);
        assert_eq!(frames.last().unwrap()["status"], "completed");
        reader.until_task_end().await;
        // Others are served meanwhile, in this session and beside it.
        let mut bob = gateway.client("bob").await;
        assert_eq!(bob.run("/say hello").await.last().unwrap()["status"], "completed");
        assert_eq!(client.turn(&session, "/say more").await.last().unwrap()["status"], "completed");
        assert_eq!(gateway.app().shared().connections.count(), 6, "nobody was disconnected");

        // Who reads at last finds all of it, in order.
        let history = seqs(&replay(&mut client, &session).await);
        for mut viewer in deaf {
            let mut seen = seqs(&viewer.until_task_end().await);
            seen.extend(seqs(&viewer.until_task_end().await));
            assert_eq!(seen, history);
        }
        gateway.stop().await;
    })
    .await;
}

/// Tells when a line with these words is logged.
struct Listener {
    words: &'static str,
    heard: Arc<Notify>,
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Listener {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        if message.0.contains(self.words) {
            self.heard.notify_one();
        }
    }
}

#[tokio::test]
async fn g9_a_socket_without_progress_is_closed_with_4102_and_can_resume() {
    // The gateway runs on this thread, so its log lines come here. With a single subscriber, `tracing` asks
    // the thread that comes by first whether a line is wanted at all, and other tests' threads have none.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let heard = Arc::new(Notify::new());
    let listener = Listener { words: "slow_consumer", heard: Arc::clone(&heard) };
    let _listening = tracing::subscriber::set_default(tracing_subscriber::registry().with(listener));
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.stall_seconds = 1).await;
        let mut client = gateway.client("alice").await;
        let session = text(&client.start_session().await, "session_id");
        let mut deaf = deaf_client(&gateway, "alice").await;
        deaf.send(json!({"type": "session.resume", "session_id": session})).await;
        let seen = deaf.until_type("session.state").await;
        assert!(seqs(&seen).is_empty());
        client.queue(&session, FLOOD).await;
        let (frames, ()) = tokio::join!(client.until_task_end(), async {
            tokio::time::timeout(PATIENCE, heard.notified()).await.expect("it is noticed in time");
        });
        assert_eq!(frames.last().unwrap()["status"], "completed");

        let closed = deaf.closed().await.expect("a close frame");
        assert_eq!(u16::from(closed.code), 4102);
        let reason: serde_json::Value = serde_json::from_str(&closed.reason).unwrap();
        assert_eq!(reason["code"], "slow_consumer");
        assert!(reason["retry_after_ms"].is_u64() && closed.reason.len() <= 123);
        eventually("its place is free", async || gateway.app().shared().connections.count() == 1).await;

        let mut again = gateway.client("alice").await;
        let history = seqs(&replay(&mut client, &session).await);
        assert_eq!(seqs(&replay(&mut again, &session).await), history);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g9_a_client_that_vanishes_is_forgotten_and_its_task_goes_on() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let held = client.held("go").await;
        drop(client);
        eventually("its place is free", async || gateway.app().shared().connections.count() == 0).await;
        gateway.let_go(&held.container, "go");
        let mut client = gateway.client("alice").await;
        client.send(json!({"type": "session.resume", "session_id": held.session})).await;
        assert_eq!(client.until_task_end().await.last().unwrap()["status"], "completed");
        gateway.stop().await;
    })
    .await;
}
