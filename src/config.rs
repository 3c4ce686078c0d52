//! Every setting, its default, and the check that stops a bad one at the start.
//!
//! Defaults < `--config FILE` (TOML) < `STREAMGATE_…` environment (`__` nests). Used by `main`, which
//! loads and checks, and by `app`, which hands each part its own section. `config::load` reads,
//! `config::check` refuses what can't work together, `config::effective` says what empty keys stand
//! for and prints without secrets, `config::model_api` is what agents may reach, `config::open_files` fits `limits.connections` to the machine,
//! `config::programs` looks for the agents' programs on it.
//! `config/streamgate.toml` shows all keys; a test keeps it equal to these defaults.

mod check;
mod effective;
mod load;
mod model_api;
mod open_files;
mod programs;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use load::{ConfigError, process_environment};
pub use model_api::{ModelApiConfig, ModelApiKind, ModelKey, PriceConfig};
pub(crate) use programs::search_path;

/// All settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The gateway's address as clients see it; `http://<listen>` if empty. Its origin may use cookies.
    pub public_url: String,
    /// Where the gateway keeps what is its own: SQLite, workspaces, the first token.
    pub data_dir: PathBuf,
    /// The profile of who names none; the only one there is need not be named.
    pub default_profile: String,
    /// Seconds to hand over after SIGTERM.
    pub drain_seconds: u64,
    /// Seconds of these in which health says that it drains and all goes on; a quarter of them at most.
    pub drain_notice_seconds: u64,
    /// Days to keep ended sessions; 0 = for ever.
    pub retention_days: u64,
    /// Where sessions and events are kept.
    pub database: DatabaseConfig,
    /// Where agents live.
    pub runtime: RuntimeConfig,
    /// Who gets in.
    pub auth: AuthConfig,
    /// How much of everything.
    pub limits: LimitsConfig,
    /// The operators' listener.
    pub admin: AdminConfig,
    /// What is logged.
    pub log: LogConfig,
    /// The agents, by slug. A file that names any replaces the built-in `demo`; one that names `demo`
    /// changes it key by key.
    pub profiles: BTreeMap<String, ProfileConfig>,
}

/// `database.*`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `sqlite:PATH` or `postgres://…`; `sqlite:<data_dir>/streamgate.db` if empty. A secret.
    pub url: String,
    /// Connections to Postgres.
    pub max_connections: u32,
}

/// `runtime.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// `process` or `docker`.
    pub kind: RuntimeKind,
    /// Where workspaces are, and what agents say until it is safe; if empty in `data_dir`. Gateways that
    /// share an engine share it too.
    pub dir: PathBuf,
    /// For `process`.
    pub process: ProcessConfig,
    /// For `docker`.
    pub docker: DockerConfig,
    /// Seconds without a turn after which a session's container is stopped; its workspace stays.
    pub idle_stop_seconds: u64,
    /// Seconds to wait for a container before the task fails.
    pub start_timeout_seconds: u64,
}

/// Where agents live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// Plain processes beside the gateway: for trusted agents and development.
    Process,
    /// One hardened container per session.
    Docker,
}

/// `runtime.process.*`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessConfig {
    /// Whether a `listen` beyond loopback is fine although agents run unboxed.
    pub trusted: bool,
}

/// `runtime.docker.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DockerConfig {
    /// The engine's socket.
    pub socket: PathBuf,
    /// `runtime.dir` as the engine sees it; if empty under the same path.
    pub engine_dir: PathBuf,
    /// `UID:GID` of agents; if empty `10001:10001` under root, else the gateway's own.
    pub user: String,
}

/// `auth.*`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Origins beside `public_url`'s that may use cookies: `https://app.example.com`.
    pub allowed_origins: Vec<String>,
    /// Roles that may read, cancel and end what others own, and see system prompts. `["admin"]`
    pub privileged_roles: Vec<String>,
    /// Signs links to files; if empty, one is made and kept in the database. A secret.
    pub link_secret: String,
    /// Seconds a link to a file stays valid.
    pub link_seconds: u64,
    /// Session cookies of Better Auth.
    pub better_auth: BetterAuthConfig,
}

/// `auth.better_auth.*`. Off while `secret` is empty.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BetterAuthConfig {
    /// Better Auth's own secret, at least 32 characters. A secret.
    pub secret: String,
    /// The cookie's exact name; if empty by `public_url`: `__Secure-` before it under https.
    pub cookie_name: String,
    /// Where Better Auth's tables are; `database.url` if empty and that is Postgres. A secret.
    pub database_url: String,
}

