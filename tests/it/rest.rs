//! REST beside the socket: the same tasks, sessions and rules, through plain HTTP.

use futures_util::StreamExt;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use streamgate::domain::{SessionId, TaskId, TokenId};

use crate::support::{Client, PATIENCE, TestGateway, of_type, on_both, streamed, types};
use crate::world::eventually;

/// Somebody with a token and no socket.
struct Rest {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Rest {
    async fn of(gateway: &TestGateway, user: &str) -> Self {
        Self::with(gateway, Some(gateway.token(user, None).await))
    }

    async fn admin(gateway: &TestGateway) -> Self {
        Self::with(gateway, Some(gateway.token("root", Some("admin")).await))
    }

    fn with(gateway: &TestGateway, token: Option<String>) -> Self {
        Self { http: reqwest::Client::new(), base: gateway.url(""), token }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Response {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        tokio::time::timeout(PATIENCE, request.send()).await.expect("an answer in time").unwrap()
    }

    /// The status and the JSON body, `null` if there is none.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let response = self.send(method, path, body.as_ref()).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, body) = self.call(Method::POST, path, Some(body)).await;
        assert!(status.is_success(), "{path}: {status} {body}");
        body
    }

    /// The status and the error's code.
    async fn refused(&self, method: Method, path: &str, body: Option<Value>) -> (u16, String) {
        let (status, body) = self.call(method, path, body).await;
        assert!(body["error"]["message"].is_string(), "{path}: {status} {body}");
        (status.as_u16(), body["error"]["code"].as_str().unwrap().to_owned())
    }

    async fn session(&self) -> String {
        text(&self.post("/v1/sessions", json!({})).await["session_id"])
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) -> Response {
        self.request(Method::PUT, path).body(bytes).send().await.unwrap()
    }

    /// Every id of a list, page by page, with what `between` does between the pages.
    async fn ids(&self, path: &str, list: &str, id: &str, between: impl AsyncFn()) -> Vec<String> {
        let mut ids = Vec::new();
        let mut page = self.get(path).await;
        loop {
            ids.extend(page[list].as_array().unwrap().iter().map(|entry| text(&entry[id])));
            let Some(cursor) = page["next_cursor"].as_str() else { return ids };
            between().await;
            page = self.get(&format!("{path}&cursor={cursor}")).await;
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn refusal(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn a_task_that_is_cancelled_while_it_waits_for_a_container_takes_none_from_others() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| {
            config.limits.containers = 1;
            for profile in config.profiles.values_mut() {
                profile.warm = 0;
            }
        })
        .await;
        let mut alice = gateway.client("alice").await;
        let session = text(&alice.start_session().await["session_id"]);
        let before = streamed(&alice.turn(&session, "/id").await);
        alice.send(json!({"type": "session.turn", "session_id": session, "prompt": "/ask Well? | Yes"})).await;
        let asked = alice.expect("task:ask_user").await;

        // A new session: over REST nobody waits for its container but its task.
        let bob = Rest::of(&gateway, "bob").await;
        let waiting = bob.post("/v1/tasks", json!({"prompt": "/say no"})).await;
        let task = format!("/v1/tasks/{}", text(&waiting["task_id"]));
        eventually("its turn has come", async || bob.get(&task).await["status"] == "starting").await;
        assert_eq!(bob.call(Method::DELETE, &task, None).await.0, StatusCode::OK);

        alice.send(json!({"type": "task.answer", "task_id": asked["task_id"], "answer": "Yes"})).await;
        alice.until_task_end().await;
        assert_eq!(streamed(&alice.turn(&session, "/id").await), before, "the same agent");
        let end = gateway.client("bob").await.turn(&text(&waiting["session_id"]), "/say well").await.pop().unwrap();
        assert_eq!(end["status"], "completed", "the session goes on: {end}");
        gateway.stop().await;
    })
    .await;
}

/// Runs a turn on a socket and returns its frames.
async fn turn(gateway: &TestGateway, user: &str, session: &str, prompt: &str) -> Vec<Value> {
    gateway.client(user).await.turn(session, prompt).await
}

/// The path and query of a link in a text: what is between `](` and `)`, without the origin.
fn link(result_text: &str) -> String {
    let (_, rest) = result_text.split_once("](").unwrap_or_else(|| panic!("no link: {result_text}"));
    let url = rest.split_once(')').unwrap().0;
    url[url.find("/v1/").unwrap()..].to_owned()
}

#[tokio::test]
async fn a_task_is_submitted_watched_and_read_over_rest() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let alice = Rest::of(&gateway, "alice").await;
        let (status, accepted) =
            alice.call(Method::POST, "/v1/tasks", Some(json!({"prompt": "/say hello\n/image a.png"}))).await;
        assert_eq!((status, &accepted["status"]), (StatusCode::ACCEPTED, &json!("queued")));
        let (task, session) = (text(&accepted["task_id"]), text(&accepted["session_id"]));

        let mut socket = gateway.client("alice").await;
        socket.send(json!({"type": "session.resume", "session_id": session})).await;
        let frames = socket.until_task_end().await;
        let body = alice.get(&format!("/v1/tasks/{task}")).await;
        assert_eq!(body["status"], "completed", "{body}");
        assert_eq!(body["created_at"], accepted["created_at"]);
        assert_eq!(body["pending_ask"], Value::Null);
        let done = of_type(&frames, "turn.done")[0];
        assert_eq!(body["result"]["stop_reason"], done["stop_reason"]);
        assert_eq!(body["result"]["usage"]["input_tokens"], done["input_tokens"]);
        let result = text(&body["result"]["result_text"]);
        let without_token = |text: &str| text.split_once("?_pvt=").unwrap().0.to_owned();
        assert_eq!(without_token(&result), without_token(done["result_text"].as_str().unwrap()));
        let anybody = Rest::with(&gateway, None);
        let file = anybody.send(Method::GET, &link(&result), None).await;
        assert_eq!((file.status(), &file.headers()["content-type"]), (StatusCode::OK, &"image/png".parse().unwrap()));

