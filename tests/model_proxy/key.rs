//! The key is at the model, and nowhere in the box; and only what the profile allows gets there.

use tokio::io::AsyncWriteExt as _;

use crate::mock_llm::Mock;
use crate::model::Puppet;
use crate::world::{KEY, Kind, World};

crate::under_both!(the_key_is_added_outside_and_is_nowhere_in_the_box, a_key_that_comes_back_is_hidden);

async fn the_key_is_added_outside_and_is_nowhere_in_the_box(kind: Kind) {
    let mock = Mock::start();
    let world = World::new(kind, "anthropic", &mock.url).await;
    let (mut shell, _channel) = world.start().await;
    let body = r#"{"model":"m","messages":[{"role":"user","content":"TEXT: fine"}]}"#;
    let answer = shell.ask("POST /v1/messages?key=mine", body).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("fine"), "{answer}");
    let requests = mock.requests().await;
    assert_eq!(requests[0]["credentials"], serde_json::json!({ "x-api-key": KEY }));

    shell.tell("look").await;
    let seen = shell.until("<end>").await;
    assert!(seen.contains("BASE=http://127.0.0.1:"), "it looks in the right place: {seen}");
    let mut all = seen;
    if kind == Kind::Docker {
        assert!(all.contains("/.streamgate/proxy ro"), "the agent can't write there: {all}");
        let inspected = std::process::Command::new("docker").args(["inspect", &shell.agent.container_name]).output();
        all.push_str(&String::from_utf8(inspected.unwrap().stdout).unwrap());
        assert!(all.contains("\"NetworkMode\": \"none\""), "{all}");
    } else {
        for note in std::fs::read_dir(world.spools()).unwrap() {
            let note: serde_json::Value =
                serde_json::from_slice(&std::fs::read(note.unwrap().path()).unwrap()).unwrap();
            for file in ["environ", "cmdline"] {
                all.push_str(
                    &String::from_utf8(std::fs::read(format!("/proc/{}/{file}", note["pid"])).unwrap()).unwrap(),
                );
            }
        }
        assert!(all.contains("streamgate-shim"), "{all}");
    }
    assert!(!all.contains(KEY) && !all.contains(world.key_file().to_str().unwrap()), "{all}");

    for (request, expected) in [
        ("POST /v1/messages/batches", "HTTP/1.1 403"),
        ("GET /v1/organizations/api_keys", "HTTP/1.1 403"),
        ("GET /v1/models/../files", "HTTP/1.1 403"),
        ("DELETE /v1/models/m", "HTTP/1.1 403"),
        ("GET http://evil.example/v1/models", "HTTP/1.1 403"),
        ("CONNECT evil.example:443", "HTTP/1.1 403"),
        ("CONNECT nowhere", "HTTP/1.1 400"),
        ("GET /v1/models", "HTTP/1.1 200"),
    ] {
        let answer = shell.ask(request, "").await;
        assert!(answer.starts_with(expected), "{request}: {answer}");
        assert!(expected.ends_with("200") || answer.contains(r#""type":"error""#), "{answer}");
    }
    assert_eq!(mock.requests().await.len(), 1, "none of it came to the model");
    assert_eq!(world.metric(r#"model_requests_total{outcome="refused"}"#), 5);
    assert_eq!(world.metric(r#"egress_connections_total{outcome="refused"}"#), 2);
    shell
        .tell(
            "POST /v1/messages HTTP/1.1\\r\\nhost: x\\r\\ncontent-length: 99999999\\r\\nconnection: close\\r\\n\\r\\n",
        )
        .await;
    let answer = shell.until("<end>").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

async fn a_key_that_comes_back_is_hidden(kind: Kind) {
    let puppet = Puppet::start().await;
    let world = World::new(kind, "openai", &puppet.url).await;
    let (mut shell, _channel) = world.start().await;
    shell.send("GET /v1/models", "").await;
    let (request, mut stream) = puppet.asked().await;
    assert!(request.contains(&format!("authorization: Bearer {KEY}\r\n")) && !request.contains("mine"), "{request}");
    let body = format!("wrong key: {KEY}!");
    let head = format!("HTTP/1.1 401 No\r\nx-key: {KEY}\r\nset-cookie: a=b\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{}", &body[..20]).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream.write_all(&body.as_bytes()[20..]).await.unwrap();
    let answer = shell.until("<end>").await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(answer.contains(&format!("wrong key: {}!", "*".repeat(KEY.len()))), "{answer}");
    assert!(!answer.contains(KEY) && !answer.contains("cookie"), "{answer}");

    // A model that is not there, which is not told with its address.
    let gone = puppet.url.clone();
    drop((stream, puppet));
    let answer = shell.ask("GET /v1/models", "").await;
    assert!(answer.starts_with("HTTP/1.1 502") && !answer.contains(gone.strip_prefix("http://").unwrap()), "{answer}");
    assert_eq!(world.metric(r#"model_requests_total{outcome="failed"}"#), 1);
    assert_eq!(world.metric(r#"model_requests_total{outcome="unreachable"}"#), 1);
}
