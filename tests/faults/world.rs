//! Everything a scenario plays in: a Postgres, the gateways on it, a proxy before each of both, agents, a seed.

use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::docker::{self, Container, Docker};
use crate::paced::Pace;
use crate::postgres::Postgres;
use crate::program::Program;
use crate::proxy::Proxy;
use crate::shims::DataDir;
use crate::story::{MANNERS, Story};
use crate::witness::{Door, Manner, Witness};

/// No wait is longer. Generous: outages are part of it, and the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// The stage. Everything on it ends with it.
pub(crate) struct World {
    pub(crate) chance: StdRng,
    /// Where gateways find their agents: they share it.
    pub(crate) shared: DataDir,
    pub(crate) postgres: Postgres,
    /// Between the gateways and Postgres.
    pub(crate) to_postgres: Proxy,
    /// Between the clients and the gateways.
    pub(crate) front: Proxy,
    /// Settings of all gateways beside those that every scenario has.
    pub(crate) settings: Vec<(String, String)>,
    /// Where agents live, when they live in containers.
    docker: Option<Docker>,
    token: Option<String>,
}

impl World {
    /// With a Postgres that lacks nothing.
    pub(crate) async fn new() -> Self {
        Self::on(Postgres::start()).await
    }

    pub(crate) async fn on(postgres: Postgres) -> Self {
        let seed = std::env::var("STREAMGATE_FAULT_SEED").ok().map_or_else(rand::random, |seed| seed.parse().unwrap());
        println!("STREAMGATE_FAULT_SEED={seed}");
        let to_postgres = Proxy::start().await;
        to_postgres.lead_to(Some(([127, 0, 0, 1], postgres.port).into()));
        Self {
            chance: StdRng::seed_from_u64(seed),
            shared: DataDir::new(),
            postgres,
            to_postgres,
            front: Proxy::start().await,
            settings: Vec::new(),
            docker: None,
            token: None,
        }
    }

    /// With agents in containers of this machine's engine.
    pub(crate) async fn docker() -> Self {
        Self::docker_at(Path::new("/var/run/docker.sock")).await
    }

    /// With agents in containers of the engine behind `socket`.
    pub(crate) async fn docker_at(socket: &Path) -> Self {
        let docker = Docker::at(socket);
        let mut world = Self::new().await;
        world.docker = Some(docker);
        let profiles = world.shared.path().join("profiles.toml");
        std::fs::write(&profiles, docker::profiles()).unwrap();
        world.set("CONFIG", profiles.to_str().unwrap());
        world.set("RUNTIME__KIND", "docker");
        world.set("RUNTIME__DOCKER__SOCKET", socket.to_str().unwrap());
        world
    }

    /// The engine that agents live in.
    pub(crate) fn engine(&self) -> &Docker {
        self.docker.as_ref().expect("a world with containers")
    }