        assert_eq!(
            alice.refused(Method::POST, "/v1/tasks", Some(json!({"mode": "never"}))).await,
            refusal(422, "VALIDATION_FAILED")
        );
        let failed = alice.post("/v1/tasks", json!({"prompt": "/fail broken", "session_id": session})).await;
        socket.until(|frame| frame["type"] == "task:failed").await;
        let failed = alice.get(&format!("/v1/tasks/{}", text(&failed["task_id"]))).await;
        assert!(text(&failed["result"]["error"]).contains("broken"), "{failed}");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn g10_what_is_not_yours_is_not_there_on_every_route() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let (alice, bob) = (Rest::of(&gateway, "alice").await, Rest::of(&gateway, "bob").await);
        let session = alice.session().await;
        turn(&gateway, "alice", &session, "/tool echo x > a.txt").await;
        let task = text(&alice.get(&format!("/v1/tasks?session_id={session}")).await["tasks"][0]["task_id"]);
        let token = text(&alice.post("/v1/api-tokens", json!({})).await["token_id"]);

        let routes = [
            ("GET", "/v1/tasks?session_id=SESSION", None),
            ("GET", "/v1/tasks/TASK", None),
            ("DELETE", "/v1/tasks/TASK", None),
            ("POST", "/v1/tasks/TASK/answer", Some(json!({"answer": "x"}))),
            ("POST", "/v1/tasks/TASK/answer", Some(json!({}))),
            ("POST", "/v1/tasks", Some(json!({"prompt": "x", "session_id": "SESSION"}))),
            ("GET", "/v1/sessions/SESSION", None),
            ("PATCH", "/v1/sessions/SESSION", Some(json!({"title": "x"}))),
            ("PATCH", "/v1/sessions/SESSION", Some(json!({}))),
            ("DELETE", "/v1/sessions/SESSION", None),
            ("GET", "/v1/sessions/SESSION/events", None),
            ("GET", "/v1/sessions/SESSION/events?after_seq=1000", None),
            ("GET", "/v1/sessions/SESSION/events?limit=x", None),
            ("GET", "/v1/sessions/SESSION/stream", None),
            ("GET", "/v1/sessions/SESSION/files", None),
            ("GET", "/v1/sessions/SESSION/files/a.txt", None),
            ("GET", "/v1/sessions/SESSION/files/a.txt?_pvt=x", None),
            ("PUT", "/v1/sessions/SESSION/files/a.txt", Some(json!("x"))),
            ("PUT", "/v1/sessions/SESSION/files/..%2Fa", Some(json!("x"))),
            ("DELETE", "/v1/api-tokens/TOKEN", None),
        ];
        let answers = async |session: &str, task: &str, token: &str| {
            let fill = |text: &str| text.replace("SESSION", session).replace("TASK", task).replace("TOKEN", token);
            let mut answers = Vec::new();
            for (method, path, body) in &routes {
                let body = body.as_ref().map(|body| serde_json::from_str(&fill(&body.to_string())).unwrap());
                let response = bob.send(method.parse().unwrap(), &fill(path), body.as_ref()).await;
                answers.push((response.status().as_u16(), response.text().await.unwrap()));
            }
            answers
        };
        let theirs = answers(&session, &task, &token).await;
        let (no_session, no_task) = (SessionId::generate().to_string(), TaskId::generate().to_string());
        assert_eq!(theirs, answers(&no_session, &no_task, &TokenId::generate().to_string()).await);
        assert_eq!(theirs, answers("nonsense", "nonsense", "nonsense").await);
        for ((method, path, _), (status, body)) in routes.iter().zip(&theirs) {
            assert_eq!(*status, 404, "{method} {path}: {body}");
        }
        assert_eq!(bob.get("/v1/sessions").await["sessions"], json!([]));
        assert_eq!(bob.get("/v1/tasks").await["tasks"], json!([]));

        // Nothing of it did anything.
        assert_eq!(alice.get(&format!("/v1/sessions/{session}")).await["status"], "active");
        let file = alice.send(Method::GET, &format!("/v1/sessions/{session}/files/a.txt"), None).await;
        assert_eq!(file.text().await.unwrap(), "x\n");

        let nobody = Rest::with(&gateway, None);
        for (method, path, _) in &routes {
            let path = path.replace("SESSION", &session).replace("TASK", &task).replace("TOKEN", &token);
            let refused = nobody.refused(method.parse().unwrap(), &path, None).await;
            assert_eq!(refused, refusal(401, "UNAUTHORIZED"), "{method} {path}");
        }
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_link_opens_its_one_file_for_reading_until_it_expires_and_nothing_else() {
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.auth.link_seconds = 1).await;
        let alice = Rest::of(&gateway, "alice").await;
        let anybody = Rest::with(&gateway, None);
        let (session, other) = (alice.session().await, alice.session().await);
        turn(&gateway, "alice", &session, "/tool echo 1 > a.txt; echo 2 > b.txt").await;
        turn(&gateway, "alice", &other, "/tool echo 3 > a.txt").await;
        let id = SessionId::parse(&session).unwrap();
        let sign = || {
            let url = gateway.app().shared().links.url(id, "a.txt");
            url.split_once("?_pvt=").unwrap().1.to_owned()
        };
        let base = format!("/v1/sessions/{session}/files");

