//! `result_text`: normalized, and with links to the workspace's files that open.

use serde_json::json;

use crate::frames::{last, only, replay, text, unsigned};
use crate::support::{TestGateway, on_both};

#[tokio::test]
async fn images_are_signed_links_that_open_and_a_replayed_link_opens_too() {
    on_both(|database| async {
        let mut gateway = TestGateway::start(database).await;
        let mut client = gateway.document_client("alice").await;
        let frames = client.run("/image shots/my pic.png\n/say [it](file:///workspace/shots/my%20pic.png) [ext](https://a.example/x.png)").await;
        assert_eq!(last(&frames)["status"], "completed");
        let session = text(&frames[0], "session_id");
        let result = text(only(&frames, "turn.done"), "result_text");
        let link = |text: &str| {
            let from = text.find("](").unwrap() + 2;
            text[from..].split([')', '>']).next().unwrap().trim_start_matches('<').to_owned()
        };
        let path = format!("/v1/sessions/{session}/files/shots/my%20pic.png?_pvt=");
        assert!(link(&result).starts_with(&gateway.url(&path)), "{result}");
        assert_eq!(result.matches("_pvt=").count(), 2);
        assert!(result.contains("[ext](https://a.example/x.png)"), "others are left alone: {result}");
        assert!(!crate::support::streamed(&frames).contains("_pvt="), "tokens are as they were");

        let png = reqwest::get(link(&result)).await.unwrap();
        assert_eq!(png.status(), 200);
        assert!(png.bytes().await.unwrap().starts_with(b"\x89PNG"));

        let replayed = text(only(&replay(&mut client, &session).await, "turn.done"), "result_text");
        assert_eq!(unsigned(&replayed), unsigned(&result));
        assert_eq!(reqwest::get(link(&replayed)).await.unwrap().status(), 200);

        // A link opens its own file and nothing else.
        client.turn(&session, "/image other.png").await;
        let token = link(&result).split_once("_pvt=").unwrap().1.to_owned();
        for bad in [
            gateway.url(&format!("/v1/sessions/{session}/files/other.png?_pvt={token}")),
            gateway.url(&format!("/v1/sessions/{session}/files/shots/my%20pic.png?_pvt={token}x")),
            gateway.url(&format!("/v1/sessions/{session}/files/shots/my%20pic.png")),
        ] {
            assert_ne!(reqwest::get(&bad).await.unwrap().status(), 200, "{bad}");
        }

        // After a restart, at a new address.
        gateway.restart().await;
        let mut client = gateway.document_client("alice").await;
        let history = replay(&mut client, &session).await;
        let replayed = text(history.iter().find(|frame| frame["type"] == "turn.done").unwrap(), "result_text");
        let at = link(&replayed).split_once("/v1/").unwrap().1.to_owned();
        let moved = gateway.url(&format!("/v1/{at}"));
        assert!(moved.starts_with(&gateway.url(&path)), "{replayed}");
        assert_eq!(reqwest::get(moved).await.unwrap().status(), 200);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn text_is_normalized_once_before_it_is_kept() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut client = gateway.client("alice").await;
        let prompt = "one  \r\n\r\n\r\n\r\ntwo\t\n```\ncode  \n\n\n\nmore";
        client.send(json!({"type": "task.submit", "prompt": prompt})).await;
        let frames = client.until_task_end().await;
        let result = text(only(&frames, "turn.done"), "result_text");
        assert_eq!(result, "You said: one\n\ntwo\n```\ncode  \n\n\n\nmore\n```");
        let history = replay(&mut client, &text(&frames[0], "session_id")).await;
        assert_eq!(only(&history, "turn.done"), only(&frames, "turn.done"));
        gateway.stop().await;
    })
    .await;
}