/// `limits.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Bytes of a client frame or a request body.
    pub frame_bytes: usize,
    /// Bytes of a prompt.
    pub prompt_bytes: usize,
    /// Bytes of an agent's line.
    pub agent_line_bytes: usize,
    /// Bytes of a text in an event.
    pub event_bytes: usize,
    /// Bytes of a file that is read or written over HTTP.
    pub file_bytes: usize,
    /// Client frames per second and connection.
    pub frames_per_second: u32,
    /// Client frames at once.
    pub frames_burst: u32,
    /// Seconds of refused frames on end after which a connection is closed.
    pub flood_seconds: u64,
    /// Connections per user.
    pub connections_per_user: usize,
    /// Connections per process. The default gives way to the machine's open-file limit; any other
    /// value must fit it.
    pub connections: usize,
    /// Sockets beside those of connections: REST calls, and who has not said yet what they want.
    pub other_sockets: usize,
    /// New connections per second.
    pub new_connections_per_second: u32,
    /// Seconds that a new socket may take over its first request's head.
    pub head_seconds: u64,
    /// Seconds that a socket may be idle between two requests.
    pub keep_alive_seconds: u64,
    /// Sessions that a connection follows.
    pub followed_sessions: usize,
    /// Waiting tasks of a session.
    pub waiting_per_session: usize,
    /// Waiting tasks of a user.
    pub waiting_per_user: usize,
    /// Running tasks of a user, those that wait for an answer too.
    pub running_per_user: usize,
    /// Containers of a user.
    pub containers_per_user: usize,
    /// Containers of this gateway.
    pub containers: usize,
    /// Seconds between the server's pings.
    pub ping_seconds: u64,
    /// Seconds without a sign of life after which a connection is dead.
    pub dead_seconds: u64,
    /// Seconds without socket progress after which a connection is closed.
    pub stall_seconds: u64,
    /// Seconds a connection lives, give or take a tenth.
    pub connection_seconds: u64,
    /// Seconds of work a task gets when neither it nor its profile says.
    pub task_seconds: u64,
    /// Seconds a question waits for its answer.
    pub ask_timeout_seconds: u64,
}

/// `admin.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Where the operators' listener is: metrics and health, without a password.
    pub listen: SocketAddr,
}

/// `log.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Which lines, as `tracing` filters: `info`, `warn,streamgate=debug`.
    pub filter: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

/// How lines are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `profiles.<slug>.*`: one kind of agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProfileConfig {
    /// What people call it.
    pub name: String,
    /// Its dialect.
    pub adapter: AdapterKind,
    /// The agent and its arguments; the image's own if empty under `docker`. `streamgate` alone as the
    /// program means this very binary under `process`.
    pub command: Vec<String>,
    /// Its image, under `docker`.
    pub image: String,
    /// Its environment. Not for secrets.
    pub env: BTreeMap<String, String>,
    /// What it is told about itself.
    pub system_prompt: String,
    /// The tools it may use; all if empty.
    pub allowed_tools: Vec<String>,
    /// What becomes of its requests for permission.
    pub permissions: PermissionPolicy,
    /// Its model; its own default if empty.
    pub model: String,
    /// Roles that may use it; everybody if empty.
    pub roles: Vec<String>,
    /// Ready containers kept warm.
    pub warm: usize,
    /// Model calls before it is continued; no limit if 0.
    pub max_turns: u32,
    /// Automatic continuations of one task.
    pub max_continuations: u32,
    /// US dollars of one task; no limit if 0.
    pub max_budget_usd: f64,
    /// What becomes of a task that has cost that.
    pub on_budget: OnBudget,
    /// Seconds of work of one task; `limits.task_seconds` if 0.
    pub timeout_seconds: u64,
    /// Bytes of memory, under `docker`.
    pub memory_bytes: i64,
    /// CPUs, under `docker`.
    pub cpus: f64,
    /// Processes and threads, under `docker`.
    pub pids: i64,
    /// Hosts and ports that it may connect to, through the gateway: `api.example.org:443`. Nothing if empty.
    pub egress: Vec<String>,
    /// Its model, as the gateway reaches it.
    pub model_api: ModelApiConfig,
    /// What its models' tokens cost, by the model's name; `*` for any other.
    pub prices: BTreeMap<String, PriceConfig>,
}

/// A dialect that the gateway speaks with agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// The line protocol of docs/agent-protocol.md.
    Native,
    /// The Agent Client Protocol.
    Acp,
    /// Claude Code's stream-json.
    Claude,
}

impl AdapterKind {
    /// Whether an agent of this kind is started together with its box. If not, its adapter says when, and with
    /// which arguments.
    pub const fn starts_with_box(self) -> bool {
        match self {
            Self::Native | Self::Acp => true,
            Self::Claude => false,
        }
    }
}

/// What becomes of an agent's requests for permission to use a tool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PermissionPolicy {
    /// They are granted: its box is the fence.
    #[default]
    Allow,
    /// Each is put to the user, as a question.
    Ask,
    /// They are refused.
    Deny,
}

