//! What the tests drive: a gateway on a port of its own, and clients that know nothing but the wire.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use streamgate::app::App;
use streamgate::auth::api_token::ApiTokens;
use streamgate::config::{Config, ProfileConfig};
use streamgate::domain::UserId;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::database::{self, TestDatabase};

/// No test waits longer for one frame. Generous: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway and all that belongs to it.
pub(crate) struct TestGateway {
    pub(crate) config: Config,
    pub(crate) database: TestDatabase,
    directory: tempfile::TempDir,
    app: Option<App>,
}

/// The binary under test: it is the demo agent too.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_streamgate"))
}

impl TestGateway {
    /// One with the defaults, on `database`.
    pub(crate) async fn start(database: TestDatabase) -> Self {
        Self::start_with(database, |_| ()).await
    }

    /// One whose settings `change` has changed.
    pub(crate) async fn start_with(database: TestDatabase, change: impl FnOnce(&mut Config)) -> Self {
        show_log();
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: directory.path().to_owned(),
            drain_seconds: 5,
            drain_notice_seconds: 0,
            ..Config::default()
        };
        config.admin.listen = config.listen;
        config.database.url = database.url.clone();
        let demo = ProfileConfig {
            command: vec![binary().display().to_string(), "demo-agent".to_owned()],
            ..ProfileConfig::demo()
        };
        config.profiles.insert("demo".to_owned(), demo);
        change(&mut config);
        let app = App::start(config.clone()).await.unwrap();
        Self { config, database, directory, app: Some(app) }
    }

    pub(crate) fn app(&self) -> &App {
        self.app.as_ref().unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.app().address()
    }

    pub(crate) fn data_dir(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Stops it as SIGTERM does and starts it again on the same data, on a new port. Its links stay what
    /// they were, as those of a gateway with a public name do.
    pub(crate) async fn restart(&mut self) {
        self.app.as_ref().unwrap().public_url().clone_into(&mut self.config.public_url);
        self.app.take().unwrap().shutdown().await;
        self.app = Some(App::start(self.config.clone()).await.unwrap());
    }

    pub(crate) async fn stop(mut self) {
        self.app.take().unwrap().shutdown().await;
    }

    /// A new token of `user`.
    pub(crate) async fn token(&self, user: &str, role: Option<&str>) -> String {
        let tokens: &ApiTokens = self.app().shared().authenticator.tokens();
        let (_, token) = tokens.create(&UserId(user.to_owned()), role, None, None).await.unwrap();
        token.reveal().to_owned()
    }

    /// A connected extended client of `user`.
    pub(crate) async fn client(&self, user: &str) -> Client {
        Client::connect(self.address(), &self.token(user, None).await, true).await
    }

    /// A connected client of `user` that knows nothing but the document.
    pub(crate) async fn document_client(&self, user: &str) -> Client {
        Client::connect(self.address(), &self.token(user, None).await, false).await
    }

    /// A connected extended client of an admin.
    pub(crate) async fn admin(&self) -> Client {
        Client::connect(self.address(), &self.token("root", Some("admin")).await, true).await
    }

    /// An address of the REST doors.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        crate::shims::end_all(self.directory.path());
    }
}

/// Shows the gateways' log with the output of tests that fail, if `STREAMGATE_TEST_LOG` holds a filter.
fn show_log() {
    if let Ok(filter) = std::env::var("STREAMGATE_TEST_LOG") {
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_test_writer();
        let _ = lines.try_init(); // An earlier test of this process may have.
    }
}

/// A client on a socket.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Frames that came before the reply to which they belong: they are next.
    early: VecDeque<String>,
}

impl Client {
    /// On a socket that is open.
    pub(crate) fn on(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        Self { socket, early: VecDeque::new() }
    }

    pub(crate) async fn connect(address: SocketAddr, token: &str, extended: bool) -> Self {
        let mut request = format!("ws://{address}/v1/stream").into_client_request().unwrap();
        let authorization = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        request.headers_mut().insert("authorization", authorization);
        if extended {
            request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("streamgate.v1"));
        }
        let (socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        Self::on(socket)
    }

