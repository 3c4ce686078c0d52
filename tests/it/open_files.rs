//! No file descriptor left: who is connected goes on, others wait, and nothing spins, panics or stays broken.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::json;
use tokio::time::sleep;

use crate::frames::{replay, text};
use crate::program::Program;
use crate::shims::DataDir;
use crate::sockets::{Plain, get};
use crate::support::{Client, of_type, on_both, streamed};
use crate::world::eventually;

/// What the kernel says of a program.
struct Process(PathBuf);

impl Process {
    fn of(program: &Program) -> Self {
        Self(PathBuf::from(format!("/proc/{}", program.pid().as_raw_nonzero())))
    }

    /// The descriptor that the next file gets.
    fn first_free(&self) -> u64 {
        (0..100_000).find(|file| !self.0.join("fd").join(file.to_string()).is_symlink()).unwrap()
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.0.join("fd")).unwrap().count()
    }

    /// The time that it has worked, in hundredths of a second.
    fn worked(&self) -> u64 {
        let stat = std::fs::read_to_string(self.0.join("stat")).unwrap();
        let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

/// Says how many files a program may open, as it runs.
fn limit_files(program: &Program, files: u64) {
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    prlimit(Some(program.pid()), Resource::Nofile, Rlimit { current: Some(files), maximum: hard }).unwrap();
}

#[tokio::test]
async fn without_a_free_file_who_is_here_goes_on_and_all_is_well_again_when_there_are_some() {
    on_both(|database| async move {
        let data = DataDir::new();
        let settings = [
            ("STREAMGATE_DATA_DIR", data.path().to_str().unwrap()),
            ("STREAMGATE_DATABASE__URL", &*database.url),
            ("STREAMGATE_LIMITS__CONNECTIONS", "500"),
            ("STREAMGATE_LIMITS__HEAD_SECONDS", "600"),
            ("STREAMGATE_RUNTIME__START_TIMEOUT_SECONDS", "3"),
            ("STREAMGATE_PROFILES__DEMO__WARM", "0"),
        ];
        let program = Program::start(&settings).await;
        let token = program.token("alice").await;
        let mut client = Client::connect(program.address, &token, true).await;
        let ready = client.start_session().await;
        let session = text(&ready, "session_id");
        client.turn(&session, "/say before").await;

        let process = Process::of(&program);
        limit_files(&program, process.first_free() + 2);
        let mut strangers = Vec::new();
        for _ in 0..30 {
            strangers.push(Plain::open(program.address).await);
        }
        eventually("there is no file left", async || program.log().contains("No connection can be accepted now")).await;

        // Who is connected works on with the agent that there is.
        assert_eq!(streamed(&client.turn(&session, "/say during").await), "during");
        // What needs a file is refused in so many words, or done with one that has become free.
        for frame in [json!({"type": "session.start"}), json!({"type": "task.submit", "prompt": "/say no"})] {
            let reply = client.request(frame).await;
            assert!(reply["type"] == "session.ready" || reply["retry_after_ms"].is_u64(), "{reply}");
            if reply["type"] == "session.ready" && reply["task_id"].is_string() {
                client.until_task_end().await;
            }
        }
        // A task is at work through all of it.
        let container = text(&ready, "container_id");
        client.hold_in(&session, "go").await;
        let worked = process.worked();
        sleep(Duration::from_secs(3)).await;
        let worked = process.worked() - worked;
        assert!(worked < 100, "it spins: {worked} hundredths of 3 s");

        std::fs::write(data.path().join("workspaces").join(container).join("go"), "").unwrap();
        let done = client.until_task_end().await.pop().unwrap();
        assert_eq!(done["status"], "completed", "{done}");

        drop(strangers);
        limit_files(&program, 20_000.min(rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(20_000)));
        let mut late = Client::connect(program.address, &token, true).await;
        let frames = late.run("/say after").await;
        assert_eq!(of_type(&frames, "task:done")[0]["status"], "completed");
        assert_eq!(streamed(&client.turn(&session, "/say after").await), "after");
        assert_eq!(of_type(&replay(&mut late, &session).await, "turn.done").len(), 4);
        assert!(program.log().contains("Connections are accepted again"));
        assert!(!program.log().contains("panicked"), "{}", program.log());
        program.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_crowd_of_silent_sockets_takes_no_more_files_than_are_set_aside_and_keeps_nobody_out() {
    let data = DataDir::new();
    let settings = [
        ("STREAMGATE_DATA_DIR", data.path().to_str().unwrap()),
        ("STREAMGATE_LIMITS__CONNECTIONS", "50"),
        ("STREAMGATE_LIMITS__OTHER_SOCKETS", "50"),
        ("STREAMGATE_LIMITS__HEAD_SECONDS", "5"),
    ];
    let program = Program::start(&settings).await;
    let token = program.token("alice").await;
    let mut client = Client::connect(program.address, &token, true).await;
    client.run("/say well").await;
    let process = Process::of(&program);
    let before = process.files();
    let mut crowd = Vec::new();
    for at in 0..1_000 {
        let mut socket = Plain::open(program.address).await;
        // Some begin a request, so that they are not just idle.
        if at % 3 == 0 {
            socket.send(&get("/health", None)[..10]).await;
        }
        crowd.push(socket);
    }
    assert_eq!(client.request(json!({"type": "ping"})).await["type"], "pong");
    let mut late = Client::connect(program.address, &token, true).await;
    assert_eq!(late.request(json!({"type": "ping"})).await["type"], "pong");
    let more = process.files().saturating_sub(before);
    assert!(more <= 100 + 20, "{more} files more than before");
    drop(crowd);
    program.stop().await;
}