/// What becomes of a task that has cost its budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBudget {
    /// It fails.
    #[default]
    Fail,
    /// Its agent is stopped, and the user asked whether it may go on for as much again.
    Ask,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: String::new(),
            data_dir: PathBuf::from("./data"),
            default_profile: "demo".to_owned(),
            drain_seconds: 20,
            drain_notice_seconds: 5,
            retention_days: 0,
            database: DatabaseConfig::default(),
            runtime: RuntimeConfig::default(),
            auth: AuthConfig::default(),
            limits: LimitsConfig::default(),
            admin: AdminConfig::default(),
            log: LogConfig::default(),
            profiles: BTreeMap::from([("demo".to_owned(), ProfileConfig::demo())]),
        }
    }
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self { url: String::new(), max_connections: 10 }
    }
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            kind: RuntimeKind::Process,
            dir: PathBuf::new(),
            process: ProcessConfig::default(),
            docker: DockerConfig::default(),
            idle_stop_seconds: 900,
            start_timeout_seconds: 30,
        }
    }
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self { socket: PathBuf::from("/var/run/docker.sock"), engine_dir: PathBuf::new(), user: String::new() }
    }
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            allowed_origins: Vec::new(),
            privileged_roles: vec!["admin".to_owned()],
            link_secret: String::new(),
            link_seconds: 3_600,
            better_auth: BetterAuthConfig::default(),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            frame_bytes: 1 << 20,
            prompt_bytes: 512 << 10,
            agent_line_bytes: 8 << 20,
            event_bytes: 1 << 20,
            file_bytes: 32 << 20,
            frames_per_second: 20,
            frames_burst: 60,
            flood_seconds: 10,
            connections_per_user: 20,
            connections: 10_000,
            other_sockets: 1_000,
            new_connections_per_second: 200,
            head_seconds: 10,
            keep_alive_seconds: 75,
            followed_sessions: 64,
            waiting_per_session: 20,
            waiting_per_user: 100,
            running_per_user: 4,
            containers_per_user: 10,
            containers: 50,
            ping_seconds: 25,
            dead_seconds: 60,
            stall_seconds: 30,
            connection_seconds: 43_200,
            task_seconds: 3_600,
            ask_timeout_seconds: 86_400,
        }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9090)) }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

impl Default for ProfileConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            adapter: AdapterKind::Native,
            command: Vec::new(),
            image: String::new(),
            env: BTreeMap::new(),
            system_prompt: String::new(),
            allowed_tools: Vec::new(),
            permissions: PermissionPolicy::default(),
            model: String::new(),
            roles: Vec::new(),
            warm: 0,
            max_turns: 0,
            max_continuations: 20,
            max_budget_usd: 0.0,
            on_budget: OnBudget::default(),
            timeout_seconds: 0,
            memory_bytes: 1 << 30,
            cpus: 1.0,
            pids: 256,
            egress: Vec::new(),
            model_api: ModelApiConfig::default(),
            prices: BTreeMap::new(),
        }
    }
}

impl ProfileConfig {
    /// The built-in profile: the demo agent, under either runtime.
    pub fn demo() -> Self {
        Self {
            name: "Demo agent".to_owned(),
            command: vec!["streamgate".to_owned(), "demo-agent".to_owned()],
            image: "streamgate-demo-agent".to_owned(),
            system_prompt: "You are the demo agent of streamgate. You repeat what you are told, and follow directives."
                .to_owned(),
            warm: 1,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use toml::{Table, Value};

    use super::*;

    const DEFAULTS: &str = include_str!("../config/streamgate.toml");
    const PRODUCTION: &str = include_str!("../config/production.toml");

    /// Every key in `table`, with those it is in.
    fn keys(table: &Table) -> Vec<String> {
        let inner = |(key, value): (&String, &Value)| {
            let below = value.as_table().map(keys).unwrap_or_default();
            let below = below.into_iter().map(move |inner| format!("{key}.{inner}")).collect::<Vec<_>>();
            std::iter::once(key.clone()).chain(below).collect::<Vec<_>>()
        };
        table.iter().flat_map(inner).collect()
    }

    #[test]
    fn the_file_of_all_keys_says_the_defaults() {
        assert_eq!(toml::from_str::<Config>(DEFAULTS), Ok(Config::default()));
        let (written, all): (Table, _) =
            (toml::from_str(DEFAULTS).unwrap(), Table::try_from(Config::default()).unwrap());
        assert_eq!(keys(&written), keys(&all));
    }

    #[test]
    fn the_production_file_works() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/production.toml");
        let url = ("STREAMGATE_DATABASE__URL".to_owned(), "postgres://streamgate:x@postgres/streamgate".to_owned());
        let config = Config::load(Some(&file), [url]).unwrap();
        config.check().unwrap();
        assert_eq!((config.runtime.kind, config.listen.port()), (RuntimeKind::Docker, 8080));
        assert!(!PRODUCTION.contains("\nurl"), "no secret in a file that an image holds");
    }
}