        let token = sign();
        let opened = anybody.send(Method::GET, &format!("{base}/a.txt?_pvt={token}"), None).await;
        assert_eq!((opened.status(), opened.text().await.unwrap().as_str()), (StatusCode::OK, "1\n"));
        let (body, signature) = token.rsplit_once('.').unwrap();
        let forged = format!("{body}.{}", signature.chars().rev().collect::<String>());
        for (method, path) in [
            (Method::GET, format!("{base}/b.txt?_pvt={token}")),
            (Method::GET, format!("{base}/./a.txt%2F?_pvt={token}")),
            (Method::GET, format!("/v1/sessions/{other}/files/a.txt?_pvt={token}")),
            (Method::GET, format!("{base}/a.txt?_pvt={forged}")),
            (Method::GET, format!("{base}/a.txt?_pvt={body}.")),
            (Method::GET, format!("{base}/a.txt?_pvt=")),
            (Method::GET, format!("{base}/a.txt?_pvt={token}&_pvt={token}")),
            (Method::GET, format!("{base}/a.txt?token={token}")),
            (Method::PUT, format!("{base}/a.txt?_pvt={token}")),
            (Method::GET, format!("{base}?_pvt={token}")),
            (Method::GET, format!("/v1/sessions/{session}?_pvt={token}")),
        ] {
            assert_eq!(anybody.refused(method, &path, None).await, refusal(401, "UNAUTHORIZED"), "{path}");
        }
        // A credential that came along may read all the same.
        let read = alice.send(Method::GET, &format!("{base}/a.txt?_pvt={forged}"), None).await;
        assert_eq!(read.status(), StatusCode::OK);

        // Links have whole seconds: two later it is certainly over.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let expired = anybody.refused(Method::GET, &format!("{base}/a.txt?_pvt={token}"), None).await;
        assert_eq!(expired, refusal(401, "UNAUTHORIZED"));
        let erased = sign();
        alice.send(Method::DELETE, &format!("/v1/sessions/{session}"), None).await;
        let gone = anybody.refused(Method::GET, &format!("{base}/a.txt?_pvt={erased}"), None).await;
        assert!([refusal(404, "SESSION_NOT_FOUND"), refusal(401, "UNAUTHORIZED")].contains(&gone), "{gone:?}");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn no_path_and_no_link_of_an_agent_leads_out_of_the_workspace() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let alice = Rest::of(&gateway, "alice").await;
        let session = alice.session().await;
        let base = format!("/v1/sessions/{session}/files");
        let prompt = "/tool ln -s /etc/passwd x; ln -s / root; ln -s ../../.. up; mkfifo pipe; mkdir d; \
                      echo inside > real; ln -s real link";
        turn(&gateway, "alice", &session, prompt).await;
        for path in ["x", "root/etc/passwd", "up/streamgate.db", "pipe", "d", "nothing"] {
            let refused = alice.refused(Method::GET, &format!("{base}/{path}"), None).await;
            assert_eq!(refused, refusal(404, "NOT_FOUND"), "{path}");
        }
        for path in ["..%2Fx", "%2Fetc%2Fpasswd", "d%2F..%2Freal", "a%00b", "d%2F"] {
            for method in [Method::GET, Method::PUT] {
                let refused = alice.refused(method, &format!("{base}/{path}"), None).await;
                assert_eq!(refused, refusal(422, "VALIDATION_FAILED"), "{path}");
            }
        }
        for path in ["root/tmp/x", "up/x", "d", "real/x"] {
            let refused = alice.refused(Method::PUT, &format!("{base}/{path}"), None).await;
            assert_eq!(refused, refusal(422, "VALIDATION_FAILED"), "{path}");
        }
        let inside = alice.send(Method::GET, &format!("{base}/link"), None).await;
        assert_eq!(inside.text().await.unwrap(), "inside\n");
        let listed = alice.get(&base).await;
        let paths: Vec<String> = listed["files"].as_array().unwrap().iter().map(|file| text(&file["path"])).collect();
        assert_eq!(paths, ["real"]);