    /// Sends a JSON frame.
    pub(crate) async fn send(&mut self, frame: Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next frame's text, exactly as it came.
    pub(crate) async fn next_text(&mut self) -> String {
        if let Some(text) = self.early.pop_front() {
            return text;
        }
        // Of the whole wait: the gateway's pings would renew that of one message for ever.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let message = tokio::time::timeout_at(deadline, self.socket.next()).await.expect("a frame in time");
            match message.expect("the socket is open").expect("the socket works") {
                Message::Text(text) => return text.as_str().to_owned(),
                Message::Ping(_) | Message::Pong(_) => (),
                other => panic!("expected a text frame, got {other:?}"),
            }
        }
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Value {
        serde_json::from_str(&self.next_text().await).unwrap()
    }

    /// Every frame up to the first that satisfies `is_last`, that one included.
    pub(crate) async fn until(&mut self, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await;
            let last = is_last(&frame);
            frames.push(frame);
            if last {
                return frames;
            }
        }
    }

    /// Every frame up to the first of a type, that one included.
    pub(crate) async fn until_type(&mut self, kind: &str) -> Vec<Value> {
        self.until(|frame| frame["type"] == kind).await
    }

    /// The first frame of a type; what comes before is passed over.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        self.until_type(kind).await.pop().unwrap()
    }

    /// Every frame of a task up to its end.
    pub(crate) async fn until_task_end(&mut self) -> Vec<Value> {
        self.until(|frame| frame["type"] == "task:done" || frame["type"] == "task:failed").await
    }

    /// Sends a frame with a `request_id` and returns its direct reply. Other frames are passed over, but
    /// not those of the task that the reply tells of: they may come before it.
    pub(crate) async fn request(&mut self, mut frame: Value) -> Value {
        let id = uuid::Uuid::now_v7().to_string();
        frame["request_id"] = json!(id);
        let submits = frame["type"] == "session.turn" || frame["type"] == "task.submit";
        self.send(frame).await;
        let mut frames = self.until(|frame| frame["request_id"] == id.as_str()).await;
        let reply = frames.pop().unwrap();
        if submits && reply["task_id"].is_string() {
            let of_task = frames.iter().filter(|frame| frame["task_id"] == reply["task_id"]);
            self.early.extend(of_task.map(Value::to_string));
        }
        reply
    }

    /// A new session: its `session.ready`.
    pub(crate) async fn start_session(&mut self) -> Value {
        let ready = self.request(json!({"type": "session.start"})).await;
        assert_eq!(ready["type"], "session.ready", "{ready}");
        ready
    }

    /// Submits a prompt in a new session and returns all frames up to the task's end.
    pub(crate) async fn run(&mut self, prompt: &str) -> Vec<Value> {
        self.send(json!({"type": "task.submit", "prompt": prompt})).await;
        self.until_task_end().await
    }

    /// Submits a prompt in a session and returns all frames up to the task's end.
    pub(crate) async fn turn(&mut self, session: &str, prompt: &str) -> Vec<Value> {
        self.send(json!({"type": "session.turn", "session_id": session, "prompt": prompt})).await;
        self.until_task_end().await
    }

    /// How the server closes the socket; frames before that are passed over. `None`: without a close frame.
    pub(crate) async fn closed(&mut self) -> Option<CloseFrame> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match tokio::time::timeout_at(deadline, self.socket.next()).await.expect("a close in time") {
                Some(Ok(Message::Close(frame))) => return frame,
                Some(Ok(_)) => (),
                Some(Err(_)) | None => return None,
            }
        }
    }
}

/// The `type` of each frame.
pub(crate) fn types(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect()
}

/// The frames of a type.
pub(crate) fn of_type<'a>(frames: &'a [Value], kind: &str) -> Vec<&'a Value> {
    frames.iter().filter(|frame| frame["type"] == kind).collect()
}

/// The text that was streamed.
pub(crate) fn streamed(frames: &[Value]) -> String {
    of_type(frames, "task:token").iter().map(|frame| frame["text"].as_str().unwrap()).collect()
}

/// Runs a test body on both databases, one after the other.
pub(crate) async fn on_both<T: Future<Output = ()>>(body: impl Fn(TestDatabase) -> T) {
    body(database::sqlite()).await;
    body(database::postgres().await).await;
}
