//! What every story plays in: the program, the model, one agent's profile, and who looks into its container.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};

use crate::client::{Client, of_type, streamed};
use crate::containers::{Containers, docker};
use crate::database::{self, TestDatabase};
use crate::frames::text;
use crate::mock_llm::Mock;
use crate::program::Program;
use crate::shims::DataDir;

/// No wait is longer. Generous: some agents take their time to start, and the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// What opens the model; agents never see it.
pub(crate) const KEY: &str = "sk-test-9d1c5be07a";

/// How many worlds there are at a time, however many tests run: agents take their time to start, and all of the
/// processor.
static ROOM: Semaphore = Semaphore::const_new(3);

/// What people copy.
const DOCUMENT: &str = include_str!("../../docs/agents.md");

/// An agent.
#[derive(Clone, Copy)]
pub(crate) struct Agent {
    /// The name of its profile in the document.
    profile: &'static str,
    /// In which variable that has the gateway look for the key.
    key_env: &'static str,
    /// Whether it asks its model again when an answer breaks off.
    pub(crate) asks_again: bool,
}

pub(crate) const CLAUDE: Agent = Agent { profile: "claude", key_env: "ANTHROPIC_API_KEY", asks_again: true };
pub(crate) const OPENCODE: Agent = Agent { profile: "opencode", key_env: "OPENAI_API_KEY", asks_again: true };
pub(crate) const CODEX: Agent = Agent { profile: "codex", key_env: "OPENAI_API_KEY", asks_again: true };
pub(crate) const GEMINI: Agent = Agent { profile: "gemini", key_env: "GEMINI_API_KEY", asks_again: false };
pub(crate) const QWEN: Agent = Agent { profile: "qwen", key_env: "QWEN_API_KEY", asks_again: false };
pub(crate) const CLAUDE_ACP: Agent = Agent { profile: "claude-acp", key_env: "ANTHROPIC_API_KEY", asks_again: true };

impl Agent {
    /// Its profile, as the document has it.
    fn documented(self) -> toml::Table {
        let blocks = DOCUMENT.split("\n```toml\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
        let document: toml::Table = blocks.collect::<Vec<_>>().join("\n").parse().unwrap();
        document["profiles"][self.profile].as_table().unwrap().clone()
    }
}

/// Fails with the command that builds it when an image is not there.
async fn need_image(image: &str) {
    if let Err(error) = docker(&["image", "inspect", "--format", "{{.Id}}", image]).await {
        let build = DOCUMENT.lines().find(|line| line.starts_with(&format!("docker build -t {image} ")));
        panic!("this test needs a Docker engine and an image: {}\n{error}", build.unwrap());
    }
}

/// Everything ends with it, containers too.
pub(crate) struct World {
    gateway: Option<Program>,
    pub(crate) containers: Containers,
    pub(crate) mock: Mock,
    token: String,
    settings: Vec<(String, String)>,
    node: DataDir,
    _database: TestDatabase,
    _place: SemaphorePermit<'static>,
}

impl World {
    pub(crate) async fn new(agent: Agent) -> Self {
        Self::with(agent, |_| (), &[]).await
    }

    /// With a profile that is not quite that of the document, and further settings.
    pub(crate) async fn with(agent: Agent, change: impl FnOnce(&mut toml::Table), further: &[(&str, &str)]) -> Self {
        let mut profile = agent.documented();
        need_image(profile["image"].as_str().unwrap()).await;
        let place = ROOM.acquire().await.unwrap();
        let (mock, node, database) = (Mock::start(), DataDir::new(), database::postgres().await);
        profile["model_api"].as_table_mut().unwrap().insert("url".to_owned(), mock.url.clone().into());
        change(&mut profile);
        let profiles = toml::Table::from_iter([(agent.profile.to_owned(), toml::Value::Table(profile))]);
        let config = toml::Table::from_iter([("profiles".to_owned(), toml::Value::Table(profiles))]);
        let file = node.path().join("streamgate.toml");
        std::fs::write(&file, config.to_string()).unwrap();
        let patience = PATIENCE.as_secs().to_string();
        let usual = [
            ("STREAMGATE_CONFIG", file.to_str().unwrap()),
            ("STREAMGATE_DATA_DIR", node.path().to_str().unwrap()),
            ("STREAMGATE_DATABASE__URL", &database.url),
            ("STREAMGATE_DEFAULT_PROFILE", agent.profile),
            ("STREAMGATE_RUNTIME__KIND", "docker"),
            ("STREAMGATE_RUNTIME__START_TIMEOUT_SECONDS", &patience),
            (agent.key_env, KEY),
        ];
        let settings: Vec<_> =
            usual.iter().chain(further).map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let gateway = start(&settings).await;
        let token = gateway.token("alice").await;
        let containers = Containers::of(&database).await;
        Self { gateway: Some(gateway), containers, mock, token, settings, node, _database: database, _place: place }
    }