        // A link at the very path is replaced, not followed.
        assert_eq!(alice.put(&format!("{base}/x"), b"mine".to_vec()).await.status(), StatusCode::CREATED);
        let mine = alice.send(Method::GET, &format!("{base}/x"), None).await;
        assert_eq!(mine.text().await.unwrap(), "mine");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn files_are_written_by_their_owner_up_to_the_limit_and_served_harmless() {
    const LIMIT: usize = 1_000;
    on_both(|database| async {
        let gateway = TestGateway::start_with(database, |config| config.limits.file_bytes = LIMIT).await;
        let (alice, admin) = (Rest::of(&gateway, "alice").await, Rest::admin(&gateway).await);
        let session = alice.session().await;
        let base = format!("/v1/sessions/{session}/files");
        assert_eq!(alice.get(&base).await, json!({"files": []}));

        let full = vec![b'x'; LIMIT];
        assert_eq!(alice.put(&format!("{base}/d/%C3%A9.bin"), full.clone()).await.status(), StatusCode::CREATED);
        assert_eq!(alice.put(&format!("{base}/d/%C3%A9.bin"), full.clone()).await.status(), StatusCode::NO_CONTENT);
        let read = alice.send(Method::GET, &format!("{base}/d/%C3%A9.bin"), None).await;
        assert!(read.headers()["content-disposition"].to_str().unwrap().starts_with("attachment"));
        assert_eq!(read.bytes().await.unwrap(), full);
        let over = vec![b'y'; LIMIT + 1];
        let refused = alice.put(&format!("{base}/d/%C3%A9.bin"), over.clone()).await;
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "PAYLOAD_TOO_LARGE");
        // Without a Content-Length too.
        let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>(over.clone())]);
        let chunked = alice.request(Method::PUT, &format!("{base}/z")).body(reqwest::Body::wrap_stream(chunks));
        assert_eq!(chunked.send().await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
        turn(&gateway, "alice", &session, &format!("/tool head -c {} /dev/zero > big", LIMIT + 1)).await;
        let refused = alice.refused(Method::GET, &format!("{base}/big"), None).await;
        assert_eq!(refused, refusal(413, "PAYLOAD_TOO_LARGE"));
        let listed = alice.get(&base).await;
        let sizes: Vec<&Value> = listed["files"].as_array().unwrap().iter().map(|file| &file["size"]).collect();
        assert_eq!(sizes, [&json!(LIMIT + 1), &json!(LIMIT)]);

        alice.put(&format!("{base}/x.html"), b"<script>alert(1)</script>".to_vec()).await;
        let page = alice.send(Method::GET, &format!("{base}/x.html"), None).await;
        let header = |name: &str| page.headers()[name].to_str().unwrap().to_owned();
        assert!(header("content-security-policy").starts_with("sandbox; default-src 'none'"));
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("content-type"), "text/html; charset=utf-8");

        assert_eq!(admin.get(&base).await["files"].as_array().unwrap().len(), 3);
        let refused = admin.refused(Method::PUT, &format!("{base}/x"), Some(json!("x"))).await;
        assert_eq!(refused, refusal(403, "FORBIDDEN"));

        let mut socket = gateway.client("alice").await;
        socket.request(json!({"type": "session.end", "session_id": session})).await;
        let refused = alice.refused(Method::PUT, &format!("{base}/x"), Some(json!("x"))).await;
        assert_eq!(refused, refusal(409, "SESSION_CLOSED"));
        let kept = alice.send(Method::GET, &format!("{base}/x.html"), None).await;
        assert_eq!(kept.status(), StatusCode::OK);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_cancel_is_the_same_however_often_it_is_asked_for() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let (alice, admin) = (Rest::of(&gateway, "alice").await, Rest::admin(&gateway).await);
        let session = alice.session().await;
        let submit = async |prompt: &str| {
            let body = alice.post("/v1/tasks", json!({"prompt": prompt, "session_id": session})).await;
            text(&body["task_id"])
        };
        let (running, queued) = (submit("/sleep 60000").await, submit("/say never").await);
        for task in [&queued, &running] {
            let expected = json!({"task_id": task, "session_id": session, "status": "cancelled"});
            let path = format!("/v1/tasks/{task}");
            assert_eq!(alice.call(Method::DELETE, &path, None).await, (StatusCode::OK, expected.clone()));
            assert_eq!(alice.call(Method::DELETE, &path, None).await, (StatusCode::OK, expected.clone()));
            assert_eq!(admin.call(Method::DELETE, &path, None).await, (StatusCode::OK, expected));
            assert_eq!(alice.get(&path).await["status"], "cancelled");
        }
        // The session is as good as before, and what ended well stays so.
        turn(&gateway, "alice", &session, "/say well").await;
        let done = text(&alice.get(&format!("/v1/tasks?session_id={session}&limit=1")).await["tasks"][0]["task_id"]);
        let (_, body) = alice.call(Method::DELETE, &format!("/v1/tasks/{done}"), None).await;
        assert_eq!(body["status"], "completed");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_question_is_answered_over_rest_once_and_by_its_user() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let (alice, admin) = (Rest::of(&gateway, "alice").await, Rest::admin(&gateway).await);
        let mut socket = gateway.client("alice").await;
        let session = text(&socket.start_session().await["session_id"]);
        let body = json!({"prompt": "/ask Which colour? | red | blue", "session_id": session});
        let task = text(&alice.post("/v1/tasks", body).await["task_id"]);
        let asked = socket.expect("task:ask_user").await;
        let (path, answer) = (format!("/v1/tasks/{task}"), format!("/v1/tasks/{task}/answer"));

        let pending = alice.get(&path).await["pending_ask"].clone();
        assert_eq!((&pending["ask_id"], &pending["questions"]), (&asked["ask_id"], &asked["questions"]));
        assert_eq!(alice.get(&format!("/v1/sessions/{session}")).await["pending_ask"], pending);
        let refused = alice.refused(Method::POST, &answer, Some(json!({}))).await;
        assert_eq!(refused, refusal(422, "VALIDATION_FAILED"));
        let refused = alice.refused(Method::POST, &answer, Some(json!({"answer": "x", "ask_id": "ask_x"}))).await;
        assert_eq!(refused, refusal(409, "CONFLICT"));
        let refused = admin.refused(Method::POST, &answer, Some(json!({"answer": "red"}))).await;
        assert_eq!(refused, refusal(403, "FORBIDDEN"));