    /// One more setting of every gateway that starts from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.settings.push((format!("STREAMGATE_{name}"), value.to_owned()));
    }

    /// A gateway on the data directory `node`. Clients are led to it.
    pub(crate) async fn start(&mut self, node: &DataDir) -> Program {
        let gateway = self.start_aside(node).await;
        self.front.lead_to(Some(gateway.address));
        gateway
    }

    /// A gateway on the data directory `node`, of which clients don't know.
    pub(crate) async fn start_aside(&mut self, node: &DataDir) -> Program {
        let database = format!("postgres://postgres@{}/postgres", self.to_postgres.address);
        let path = std::env::var("PATH").unwrap();
        let many = "1000";
        let mut settings = vec![
            ("PATH", path.as_str()),
            ("STREAMGATE_DATA_DIR", node.path().to_str().unwrap()),
            ("STREAMGATE_RUNTIME__DIR", self.shared.path().to_str().unwrap()),
            ("STREAMGATE_DATABASE__URL", &database),
            ("STREAMGATE_LIMITS__CONNECTIONS_PER_USER", many),
            ("STREAMGATE_LIMITS__NEW_CONNECTIONS_PER_SECOND", many),
            ("STREAMGATE_LIMITS__RUNNING_PER_USER", many),
            ("STREAMGATE_LIMITS__CONTAINERS_PER_USER", many),
            ("STREAMGATE_LIMITS__CONTAINERS", many),
            ("STREAMGATE_LIMITS__CONNECTIONS", "4000"),
        ];
        settings.extend(self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let gateway = Program::start(&settings).await;
        if self.token.is_none() {
            self.token = Some(gateway.token("alice").await);
        }
        if let Some(docker) = &mut self.docker {
            let instance = sqlx::query_scalar("SELECT value FROM settings WHERE name = 'instance_id'");
            docker.instance = Some(instance.fetch_one(&self.postgres.pool().await).await.unwrap());
        }
        gateway
    }

    /// Where clients go.
    pub(crate) fn door(&self) -> Door {
        let token = self.token.clone().expect("a gateway has been started");
        Door { address: self.front.address, token, pace: Pace::free() }
    }

    /// A session whose agent says so many numbers, one each `every` milliseconds, and who follows it.
    pub(crate) async fn tell(&mut self, words: usize, every: u64) -> Story {
        self.tell_to(&MANNERS, words, format!("/tokens {words} {every}"), None).await
    }

    /// A session of `profile` whose agent says so many numbers on this prompt, and who follows it.
    pub(crate) async fn tell_to(
        &mut self,
        manners: &[Manner],
        words: usize,
        prompt: String,
        profile: Option<&str>,
    ) -> Story {
        let door = self.door();
        let key = uuid::Uuid::now_v7().to_string();
        let mut submit = json!({"type": "task.submit", "prompt": prompt, "idempotency_key": key});
        if let Some(profile) = profile {
            submit["profile_id"] = json!(profile);
        }
        let ready = door.ask(submit).await;
        assert_eq!(ready["type"], "session.ready", "{ready}");
        let (session, task) = (ready["session_id"].as_str().unwrap(), ready["task_id"].as_str().unwrap());
        let mut story = Story::new(session, task, words);
        for (number, manner) in manners.iter().enumerate() {
            let progress = self.follow(&mut story, &door, *manner);
            if number == 0 {
                story.progress = progress;
            }
        }
        story
    }

    /// One more who follows a story, from its beginning: how many events it has seen.
    pub(crate) fn follow(&mut self, story: &mut Story, door: &Door, manner: Manner) -> watch::Receiver<usize> {
        let (progress, seen) = watch::channel(0);
        let witness = Witness::new(door.clone(), &story.session, &story.task, manner, self.chance.random(), progress);
        story.witnesses.push(AbortOnDropHandle::new(tokio::spawn(witness.run())));
        seen
    }

    /// A session whose agent runs this shell script and says so many numbers, and who follows it.
    pub(crate) async fn tell_shell(&mut self, words: usize, script: &str) -> Story {
        self.tell_to(&MANNERS, words, script.to_owned(), Some("prof_shell")).await
    }

    /// One more turn of a session, from its prompt to its end: the events of its task.
    pub(crate) async fn turn(&mut self, session: &str, prompt: &str) -> Vec<Value> {
        let door = self.door();
        let key = uuid::Uuid::now_v7().to_string();
        let submit = json!({"type": "task.submit", "session_id": session, "prompt": prompt, "idempotency_key": key});
        let reply = door.ask(submit).await;
        let task = reply["task_id"].as_str().unwrap_or_else(|| panic!("{reply}"));
        let progress = watch::Sender::new(0);
        let witness = Witness::new(door, session, task, Manner::Steady, self.chance.random(), progress);
        let seen = tokio::time::timeout(PATIENCE, witness.run()).await.expect("the turn ends in time");
        let frames = seen.events.iter().map(|(_, frame)| serde_json::from_str(frame).unwrap());
        frames.filter(|frame: &Value| frame["task_id"] == task).collect()
    }

    /// What the agent says in one more turn of a session, which must end well.
    pub(crate) async fn hear(&mut self, session: &str, prompt: &str) -> String {
        let frames = self.turn(session, prompt).await;
        let end = frames.last().unwrap();
        assert_eq!(end["status"], "completed", "{end}");
        frames.iter().filter(|frame| frame["type"] == "task:token").filter_map(|frame| frame["text"].as_str()).collect()
    }

    /// The box of a session, once a task has begun in it.
    pub(crate) async fn container(&self, session: &str) -> Container {
        let journal = self.journal().await;
        let begun = async {
            loop {
                let frames = sqlx::query_scalar("SELECT frame FROM events WHERE session_id = $1 ORDER BY seq");
                let frames: Vec<String> = frames.bind(session).fetch_all(&journal).await.unwrap();
                let mut frames = frames.iter().map(|frame| serde_json::from_str::<Value>(frame).unwrap());
                if let Some(started) = frames.find(|frame| frame["type"] == "task:started") {
                    return started;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let started = tokio::time::timeout(PATIENCE, begun).await.expect("a task begins in time");
        let spool = sqlx::query_scalar("SELECT spool_id FROM sessions WHERE id = $1");
        let spool: String = spool.bind(session).fetch_one(&journal).await.unwrap();
        let text = |field: &str| started[field].as_str().unwrap().to_owned();
        Container {
            name: text("container_name"),
            workspace: self.shared.path().join("workspaces").join(text("container_id")),
            spool: self.shared.path().join("spools").join(spool),
        }
    }

    /// The journal itself, past every proxy.
    pub(crate) async fn journal(&self) -> PgPool {
        self.postgres.pool().await
    }

    /// A duration between these, in milliseconds, as chance has it.
    pub(crate) fn moment(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.chance.random_range(range))
    }
}

/// Waits until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}, in time"));
}
