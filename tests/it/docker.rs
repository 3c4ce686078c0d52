//! Sessions in containers, as production runs them: Docker, Postgres and the demo agent's image.

mod lives;
mod places;
mod restart;

use serde_json::Value;
use streamgate::config::{Config, ProfileConfig, RuntimeKind};

use crate::containers::{self, Containers, IMAGE, endless, runs};
use crate::database;
use crate::frames::text;
use crate::support::{Client, TestGateway, of_type};

/// A gateway whose agents live in containers.
struct Docked {
    gateway: TestGateway,
    containers: Containers,
}

/// A profile whose agent is what the image starts.
fn profile() -> ProfileConfig {
    ProfileConfig { image: IMAGE.to_owned(), command: Vec::new(), warm: 0, ..ProfileConfig::demo() }
}

impl Docked {
    async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        containers::need_image().await;
        let gateway = TestGateway::start_with(database::postgres().await, |config| {
            config.runtime.kind = RuntimeKind::Docker;
            config.profiles.insert("demo".to_owned(), profile());
            change(config);
        })
        .await;
        let containers = Containers::of(&gateway.database).await;
        Self { gateway, containers }
    }

    /// Stops it as SIGTERM does: containers in use stay as they are, and go with the test.
    async fn stop(self) {
        self.gateway.stop().await;
    }
}

/// A session's id, its box and what the container is called.
struct Started {
    session: String,
    container: String,
    name: String,
}

async fn started(client: &mut Client) -> Started {
    let ready = client.start_session().await;
    Started {
        session: text(&ready, "session_id"),
        container: text(&ready, "container_id"),
        name: text(&ready, "container_name"),
    }
}

/// What the agent said in a turn that must have gone well.
fn said(frames: &[Value]) -> String {
    assert_eq!(frames.last().unwrap()["status"], "completed", "{:?}", frames.last());
    text(of_type(frames, "turn.done")[0], "result_text")
}

/// Which container a turn ran in, as its events tell: the box and the name.
fn ran_in(frames: &[Value]) -> (String, String) {
    let started = of_type(frames, "task:started")[0];
    (text(started, "container_id"), text(started, "container_name"))
}
