//! The document's own client (`document_client.py`) against the real program, on both databases and both
//! runtimes.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "support/containers.rs"]
mod containers;
#[path = "support/database.rs"]
mod database;
#[path = "support/program.rs"]
mod program;
#[path = "support/shims.rs"]
mod shims;

use containers::{Containers, IMAGE};
use program::Program;
use tokio::process::Command;

/// A Python that has `websockets`: the one that scripts/test found, or one that is around.
async fn python() -> String {
    let told = std::env::var("STREAMGATE_TEST_PYTHON").ok();
    let around = ["python3", "/usr/bin/python3"].map(str::to_owned);
    for python in told.into_iter().chain(around) {
        let import = Command::new(&python).args(["-c", "import websockets"]).output().await;
        if import.is_ok_and(|output| output.status.success()) {
            return python;
        }
    }
    panic!(
        "no Python has the package `websockets`: apt-get install python3-websockets, or set STREAMGATE_TEST_PYTHON \
         to a Python that has it, or run scripts/test, which sees to it"
    );
}

/// Runs the client, which must find nothing wrong.
async fn check(program: &Program) {
    let client = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/document_client.py");
    let url = format!("ws://{}/v1/stream", program.address);
    let token = program.token("ada").await;
    let output = Command::new(python().await).args([client, &url, &token]).kill_on_drop(true).output().await.unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let last = stdout.lines().last().unwrap_or_default();
    let good = output.status.success() && last.ends_with(" passed, 0 failed") && !last.starts_with("0 ");
    assert!(good, "{stdout}{stderr}");
}

#[tokio::test]
async fn the_document_holds_for_the_embedded_default() {
    let data = shims::DataDir::new();
    let program = Program::start(&[("STREAMGATE_DATA_DIR", data.path().to_str().unwrap())]).await;
    check(&program).await;
    program.stop().await;
}

#[tokio::test]
async fn the_document_holds_on_postgres_with_containers() {
    containers::need_image().await;
    let (database, data) = (database::postgres().await, tempfile::tempdir().unwrap());
    let program = Program::start(&[
        ("STREAMGATE_DATA_DIR", data.path().to_str().unwrap()),
        ("STREAMGATE_DATABASE__URL", &database.url),
        ("STREAMGATE_RUNTIME__KIND", "docker"),
        ("STREAMGATE_PROFILES__DEMO__IMAGE", IMAGE),
        ("STREAMGATE_PROFILES__DEMO__COMMAND", "[]"),
    ])
    .await;
    // Whatever happens, the program goes first, then what it leaves.
    let (_containers, program) = (Containers::of(&database).await, program);
    check(&program).await;
    program.stop().await;
}
