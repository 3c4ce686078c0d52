//! A gateway's runtime and proxy, and boxes whose agent sends what it is told.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use streamgate::config::{DockerConfig, ProfileConfig};
use streamgate::domain::{ContainerId, ProfileId};
use streamgate::metrics::{Metrics, Snapshot};
use streamgate::proxy::{Channel, Dial, Internet, Metered, ModelProxy};
use streamgate::runtime::docker::DockerRuntime;
use streamgate::runtime::process::ProcessRuntime;
use streamgate::runtime::{Agent, AgentSpec, LineText, Output, Runtime};

use crate::shims::DataDir;

pub(crate) const DEADLINE: Duration = Duration::from_mins(1);
pub(crate) const KEY: &str = "sk-test-0f1e2d3c4b5a";
const IMAGE: &str = "debian:bookworm-slim";

/// Sends each line of its stdin, escapes read, as a request of its own, and shows what comes back, and its end.
const AGENT: &str = r#"
base=${BASE#http://} e=end
echo "base $BASE"
while IFS= read -r line; do
  case $line in
    cancel) kill $pid ;;
    look) (cat $PLACES 2>/dev/null; env) | tr '\0' '\n'; echo; echo "<$e>" ;;
    *) ( exec 3<>/dev/tcp/${base%:*}/${base#*:} || exit
         cat <&3 & trap "kill $!" TERM
         printf '%b' "$line" >&3 # now it can be cancelled
         wait $!; exec 3>&-; echo; echo "<$e>" ) & pid=$! ;;
  esac
done
"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Process,
    Docker,
}

/// A gateway. What it started is gone at the end.
pub(crate) struct World {
    pub(crate) kind: Kind,
    pub(crate) metrics: Arc<Metrics>,
    profiles: BTreeMap<String, ProfileConfig>,
    runtime: Arc<dyn Runtime>,
    pub(crate) proxy: ModelProxy,
    instance: String,
    dial: Arc<dyn Dial>,
    key_file: tempfile::NamedTempFile,
    data_dir: DataDir,
}

impl World {
    /// Whose agents reach the model at `url`.
    pub(crate) async fn new(kind: Kind, api: &str, url: &str) -> Self {
        Self::with(kind, &format!("[model_api]\nkind = '{api}'\nurl = '{url}'"), Arc::new(Internet)).await
    }

    /// Of a profile with these settings besides.
    pub(crate) async fn with(kind: Kind, profile: &str, dial: Arc<dyn Dial>) -> Self {
        let (data_dir, mut key_file) = (DataDir::new(), tempfile::NamedTempFile::new().unwrap());
        writeln!(key_file, "{KEY}").unwrap();
        let mut profile: ProfileConfig = toml::from_str(profile).unwrap();
        profile.command = ["bash", "-c", AGENT].map(str::to_owned).to_vec();
        IMAGE.clone_into(&mut profile.image);
        profile.model_api.key_file = key_file.path().to_owned();
        profile.env.insert("BASE".to_owned(), "{proxy}".to_owned());
        // A container has only its own; on a host only the agent's are its box's.
        let places = match kind {
            Kind::Docker => "/proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/mountinfo",
            Kind::Process => "/proc/self/environ /proc/self/cmdline",
        };
        profile.env.insert("PLACES".to_owned(), places.to_owned());
        profile.prices.insert("*".to_owned(), toml::from_str("input = 1.0\noutput = 10.0").unwrap());
        let instance = format!("test-{}", ContainerId::generate());
        let runtime: Arc<dyn Runtime> = match kind {
            Kind::Process => Arc::new(ProcessRuntime::new(data_dir.path(), None, "node", 1 << 20).unwrap()),
            Kind::Docker => {
                let docker = DockerConfig::default();
                let runtime = DockerRuntime::connect(&docker, data_dir.path(), &instance, "node", 1 << 20).await;
                let runtime = runtime.unwrap_or_else(|error| panic!("these tests need a Docker engine: {error}"));
                runtime.find_image(IMAGE).await.unwrap();
                Arc::new(runtime)
            }
        };
        let (profiles, metrics) = (BTreeMap::from([("test".to_owned(), profile)]), Arc::new(Metrics::new()));
        let proxy = ModelProxy::with_dial(data_dir.path(), &profiles, Arc::clone(&metrics), Arc::clone(&dial)).unwrap();
        Self { kind, metrics, profiles, runtime, proxy, instance, dial, key_file, data_dir }
    }

    /// Its proxy as it is after a restart.
    pub(crate) fn restart_proxy(&mut self) {
        let metrics = Arc::clone(&self.metrics);
        let dial = Arc::clone(&self.dial);
        self.proxy = ModelProxy::with_dial(self.data_dir.path(), &self.profiles, metrics, dial).unwrap();
    }

    /// A box with its agent, and its way out.
    pub(crate) async fn start(&self) -> (Shell, Channel) {
        let shell = self.start_alone().await;
        let channel = self.open(&shell);
        (shell, channel)
    }

