//! G1 to G10 of the protocol, each through a real socket, on both databases.

use serde_json::json;

use crate::support::{TestGateway, of_type, on_both, streamed};

#[tokio::test]
async fn a_prompt_streams_back_and_its_replay_is_the_same() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.document_client("alice").await;
        let frames = client.run("/say hello there").await;
        assert_eq!(streamed(&frames), "hello there");
        let session = frames[0]["session_id"].clone();
        client.send(json!({"type": "session.resume", "session_id": session})).await;
        let replay = client.until_type("session.replay_end").await;
        assert_eq!(of_type(&replay, "task:token"), of_type(&frames, "task:token"));
        gateway.stop().await;
    })
    .await;
}