        let blue = json!({"answer": "blue", "ask_id": pending["ask_id"]});
        assert_eq!(alice.post(&answer, blue.clone()).await, json!({"task_id": task, "session_id": session}));
        socket.until_task_end().await;
        let ended = alice.get(&path).await;
        assert!(text(&ended["result"]["result_text"]).contains("blue"), "{ended}");
        alice.post(&answer, blue).await;
        let refused = alice.refused(Method::POST, &answer, Some(json!({"answer": "red"}))).await;
        assert_eq!(refused, refusal(409, "CONFLICT"));
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn pages_neither_repeat_nor_miss_what_was_there_at_the_start() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let alice = Rest::of(&gateway, "alice").await;
        let session = alice.session().await;
        let mut tasks = Vec::new();
        for number in 0..5 {
            let body = json!({"prompt": format!("/say {number}"), "session_id": session});
            tasks.insert(0, text(&alice.post("/v1/tasks", body).await["task_id"]));
        }
        let more = async || {
            alice.post("/v1/tasks", json!({"prompt": "/say more", "session_id": session})).await;
        };
        assert_eq!(alice.ids("/v1/tasks?limit=2", "tasks", "task_id", more).await, tasks);

        let mut tokens = Vec::new();
        for number in 0..3 {
            tokens
                .insert(0, text(&alice.post("/v1/api-tokens", json!({"name": number.to_string()})).await["token_id"]));
        }
        let path = "/v1/api-tokens?limit=1";
        let more = async || {
            alice.post("/v1/api-tokens", json!({})).await;
        };
        let listed = alice.ids(path, "tokens", "token_id", more).await;
        assert_eq!(listed[..3], tokens, "the one that asks comes last");

        let second = alice.session().await;
        let sessions = alice.ids("/v1/sessions?limit=1", "sessions", "session_id", async || ()).await;
        assert_eq!(sessions, [second, session.clone()]);

        let cursor = text(&alice.get("/v1/tasks?limit=1").await["next_cursor"]);
        for query in
            ["limit=0", "limit=201", "limit=x", "limit=1&limit=2", "limit=%2B1", "cursor=x", "status=done", "all=1"]
        {
            let refused = alice.refused(Method::GET, &format!("/v1/tasks?{query}"), None).await;
            assert_eq!(refused, refusal(422, "VALIDATION_FAILED"), "{query}");
        }
        let (_, body) = alice.call(Method::GET, "/v1/tasks?limit=0&status=x", None).await;
        assert_eq!(body["error"]["details"].as_array().unwrap().len(), 2, "{body}");
        let refused = alice.refused(Method::GET, &format!("/v1/sessions?cursor={cursor}"), None).await;
        assert_eq!(refused, refusal(422, "VALIDATION_FAILED"), "a cursor of another list");
        alice.get("/v1/tasks?limit=200&unknown=x").await;
        gateway.stop().await;
    })
    .await;
}

/// What a client that attaches gets of a session's history, exactly as it came.
async fn replay(client: &mut Client, session: &str) -> Vec<String> {
    client.send(json!({"type": "session.resume", "session_id": session})).await;
    let kind = |text: &str| serde_json::from_str::<Value>(text).unwrap()["type"].clone();
    while kind(&client.next_text().await) != "session.replay_start" {}
    let mut frames = Vec::new();
    loop {
        let frame = client.next_text().await;
        if kind(&frame) == "session.replay_end" {
            return frames;
        }
        frames.push(frame);
    }
}