    pub(crate) async fn start_alone(&self) -> Shell {
        let spec = AgentSpec {
            container_id: ContainerId::generate(),
            profile_id: ProfileId::from_slug("test"),
            profile: Arc::new(self.profiles["test"].clone()),
        };
        let agent = self.runtime.start(&spec).await.unwrap();
        let mut shell = Shell { agent, lines: Vec::new(), told: 0 };
        let base = shell.line().await;
        match self.kind {
            Kind::Docker => assert_eq!(base, "base http://127.0.0.1:8642"),
            Kind::Process => assert!(base.starts_with("base http://127.0.0.1:"), "{base}"),
        }
        shell
    }

    pub(crate) fn open(&self, shell: &Shell) -> Channel {
        let profile_id = ProfileId::from_slug("test");
        self.proxy.open(shell.agent.container_id, &profile_id).unwrap().expect("the profile has a model")
    }

    /// Closes the way, and returns when nobody listens any more.
    pub(crate) async fn close(&self, shell: &Shell, channel: Channel) {
        drop(channel);
        self.has_closed(shell).await;
    }

    /// Returns when nobody listens to it any more.
    pub(crate) async fn has_closed(&self, shell: &Shell) {
        let socket = self.data_dir.path().join(format!("proxies/{}/socket", shell.agent.container_id));
        while tokio::net::UnixStream::connect(&socket).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) fn spools(&self) -> std::path::PathBuf {
        self.data_dir.path().join("shims")
    }

    pub(crate) fn key_file(&self) -> &std::path::Path {
        self.key_file.path()
    }

    /// The value of `streamgate_<series>`.
    #[track_caller]
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let text = self.metrics.render(Snapshot {
            connections: 0,
            sessions: 0,
            containers_running: 0,
            containers_idle: 0,
            containers_warm: 0,
            containers_limit: 0,
            journal_available: true,
        });
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("streamgate_{series} ")));
        line.unwrap_or_else(|| panic!("no `{series}` in {text}")).parse().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.kind == Kind::Docker {
            // A test may be panicking, on a runtime that is going away: the client is the sure way.
            let filter = format!("label=streamgate.instance={}", self.instance);
            let found = std::process::Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().unwrap();
            for id in String::from_utf8_lossy(&found.stdout).split_whitespace() {
                let _ = std::process::Command::new("docker").args(["rm", "-f", id]).output();
            }
        }
    }
}

/// An agent that sends what it is told.
pub(crate) struct Shell {
    pub(crate) agent: Agent,
    lines: Vec<String>,
    told: usize,
}

impl Shell {
    pub(crate) async fn tell(&mut self, line: &str) {
        self.told += 1;
        let id = format!("w{}", self.told);
        self.agent.process.write(&id, &format!("{line}\n"), DEADLINE).await.unwrap();
    }

    /// Sends a request, without waiting for anything.
    pub(crate) async fn send(&mut self, head: &str, body: &str) {
        let (length, body) = (body.len(), body.replace('\\', r"\\"));
        let more = "host: x\\r\\nconnection: close\\r\\nauthorization: Bearer mine\\r\\nx-api-key: mine\\r\\ncookie: a=b\\r\\n";
        let text = format!("{head} HTTP/1.1\\r\\n{more}content-length: {length}\\r\\n\\r\\n{body}");
        self.tell(&text).await;
    }

    /// The next line.
    pub(crate) async fn line(&mut self) -> String {
        while self.lines.is_empty() {
            let output = tokio::time::timeout(DEADLINE, self.agent.output.recv()).await;
            match output.expect("the agent says nothing") {
                Some(Output::Lines(lines)) => self.lines = lines.into_iter().map(|line| text(line.text)).collect(),
                other => panic!("{other:?}"),
            }
        }
        self.lines.remove(0)
    }

    /// All lines up to the first that contains `text`.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let mut all = String::new();
        while !all.contains(text) {
            all.push_str(&self.line().await);
            all.push('\n');
        }
        all
    }

    /// Sends a request; gives what came back.
    pub(crate) async fn ask(&mut self, head: &str, body: &str) -> String {
        self.send(head, body).await;
        self.until("<end>").await
    }
}

fn text(text: LineText) -> String {
    match text {
        LineText::Utf8(text) => text.trim_end_matches('\r').to_owned(),
        other => panic!("{other:?}"),
    }
}

/// `model input output read written`.
pub(crate) fn tokens(metered: &Metered) -> String {
    let Metered { model, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, .. } = metered;
    format!("{model} {input_tokens} {output_tokens} {cache_read_tokens} {cache_write_tokens}")
}

pub(crate) async fn next(channel: &mut Channel) -> Metered {
    tokio::time::timeout(DEADLINE, channel.recv()).await.expect("nothing is metered")
}

pub(crate) async fn quiet(channel: &Channel) {
    tokio::time::timeout(DEADLINE, channel.quiet()).await.expect("a call goes on");
}