    pub(crate) fn gateway(&self) -> &Program {
        self.gateway.as_ref().expect("the gateway lives")
    }

    /// A new client of the one user.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.gateway().address, &self.token, true).await
    }

    /// SIGKILL.
    pub(crate) async fn kill_gateway(&mut self) {
        self.gateway.take().expect("the gateway lives").kill().await;
    }

    /// The good end of one that was told to stop.
    pub(crate) async fn gateway_stopped(&mut self) {
        self.gateway.take().expect("the gateway lives").stopped().await;
    }

    /// Another one, in the place of one that was killed or stopped.
    pub(crate) async fn start_gateway(&mut self) {
        self.gateway = Some(start(&self.settings).await);
    }

    /// A file that is not there yet, for the model's `HOLD`.
    pub(crate) fn hold(&self) -> PathBuf {
        self.node.path().join("go-on")
    }

    /// A file of a session's workspace, as it lies on the disk.
    pub(crate) fn file(&self, session: &Session, name: &str) -> PathBuf {
        self.node.path().join("workspaces").join(&session.container).join(name)
    }
}

async fn start(settings: &[(String, String)]) -> Program {
    let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Program::start(&settings).await
}

/// A session, and its container.
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) container: String,
    pub(crate) container_name: String,
}

impl Session {
    pub(crate) async fn start(client: &mut Client) -> Self {
        Self::of(&client.start_session().await)
    }

    /// The one that a `session.ready` tells of.
    pub(crate) fn of(ready: &Value) -> Self {
        Self {
            id: text(ready, "session_id"),
            container: text(ready, "container_id"),
            container_name: text(ready, "container_name"),
        }
    }

    /// Sends a prompt and reads on to the first frame of its task that `is_last`; the task's id, and the frames.
    pub(crate) async fn begin(
        &self,
        client: &mut Client,
        prompt: &str,
        is_last: impl Fn(&Value) -> bool,
    ) -> (String, Vec<Value>) {
        let turn = json!({"type": "session.turn", "session_id": self.id, "prompt": prompt});
        let ack = client.request(turn).await;
        let task = text(&ack, "task_id");
        let ended = |frame: &Value| frame["type"] == "task:done" || frame["type"] == "task:failed";
        let frames = client.until(|frame| frame["task_id"] == *task && (is_last(frame) || ended(frame))).await;
        let last = frames.last().unwrap();
        assert!(is_last(last), "{last}");
        (task, frames)
    }

    /// One turn, which must end well: its frames.
    pub(crate) async fn turn(&self, client: &mut Client, prompt: &str) -> Vec<Value> {
        let frames = client.turn(&self.id, prompt).await;
        assert_eq!(frames.last().unwrap()["status"], "completed", "{:?}", frames.last());
        frames
    }

    /// What the model says that it was told in this session, by the first lines of the prompts.
    pub(crate) async fn remembered(&self, client: &mut Client) -> String {
        streamed(&self.turn(client, "HISTORY:").await)
    }

    /// What `command` prints in its container, by the agent's user, with `input`, whether it succeeds or not.
    pub(crate) fn look(&self, command: &[&str], input: &str) -> String {
        let mut look = Command::new("docker");
        look.args(["exec", "-i", &self.container_name]).args(command);
        let mut look = look.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        look.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        String::from_utf8(look.wait_with_output().unwrap().stdout).unwrap()
    }
}

/// What the tools of a turn came to, in the order of their calls.
pub(crate) fn outputs(frames: &[Value]) -> Vec<String> {
    let results = of_type(frames, "task:tool_result");
    let uses = of_type(frames, "task:tool_use");
    let result_of = |call: &&Value| results.iter().find(|result| result["tool_use_id"] == call["tool_use_id"]);
    uses.iter().filter_map(result_of).map(|result| text(result, "output")).collect()
}

/// Looks again and again until it is so, but not for ever.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "in time: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}