#[tokio::test]
async fn the_history_over_rest_is_byte_for_byte_that_of_the_socket() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let (alice, admin) = (Rest::of(&gateway, "alice").await, Rest::admin(&gateway).await);
        let session = alice.session().await;
        // More than a page of the journal.
        turn(&gateway, "alice", &session, "/say \"quoted\" \\ é\n/tokens 1200\n/image plan 1.png\n/big 300000").await;
        let events = format!("/v1/sessions/{session}/events");
        let lines = async |rest: &Rest, query: &str| {
            let request = rest.request(Method::GET, &format!("{events}{query}"));
            let response = request.header("accept", "text/html, application/x-ndjson;q=0.9").send().await.unwrap();
            assert_eq!(response.headers()["content-type"], "application/x-ndjson");
            let text = response.text().await.unwrap();
            assert!(text.is_empty() || text.ends_with('\n'));
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        // Signed links aside: each is signed for the second in which it is delivered.
        let unsigned = |frames: Vec<String>| -> Vec<String> {
            frames
                .into_iter()
                .map(|frame| match frame.split_once("?_pvt=") {
                    Some((before, after)) => format!("{before}{}", &after[after.find(')').unwrap()..]),
                    None => frame,
                })
                .collect()
        };
        let whole = unsigned(lines(&alice, "").await);
        assert_eq!(whole, unsigned(replay(&mut gateway.client("alice").await, &session).await));
        let privileged = unsigned(lines(&admin, "").await);
        assert_eq!(privileged, unsigned(replay(&mut gateway.admin().await, &session).await));
        assert!(privileged.len() > whole.len() && whole.len() > 1_200);
        assert_eq!(unsigned(lines(&alice, "?limit=1100").await), whole[..1_100]);

        let seq = |frame: &str| serde_json::from_str::<Value>(frame).unwrap()["seq"].as_u64().unwrap();
        let after = seq(&whole[9]);
        assert_eq!(unsigned(lines(&alice, &format!("?after_seq={after}&limit=3")).await), whole[10..13]);

        // JSON, page by page.
        let (mut collected, mut after) = (Vec::new(), 0);
        loop {
            let request = alice.request(Method::GET, &format!("{events}?after_seq={after}&limit=500"));
            let body = request.send().await.unwrap().text().await.unwrap();
            let value: Value = serde_json::from_str(&body).unwrap();
            let page = value["events"].as_array().unwrap();
            assert!(page.len() <= 500);
            collected.extend(page.iter().map(|frame| frame["seq"].as_u64().unwrap()));
            after = value["next_after_seq"].as_u64().unwrap();
            if after == value["last_seq"].as_u64().unwrap() {
                break;
            }
        }
        assert_eq!(collected, whole.iter().map(|frame| seq(frame)).collect::<Vec<_>>());
        assert_eq!(alice.get(&events).await["events"].as_array().unwrap().len(), 1_000);
        assert_eq!(
            alice.get(&format!("{events}?after_seq={after}")).await,
            json!({"events": [], "last_seq": after, "next_after_seq": after})
        );
        assert!(lines(&alice, &format!("?after_seq={after}")).await.is_empty());

        let (status, body) = alice.call(Method::GET, &format!("{events}?after_seq={}", after + 1), None).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert_eq!((&body["error"]["code"], &body["error"]["last_seq"]), (&json!("CURSOR_AHEAD"), &json!(after)));
        for query in ["limit=0", "limit=10001", "after_seq=-1", "after_seq=9223372036854775808"] {
            let refused = alice.refused(Method::GET, &format!("{events}?{query}"), None).await;
            assert_eq!(refused, refusal(422, "VALIDATION_FAILED"), "{query}");
        }
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_session_without_a_title_is_called_by_its_first_prompt() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let alice = Rest::of(&gateway, "alice").await;
        let prompt = format!("\n# Plan a trip\u{7} to *Lisbon*, {}\nby train", "and to Porto, ".repeat(9));
        let title = json!("Plan a trip to *Lisbon*, and to Porto, and to Porto, and to…");
        // A session that its first prompt makes.
        let made = alice.post("/v1/tasks", json!({"prompt": prompt})).await;
        let path = format!("/v1/sessions/{}", text(&made["session_id"]));
        assert_eq!(alice.get(&path).await["title"], title);
        assert_eq!(alice.get("/v1/sessions").await["sessions"][0]["title"], title);
        // Sessions that were made before it, and what they are called before and after it.
        for (given, named, expected) in [
            (json!({}), None, title.clone()),
            (json!({"title": "Mine"}), None, json!("Mine")),
            (json!({}), Some(json!("Named")), json!("Named")),
            (json!({"title": "Mine"}), Some(Value::Null), title.clone()),
        ] {
            let (_, ready) = alice.call(Method::POST, "/v1/sessions", Some(given.clone())).await;
            let path = format!("/v1/sessions/{}", text(&ready["session_id"]));
            if let Some(named) = &named {
                alice.call(Method::PATCH, &path, Some(json!({"title": named}))).await;
            }
            assert_eq!(alice.get(&path).await["title"], named.clone().unwrap_or_else(|| given["title"].clone()));
            alice.post("/v1/tasks", json!({"prompt": prompt, "session_id": ready["session_id"]})).await;
            assert_eq!(alice.get(&path).await["title"], expected, "{given} {named:?}");
            // What it is called after that is its user's business.
            let (_, renamed) = alice.call(Method::PATCH, &path, Some(json!({"title": null}))).await;
            assert_eq!(renamed["title"], Value::Null);
            alice.post("/v1/tasks", json!({"prompt": "again", "session_id": ready["session_id"]})).await;
            assert_eq!(alice.get(&path).await["title"], Value::Null);
        }
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_session_is_started_named_and_erased_over_rest() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let alice = Rest::of(&gateway, "alice").await;
        let profiles = alice.get("/v1/profiles").await;
        assert_eq!(profiles["profiles"][0]["profile_id"], "prof_demo");
        assert_eq!(profiles["profiles"][0]["default"], true);
        assert!(!profiles.to_string().contains("demo-agent"), "what it runs is nobody's business: {profiles}");

        let body = json!({"profile_id": "prof_demo", "title": "Plans", "unknown": 1});
        let (status, ready) = alice.call(Method::POST, "/v1/sessions", Some(body)).await;
        assert_eq!((status, &ready["profile_id"]), (StatusCode::CREATED, &json!("prof_demo")));
        let path = format!("/v1/sessions/{}", text(&ready["session_id"]));
        let state = alice.get(&path).await;
        for (field, expected) in [
            ("title", json!("Plans")),
            ("status", json!("active")),
            ("mode", json!("session")),
            ("container_id", ready["container_id"].clone()),
            ("container_name", ready["container_name"].clone()),
            ("task", Value::Null),
            ("queue", json!([])),
        ] {
            assert_eq!(state[field], expected, "{field}");
        }
        for (body, expected) in [
            (json!({"title": "Other"}), Ok(json!("Other"))),
            (json!({"title": null}), Ok(Value::Null)),
            (json!({}), Err(422)),
            (json!({"title": ""}), Err(422)),
            (json!({"title": 1}), Err(422)),
            (json!({"title": "x".repeat(257)}), Err(422)),
            (json!({"title": "x".repeat(256)}), Ok(json!("x".repeat(256)))),
        ] {
            let (status, answer) = alice.call(Method::PATCH, &path, Some(body.clone())).await;
            match expected {
                Ok(title) => {
                    assert_eq!((status.as_u16(), &answer["title"]), (200, &title), "{body}");
                    assert_eq!(alice.get(&path).await["title"], title);
                }
                Err(expected) => assert_eq!(status.as_u16(), expected, "{body}: {answer}"),
            }
        }
        for (body, expected) in [
            (json!({"profile_id": "prof_none"}), refusal(404, "NOT_FOUND")),
            (json!({"profile_id": "none"}), refusal(404, "NOT_FOUND")),
            (json!({"title": 1}), refusal(422, "VALIDATION_FAILED")),
            (json!([]), refusal(400, "INVALID_JSON")),
        ] {
            assert_eq!(alice.refused(Method::POST, "/v1/sessions", Some(body)).await, expected);
        }

        let workspace = gateway.data_dir().join("workspaces").join(text(&ready["container_id"]));
        assert_eq!(alice.put(&format!("{path}/files/a.txt"), b"x".to_vec()).await.status(), StatusCode::CREATED);
        alice.post("/v1/tasks", json!({"prompt": "/sleep 60000", "session_id": ready["session_id"]})).await;
        assert!(workspace.exists());
        assert_eq!(alice.send(Method::DELETE, &path, None).await.status(), StatusCode::NO_CONTENT);
        assert!(!workspace.exists());
        for below in ["", "/events", "/files", "/files/a.txt", "/stream"] {
            let refused = alice.refused(Method::GET, &format!("{path}{below}"), None).await;
            assert_eq!(refused, refusal(404, "SESSION_NOT_FOUND"), "{below}");
        }
        assert_eq!(alice.refused(Method::DELETE, &path, None).await, refusal(404, "SESSION_NOT_FOUND"));
        assert_eq!(alice.get("/v1/tasks").await["tasks"], json!([]));
        let (status, body) = alice.call(Method::PUT, &path, None).await;
        assert_eq!((status, body["error"]["message"].is_string()), (StatusCode::METHOD_NOT_ALLOWED, true));
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_batch_that_is_over_can_be_named_and_its_session_closes_once() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let alice = Rest::of(&gateway, "alice").await;
        let task = alice.post("/v1/tasks", json!({"mode": "batch", "prompt": "/say x"})).await;
        let path = format!("/v1/sessions/{}", text(&task["session_id"]));
        let is_closed = async || alice.get(&path).await["status"] == "closed";
        eventually("its session is closed", is_closed).await;
        let named = alice.call(Method::PATCH, &path, Some(json!({"title": "Over"}))).await;
        assert_eq!((named.0, &named.1["title"]), (StatusCode::OK, &json!("Over")));
        let events = alice.get(&format!("{path}/events")).await;
        let closes = events["events"].as_array().unwrap().iter().filter(|event| event["type"] == "session.closed");
        assert_eq!(closes.count(), 1, "{events}");
        assert_eq!(events["events"].as_array().unwrap().last().unwrap()["type"], "session.closed");
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_long_session_is_erased_whole() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let alice = Rest::of(&gateway, "alice").await;
        let session = alice.session().await;
        // More than one statement erases.
        turn(&gateway, "alice", &session, "/tokens 20500 0").await;
        let path = format!("/v1/sessions/{session}");
        assert_eq!(alice.send(Method::DELETE, &path, None).await.status(), StatusCode::NO_CONTENT);
        assert_eq!(alice.refused(Method::GET, &path, None).await, refusal(404, "SESSION_NOT_FOUND"));
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn admins_see_and_stop_everything_and_speak_nowhere() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let (alice, admin) = (Rest::of(&gateway, "alice").await, Rest::admin(&gateway).await);
        let session = alice.session().await;
        turn(&gateway, "alice", &session, "/say hi").await;
        let path = format!("/v1/sessions/{session}");

        assert_eq!(admin.get("/v1/sessions").await["sessions"], json!([]), "their own, unless they ask");
        let everybody = admin.get("/v1/sessions?all=true").await;
        assert_eq!(
            (&everybody["sessions"][0]["session_id"], &everybody["sessions"][0]["user_id"]),
            (&json!(session), &json!("alice"))
        );
        assert_eq!(admin.get("/v1/tasks?all=true").await["tasks"].as_array().unwrap().len(), 1);
        assert_eq!(admin.get(&format!("/v1/tasks?session_id={session}")).await["tasks"].as_array().unwrap().len(), 1);
        for list in ["sessions", "tasks", "api-tokens"] {
            let refused = alice.refused(Method::GET, &format!("/v1/{list}?all=true"), None).await;
            assert_eq!(refused, refusal(403, "FORBIDDEN"), "{list}");
        }
        let prompts = admin.get(&format!("{path}/events")).await;
        assert!(types(prompts["events"].as_array().unwrap()).contains(&"task:system_prompt"));
        let none = alice.get(&format!("{path}/events")).await;
        assert!(!types(none["events"].as_array().unwrap()).contains(&"task:system_prompt"));

        let submit = json!({"prompt": "x", "session_id": session});
        assert_eq!(admin.refused(Method::POST, "/v1/tasks", Some(submit)).await, refusal(403, "FORBIDDEN"));
        let title = json!({"title": "x"});
        assert_eq!(admin.refused(Method::PATCH, &path, Some(title)).await, refusal(403, "FORBIDDEN"));
        assert_eq!(admin.send(Method::DELETE, &path, None).await.status(), StatusCode::NO_CONTENT);
        assert_eq!(alice.refused(Method::GET, &path, None).await, refusal(404, "SESSION_NOT_FOUND"));
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_token_is_shown_once_carries_its_makers_role_and_ends_when_revoked() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let (alice, bob) = (Rest::of(&gateway, "alice").await, Rest::of(&gateway, "bob").await);
        let admin = Rest::admin(&gateway).await;
        let far = i64::MAX / 2;
        let body = json!({"name": "laptop", "expires_at": far});
        let (status, made) = alice.call(Method::POST, "/v1/api-tokens", Some(body)).await;
        assert_eq!(status, StatusCode::CREATED);
        let secret = text(&made["token"]);
        assert_eq!((&made["hint"], &made["role"]), (&json!(secret[..11]), &json!("user")));
        let list = alice.get("/v1/api-tokens").await;
        assert_eq!(list["tokens"][0]["token_id"], made["token_id"]);
        assert_eq!((&list["tokens"][0]["name"], &list["tokens"][0]["expires_at"]), (&json!("laptop"), &json!(far)));
        assert!(!list.to_string().contains(&secret));

        for (who, role, expected) in [
            (&alice, "admin", Err(refusal(403, "FORBIDDEN"))),
            (&alice, "user,admin", Err(refusal(403, "FORBIDDEN"))),
            (&alice, "user", Ok(())),
            (&admin, "admin", Ok(())),
            (&admin, "editor", Ok(())),
        ] {
            let body = json!({ "role": role });
            match expected {
                Ok(()) => assert_eq!(who.post("/v1/api-tokens", body).await["role"], role),
                Err(expected) => {
                    assert_eq!(who.refused(Method::POST, "/v1/api-tokens", Some(body)).await, expected);
                }
            }
        }
        for body in [json!({"expires_at": 1}), json!({"expires_at": "soon"}), json!({"name": ""}), json!({"role": 1})] {
            let refused = alice.refused(Method::POST, "/v1/api-tokens", Some(body.clone())).await;
            assert_eq!(refused, refusal(422, "VALIDATION_FAILED"), "{body}");
        }

        let laptop = Rest::with(&gateway, Some(secret));
        assert_eq!(laptop.get("/v1/sessions").await["sessions"], json!([]));
        let path = format!("/v1/api-tokens/{}", text(&made["token_id"]));
        assert_eq!(bob.refused(Method::DELETE, &path, None).await, refusal(404, "NOT_FOUND"));
        laptop.get("/v1/sessions").await;
        for _ in 0..2 {
            assert_eq!(alice.send(Method::DELETE, &path, None).await.status(), StatusCode::NO_CONTENT);
        }
        assert_eq!(laptop.refused(Method::GET, "/v1/sessions", None).await, refusal(401, "UNAUTHORIZED"));
        let bobs = text(&bob.post("/v1/api-tokens", json!({})).await["token_id"]);
        let revoked = admin.send(Method::DELETE, &format!("/v1/api-tokens/{bobs}"), None).await;
        assert_eq!(revoked.status(), StatusCode::NO_CONTENT);
        gateway.stop().await;
    })
    .await;
}

