//! Containers, through an engine's own client: what a saboteur does to them, and their end with the test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::postgres::run;

/// The demo agent around the program under test; scripts/test builds it.
const IMAGE: &str = "streamgate-demo-agent:test";

/// The agents of every scenario with containers: the demo agent, one whose prompts are shell, one that never reads.
pub(crate) fn profiles() -> String {
    let shell = include_str!("agent.sh");
    format!(
        "[profiles.demo]\nimage = '{IMAGE}'\ncommand = []\nwarm = 0\n\
         [profiles.shell]\nimage = '{IMAGE}'\ncommand = ['sh', '-c', '''\n{shell}''']\n\
         [profiles.deaf]\nimage = '{IMAGE}'\ncommand = ['sleep', '1000']\n"
    )
}

/// An engine, and the containers of one instance on it, which go with this.
pub(crate) struct Docker {
    pub(crate) socket: PathBuf,
    /// Whose containers these are, once there is a gateway.
    pub(crate) instance: Option<String>,
}

impl Docker {
    /// The engine behind `socket`, which must have the image.
    pub(crate) fn at(socket: &Path) -> Self {
        let docker = Self { socket: socket.to_owned(), instance: None };
        let found = docker.client(&["image", "inspect", IMAGE]).output().unwrap();
        assert!(found.status.success(), "this test needs a Docker engine and `{IMAGE}`, which scripts/test builds");
        docker
    }

    fn client(&self, arguments: &[&str]) -> Command {
        client(&self.socket, arguments)
    }

    /// What the client prints when it does this, which must succeed.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        String::from_utf8(run(&mut self.client(arguments)).stdout).unwrap()
    }

    /// A container's first process, the shim, as the host sees it.
    pub(crate) fn shim(&self, container: &str) -> i32 {
        self.run(&["inspect", "--format", "{{.State.Pid}}", container]).trim().parse().unwrap()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let Some(instance) = &self.instance else { return };
        let of_instance = format!("label=streamgate.instance={instance}");
        let Ok(found) = self.client(&["ps", "-aq", "--filter", &of_instance]).output() else { return };
        remove(&self.socket, &found);
    }
}

/// A session's box.
pub(crate) struct Container {
    /// What the engine calls it.
    pub(crate) name: String,
    /// Its files, as the host sees them.
    pub(crate) workspace: PathBuf,
    /// Where its shim keeps what its agent says.
    pub(crate) spool: PathBuf,
}

impl Container {
    /// How many numbers its agent has noted; at most the last one has not been said.
    pub(crate) fn noted(&self) -> usize {
        std::fs::read_to_string(self.workspace.join("said")).unwrap_or_default().lines().count()
    }

    /// How many bytes its spool takes.
    pub(crate) fn spooled(&self) -> u64 {
        let files = std::fs::read_dir(&self.spool).unwrap();
        files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
    }

    /// Whether its spool holds this text.
    pub(crate) fn keeps(&self, text: &str) -> bool {
        let files = std::fs::read_dir(&self.spool).unwrap().flatten();
        let mut contents = files.filter_map(|file| std::fs::read(file.path()).ok());
        contents.any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    }

    /// Lets an agent go on that awaits this file.
    pub(crate) fn make(&self, file: &str) {
        std::fs::write(self.workspace.join(file), "").unwrap();
    }
}

/// The client of the engine behind `socket`.
pub(crate) fn client(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.arg("-H").arg(format!("unix://{}", socket.display())).args(arguments);
    command
}

/// Removes the containers that the client has listed, however they are.
pub(crate) fn remove(socket: &Path, listed: &Output) {
    for id in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
        let _ = client(socket, &["rm", "-f", id]).output(); // It may be gone.
    }
}

/// Gives the image to the engine behind `socket`.
pub(crate) fn load_image(socket: &Path) {
    let mut save = Command::new("docker").args(["save", IMAGE]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    run(client(socket, &["load"]).stdin(save.stdout.take().unwrap()));
    assert!(save.wait().unwrap().success(), "this test needs the image `{IMAGE}`, which scripts/test builds");
}
