//! What tests see and do behind the gateway's back: files and processes of agents, rows and locks of
//! the database.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use streamgate::domain::SessionId;
use tokio::time::{Instant, sleep};

use crate::database::TestDatabase;
use crate::frames::text;
use crate::support::{Client, PATIENCE, TestGateway};

/// Looks again and again until it is so, but not for ever.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A directive that works until the test lets go of `name`.
pub(crate) fn hold(name: &str) -> String {
    format!("/tool until [ -e {name} ]; do sleep 0.02; done")
}

/// Processes of a container, by command line.
pub(crate) fn processes(container: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let process = entry.path();
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // What ends meanwhile, and zombies, show neither.
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        let directory = std::fs::read_link(process.join("cwd")).unwrap_or_default();
        let is_its = String::from_utf8_lossy(&environment).contains(container)
            || directory.to_string_lossy().contains(container);
        if is_its {
            let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned());
        }
    }
    found
}

/// What runs in a container besides the agent itself.
pub(crate) fn stragglers(container: &str) -> Vec<String> {
    processes(container).into_iter().filter(|command| !command.ends_with("demo-agent")).collect()
}

/// Whether a process lives.
pub(crate) fn lives(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("\nState:\tZ")
}

impl TestGateway {
    /// A file in a container's workspace, as it lies on the disk.
    pub(crate) fn file(&self, container: &str, name: &str) -> PathBuf {
        self.data_dir().join("workspaces").join(container).join(name)
    }

    /// Ends what `hold` made wait.
    pub(crate) fn let_go(&self, container: &str, name: &str) {
        std::fs::write(self.file(container, name), "").unwrap();
    }

    /// A session's last event, as the database has it.
    pub(crate) async fn head(&self, session: &str) -> u64 {
        let id = SessionId::parse(session).unwrap();
        self.app().shared().orchestrator.store().last_seq(id).await.unwrap().unwrap().0
    }
}

/// A session with a task that holds.
pub(crate) struct Held {
    pub(crate) session: String,
    pub(crate) container: String,
    pub(crate) task: String,
}

impl Client {
    /// Starts a task that works until the test lets go of `name`; returns when it does.
    pub(crate) async fn held(&mut self, name: &str) -> Held {
        let ready = self.start_session().await;
        let (session, container) = (text(&ready, "session_id"), text(&ready, "container_id"));
        let task = self.hold_in(&session, name).await;
        Held { session, container, task }
    }

    /// The same in a session that there is.
    pub(crate) async fn hold_in(&mut self, session: &str, name: &str) -> String {
        let turn = json!({"type": "session.turn", "session_id": session, "prompt": hold(name)});
        self.send(turn).await;
        text(&self.expect("task:tool_use").await, "task_id")
    }

    /// Accepts a prompt in a session and returns its `ack`.
    pub(crate) async fn queue(&mut self, session: &str, prompt: &str) -> Value {
        let turn = json!({"type": "session.turn", "session_id": session, "prompt": prompt});
        let ack = self.request(turn).await;
        assert_eq!(ack["type"], "ack", "{ack}");
        ack
    }

    /// All frames that were on their way: up to the `pong` that follows them.
    pub(crate) async fn settle(&mut self) -> Vec<Value> {
        let id = uuid::Uuid::now_v7().to_string();
        self.send(json!({"type": "ping", "request_id": id})).await;
        self.until(|frame| frame["request_id"] == id.as_str()).await
    }

    /// What a `ping` says of a session: the last event sent, or null when it isn't followed.
    pub(crate) async fn place_in(&mut self, session: &str) -> Value {
        self.settle().await.pop().unwrap()["sessions"][session].clone()
    }
}

/// Keeps all others from committing to a session, until it is dropped.
pub(crate) enum Lock {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl Lock {
    pub(crate) async fn take(database: &TestDatabase, session: &str) -> Self {
        if database.is_postgres() {
            let mut connection = PgConnection::connect(&database.url).await.unwrap();
            sqlx::query("BEGIN").execute(&mut connection).await.unwrap();
            let lock = sqlx::query("SELECT id FROM sessions WHERE id = $1 FOR UPDATE").bind(session);
            lock.execute(&mut connection).await.unwrap();
            Self::Postgres(connection)
        } else {
            let mut connection = SqliteConnection::connect(&database.url).await.unwrap();
            sqlx::query("PRAGMA busy_timeout = 20000").execute(&mut connection).await.unwrap();
            sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
            Self::Sqlite(connection)
        }
    }

    pub(crate) async fn release(self) {
        match self {
            Self::Postgres(mut connection) => {
                sqlx::query("ROLLBACK").execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            Self::Sqlite(mut connection) => {
                sqlx::query("ROLLBACK").execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }
}