/// The `id:` and the frame of each of the next `count` events of a stream.
async fn read_events(response: Response, count: usize) -> Vec<(u64, Value)> {
    let mut bytes = response.bytes_stream();
    let mut read = String::new();
    loop {
        let events: Vec<_> = read.split_inclusive("\n\n").filter(|event| event.starts_with("id: ")).collect();
        if events.iter().filter(|event| event.ends_with("\n\n")).count() >= count {
            let parse = |event: &&str| {
                let (id, data) = event.trim_end().split_once("\ndata: ").unwrap();
                (id["id: ".len()..].parse().unwrap(), serde_json::from_str(data).unwrap())
            };
            return events[..count].iter().map(parse).collect();
        }
        let chunk = tokio::time::timeout(PATIENCE, bytes.next()).await.expect("events in time");
        read.push_str(std::str::from_utf8(&chunk.expect("the stream goes on").unwrap()).unwrap());
    }
}

#[tokio::test]
async fn events_stream_as_server_sent_events_and_resume_where_they_broke() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let alice = Rest::of(&gateway, "alice").await;
        let session = alice.session().await;
        let path = format!("/v1/sessions/{session}/stream");
        let live = alice.send(Method::GET, &path, None).await;
        assert_eq!(live.headers()["content-type"], "text/event-stream");
        turn(&gateway, "alice", &session, "/tokens 20").await;
        let history = alice.get(&format!("/v1/sessions/{session}/events")).await;
        let history = history["events"].as_array().unwrap();

        let seen = read_events(live, history.len()).await;
        assert!(seen.iter().zip(history).all(|((id, frame), event)| frame == event && event["seq"] == *id), "{seen:?}");
        let resume = alice.request(Method::GET, &path).header("last-event-id", seen[4].0.to_string());
        assert_eq!(read_events(resume.send().await.unwrap(), 3).await, seen[5..8]);
        let after = alice.send(Method::GET, &format!("{path}?after_seq={}", seen[1].0), None).await;
        assert_eq!(read_events(after, 2).await, seen[2..4]);
        for (id, expected) in [("100000", 409), ("x", 422)] {
            let refused = alice.request(Method::GET, &path).header("last-event-id", id).send().await.unwrap();
            assert_eq!(refused.status().as_u16(), expected);
        }

        // It ends with the gateway, and does not hold it up.
        let open = alice.send(Method::GET, &path, None).await;
        gateway.stop().await;
        assert!(tokio::time::timeout(PATIENCE, open.bytes()).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_session_whose_agent_is_at_work_is_ready_at_once() {
    on_both(|database| async {
        let gateway = TestGateway::start(database).await;
        let mut socket = gateway.client("alice").await;
        let session = text(&socket.start_session().await["session_id"]);
        socket.send(json!({"type": "session.turn", "session_id": session, "prompt": "/sleep 60000"})).await;
        socket.expect("task:started").await;
        let orchestrator = &gateway.app().shared().orchestrator;
        let ready = orchestrator.ready(SessionId::parse(&session).unwrap());
        tokio::time::timeout(PATIENCE, ready).await.expect("an answer before the task ends").unwrap();
        gateway.stop().await;
    })
    .await;
}
