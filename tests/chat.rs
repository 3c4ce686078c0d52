//! `streamgate chat` in a terminal, with a real gateway and the demo agent: what its user presses and sees.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

#[path = "support/client.rs"]
mod client;
#[path = "support/program.rs"]
mod program;
#[path = "support/scripted.rs"]
mod scripted;
#[path = "support/shims.rs"]
mod shims;
#[path = "support/terminal.rs"]
mod terminal;

use std::net::SocketAddr;
use std::time::Duration;

use client::Client;
use program::Program;
use rustix::process::Signal;
use scripted::{Gateway, TOKEN};
use serde_json::{Value, json};
use shims::DataDir;
use terminal::{CTRL_C, CTRL_D, DOWN, ENTER, Terminal, UP};

/// No wait is longer. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(1);

/// A gateway and the token of its user.
struct World {
    // The gateway goes before what it leaves.
    program: Program,
    token: String,
    data: DataDir,
}

fn command(arguments: &[&str], url: &str, token: &str) -> pty_process::Command {
    let command = pty_process::Command::new(program::binary()).arg("chat").args(arguments);
    command.env_clear().env("STREAMGATE_URL", url).env("STREAMGATE_TOKEN", token).env("NO_COLOR", "1")
}

async fn gateway(data: &DataDir, listen: &str) -> Program {
    Program::start(&[("STREAMGATE_DATA_DIR", data.path().to_str().unwrap()), ("STREAMGATE_LISTEN", listen)]).await
}

impl World {
    async fn new() -> Self {
        let data = DataDir::new();
        let program = gateway(&data, "127.0.0.1:0").await;
        let token = program.token("ada").await;
        Self { program, token, data }
    }

    fn command(&self, arguments: &[&str]) -> pty_process::Command {
        command(arguments, &format!("ws://{}", self.program.address), &self.token)
    }

    /// A conversation that waits for its first prompt.
    async fn chat(&self, arguments: &[&str]) -> Terminal {
        let mut terminal = Terminal::run(self.command(arguments));
        terminal.ends_with("\n>").await;
        terminal
    }

    /// A conversation in which the agent asks.
    async fn asked(&self, ask: &str, last_line: &str) -> Terminal {
        let mut chat = self.chat(&[]).await;
        chat.press(&format!("{ask}{ENTER}")).await;
        chat.ends_with(last_line).await;
        chat
    }

    /// The gateway dies, and takes its address with it until it comes back.
    async fn crash(self) -> (SocketAddr, String, DataDir) {
        let address = self.program.address;
        self.program.kill().await;
        (address, self.token, self.data)
    }

    async fn come_back((address, token, data): (SocketAddr, String, DataDir)) -> Self {
        let program = gateway(&data, &address.to_string()).await;
        Self { program, token, data }
    }

    async fn client(&self) -> Client {
        Client::connect(self.program.address, &self.token, true).await
    }
}

/// The session that a screen names.
fn session(screen: &str) -> String {
    screen.lines().find_map(|line| line.strip_prefix("session ")).unwrap().to_owned()
}

const ASK: &str = "/ask Which one? | Red | Green | Blue";
const ASKED: &str = "? Which one?\n❯ 1) Red\n  2) Green\n  3) Blue\n  other…";

#[tokio::test]
async fn a_question_is_answered_by_arrows_or_by_its_number() {
    let world = World::new().await;
    let mut chat = world.asked(ASK, ASKED).await;
    chat.press(DOWN).await;
    chat.ends_with("  1) Red\n❯ 2) Green\n  3) Blue\n  other…").await;
    chat.press(&format!("{DOWN}{UP}{ENTER}")).await;
    chat.until("an answer", |screen| screen.contains("\nYou chose: Green.\n") && screen.ends_with("\n>")).await;
    let screen = chat.screen();
    assert!(screen.contains("\n? Which one?\n> Green\nYou chose: Green.\n"), "the choices are gone:\n{screen}");

    chat.press(&format!("{ASK}{ENTER}")).await;
    chat.ends_with(ASKED).await;
    chat.press("3").await;
    chat.ends_with("  1) Red\n  2) Green\n❯ 3) Blue\n  other…").await;
    // What is typed right behind the answer is the next prompt.
    chat.press(&format!("{ENTER}hello{ENTER}")).await;
    chat.until("both", |screen| screen.contains("You chose: Blue.") && screen.contains("You said: hello")).await;
    chat.ends_with("\n>").await;
    assert!(!chat.gives_keys());
    chat.press(CTRL_D).await;
    let (code, screen) = chat.ended().await;
    assert_eq!(code, Some(0));
    assert!(screen.ends_with(&format!("come back with: streamgate chat --session {}", session(&screen))), "{screen}");
}

#[tokio::test]
async fn several_are_marked_and_words_are_typed() {
    let world = World::new().await;
    let mut chat = world.asked("/ask-several Which? | Red | Green | Blue", "  3) [ ] Blue\n  other…").await;
    chat.press(&format!(" 2 {DOWN} ")).await;
    chat.ends_with("  1) [x] Red\n  2) [ ] Green\n❯ 3) [x] Blue\n  other…").await;
    chat.press(ENTER).await;
    chat.sees("You chose: Red, Blue.").await;

    chat.ends_with("\n>").await;
    chat.press(&format!("{ASK} || Why?{ENTER}")).await;
    chat.ends_with(ASKED).await;
    chat.press("tea").await;
    chat.ends_with("  3) Blue\n❯ other: tea").await;
    chat.press(&format!("\x7f\x7feal 2{ENTER}")).await;
    chat.ends_with("? Why?\n❯").await;
    chat.press(&format!("it's été{ENTER}")).await;
    chat.sees("You chose: teal 2, it's été.").await;
}

#[tokio::test]
async fn ctrl_c_cancels_the_task_that_asks_and_a_second_one_leaves_while_that_takes_time() {
    let world = World::new().await;
    let mut chat = world.asked(ASK, ASKED).await;
    assert!(chat.gives_keys());
    chat.press(CTRL_C).await;
    chat.until("the end of the task", |screen| screen.contains("\ncancelled\n") && screen.ends_with("\n>")).await;
    let screen = chat.screen();
    assert!(screen.contains("\n? Which one?\ncancelling; Ctrl-C again to leave\n"), "{screen}");
    assert!(!screen.contains("1) Red") && !chat.gives_keys(), "{screen}");

    chat.press(&format!("{ASK}{ENTER}")).await;
    chat.ends_with(ASKED).await;
    // A gateway that answers nothing any more.
    world.program.signal(Signal::STOP);
    chat.press(CTRL_C).await;
    chat.ends_with("? Which one?\ncancelling; Ctrl-C again to leave").await;
    chat.press(CTRL_C).await;
    let (code, screen) = chat.ended().await;
    world.program.signal(Signal::CONT);
    assert_eq!(code, Some(0));
    assert!(screen.contains("come back with: streamgate chat --session sess_"), "{screen}");
}

#[tokio::test]
async fn ctrl_c_with_nothing_at_work_leaves() {
    let world = World::new().await;
    let mut chat = world.chat(&[]).await;
    chat.press(CTRL_C).await;
    assert_eq!(chat.ended().await.0, Some(0));
}

#[tokio::test]
async fn ctrl_c_leaves_while_nobody_answers_the_door() {
    let gateway = Gateway::start().await;
    let mut chat = Terminal::run(command(&[], &gateway.url(), TOKEN));
    let _waits = gateway.knock().await;
    chat.press(CTRL_C).await;
    assert_eq!(chat.ended().await.0, Some(0));
}

#[tokio::test]
async fn ctrl_c_while_catching_up_cancels_what_is_at_work_and_a_second_one_leaves() {
    let gateway = Gateway::start().await;
    let mut chat = Terminal::run(command(&["--session", "sess_1"], &gateway.url(), TOKEN));
    let mut client = gateway.accept().await;
    assert_eq!(client.receive().await["type"], "session.resume");
    client.send(&[json!({ "type": "task:queued", "seq": 1, "task_id": "task_1", "position": 0 })]).await;
    client.has_read_all().await;
    chat.press(CTRL_C).await;
    chat.ends_with("cancelling; Ctrl-C again to leave").await;
    client.send(&[json!({ "type": "task:done", "seq": 2, "task_id": "task_1", "status": "completed" })]).await;
    client.send(&[json!({ "type": "session.state", "task": { "task_id": "task_2" }, "queue": [] })]).await;
    let cancel = client.receive().await;
    assert_eq!((&cancel["type"], &cancel["task_id"]), (&json!("task.cancel"), &json!("task_2")));
    chat.press(CTRL_C).await;
    assert_eq!(chat.ended().await.0, Some(0));
}

#[tokio::test]
async fn words_that_come_while_the_agent_asks_are_shown_above_line_by_line() {
    let gateway = Gateway::start().await;
    let mut chat = Terminal::run(command(&["hello"], &gateway.url(), TOKEN));
    let mut client = gateway.accept().await;
    let submit = client.receive().await;
    let token = |seq: u64, text: &str| json!({ "type": "task:token", "seq": seq, "task_id": "task_1", "text": text });
    let long = "x".repeat(150);
    let questions = json!([{ "question": "Which?", "options": [{ "label": "Yes\u{1b}[2J" }, { "label": long }] }]);
    let (ready, ask) = (
        json!({ "type": "session.ready", "session_id": "sess_1", "task_id": "task_1", "request_id": submit["request_id"] }),
        json!({ "type": "task:ask_user", "seq": 2, "task_id": "task_1", "ask_id": "ask_1", "questions": questions }),
    );
    client.send(&[ready, token(1, "Let me"), ask, token(3, " ask.\nAnd"), token(4, " wait")]).await;
    // 99 of 100 columns are used.
    let panel = format!("❯ 1) Yes[2J\n  2) {}\n{}\n  other…", "x".repeat(94), "x".repeat(56));
    chat.ends_with(&format!("session sess_1\nLet me\n? Which?\n ask.\n{panel}")).await;
    client.send(&[token(5, " for\n\nit")]).await;
    chat.ends_with(&format!("session sess_1\nLet me\n? Which?\n ask.\nAnd wait for\n\n{panel}")).await;
    client
        .send(&[token(6, "."), json!({ "type": "task:done", "seq": 7, "task_id": "task_1", "status": "completed" })])
        .await;
    let (code, screen) = chat.ended().await;
    assert_eq!(code, Some(0));
    assert!(screen.ends_with("? Which?\n ask.\nAnd wait for\n\nit."), "{screen}");
}

#[tokio::test]
async fn a_question_waits_for_who_leaves_and_goes_when_somebody_else_answers() {
    let world = World::new().await;
    let mut chat = world.asked(ASK, ASKED).await;
    let session = session(&chat.screen());
    chat.press(CTRL_D).await;
    let (code, screen) = chat.ended().await;
    assert_eq!(code, Some(0));
    assert!(screen.contains("\n? Which one?\ncome back with: "), "{screen}");

    let mut chat = Terminal::run(world.command(&["--session", &session]));
    chat.ends_with(ASKED).await;
    let mut other = world.client().await;
    let resumed = other.request(json!({ "type": "session.resume", "session_id": session })).await;
    assert_eq!(resumed["type"], "session.replay_start");
    let asked = other.expect("task:ask_user").await;
    // What happens meanwhile is shown above.
    other.turn_later(&session, "hello from elsewhere").await;
    chat.until("a prompt from elsewhere", |screen| {
        let above = screen.strip_suffix("❯ 1) Red\n  2) Green\n  3) Blue\n  other…");
        above.is_some_and(|above| above.contains("\n> hello from elsewhere\n") && !above.contains("1) Red"))
    })
    .await;
    let answer = json!({ "type": "task.answer", "task_id": asked["task_id"], "answer": "Blue" });
    assert_eq!(other.request(answer).await["type"], "ack");
    chat.until("the answer", |screen| screen.contains("You said: hello from elsewhere") && screen.ends_with("\n>"))
        .await;
    let screen = chat.screen();
    assert!(screen.contains("\nanswered: Blue\nYou chose: Blue.\n") && !screen.contains("1) Red"), "{screen}");
    assert!(!chat.gives_keys());
}

#[tokio::test]
async fn a_question_outlasts_the_connection() {
    let world = World::new().await;
    let mut chat = world.asked(ASK, ASKED).await;
    let gone = world.crash().await;
    chat.ends_with("? Which one?\nthe connection broke; coming back").await;
    let world = World::come_back(gone).await;
    chat.ends_with(&format!("the connection broke; coming back\n{ASKED}")).await;

    // Ctrl-C while it is gone is heeded when it is back.
    let gone = world.crash().await;
    chat.ends_with("? Which one?\nthe connection broke; coming back").await;
    chat.press(CTRL_C).await;
    chat.ends_with("cancelling; Ctrl-C again to leave").await;
    let _world = World::come_back(gone).await;
    chat.until("the end of the task", |screen| screen.contains("\ncancelled\n") && screen.ends_with("\n>")).await;
    assert!(!chat.screen().contains("1) Red"), "{}", chat.screen());
}

#[tokio::test]
async fn ctrl_c_twice_leaves_while_the_connection_is_lost() {
    let world = World::new().await;
    let mut chat = world.asked(ASK, ASKED).await;
    let _gone = world.crash().await;
    chat.ends_with("the connection broke; coming back").await;
    chat.press(CTRL_C).await;
    chat.ends_with("cancelling; Ctrl-C again to leave").await;
    chat.press(CTRL_C).await;
    assert_eq!(chat.ended().await.0, Some(0));
}

#[tokio::test]
async fn signals_and_errors_leave_the_terminal_as_it_was() {
    let world = World::new().await;
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::QUIT, 131)] {
        let chat = world.asked(ASK, ASKED).await;
        assert!(chat.gives_keys());
        chat.signal(signal);
        let (ended, screen) = chat.ended().await;
        assert_eq!(ended, Some(code));
        assert!(screen.ends_with("? Which one?"), "{screen}");
    }
    let mut chat = world.asked(ASK, ASKED).await;
    let session = session(&chat.screen());
    let ended = world.client().await.request(json!({ "type": "session.end", "session_id": session })).await;
    assert_eq!(ended["type"], "ack");
    chat.sees("streamgate: the session has ended").await;
    let (code, screen) = chat.ended().await;
    assert!(code == Some(1) && !screen.contains("1) Red"), "{screen}");
}

#[tokio::test]
async fn one_turn_asks_too() {
    let world = World::new().await;
    let mut chat = Terminal::run(world.command(&[ASK]));
    chat.ends_with(ASKED).await;
    chat.press(&format!("2{ENTER}")).await;
    let (code, screen) = chat.ended().await;
    assert!(code == Some(0) && screen.contains("? Which one?\n> Green\nYou chose: Green.\n"), "{screen}");
}

#[tokio::test]
async fn without_a_terminal_to_show_them_on_choices_are_numbered_lines() {
    let world = World::new().await;
    let errors = tempfile::NamedTempFile::new().unwrap();
    let mut chat = Terminal::run(world.command(&[ASK]).stderr(errors.reopen().unwrap()));
    // Waits in the terminal until somebody wants it.
    chat.press(&format!("2{ENTER}")).await;
    chat.sees("You chose: Green.").await;
    assert_eq!(chat.ended().await.0, Some(0));
    let errors = std::fs::read_to_string(errors.path()).unwrap();
    assert!(errors.contains("? Which one?\n  1) Red\n  2) Green\n  3) Blue\n> "), "{errors}");
}

#[tokio::test]
async fn long_results_are_folded_and_shown_on_demand() {
    let world = World::new().await;
    let mut chat = world.chat(&[]).await;
    chat.press(&format!("/tool printf 'one\\033[2J\\n'; yes xxxxxxxxxx | head -n 12{ENTER}")).await;
    chat.sees("\n  → one[2J (… 12 more lines; /show 1 for all)\n").await;
    chat.ends_with("\n>").await;
    chat.press(&format!("/show{ENTER}")).await;
    let all = format!("\none[2J\n{}>", "xxxxxxxxxx\n".repeat(12));
    chat.ends_with(&all).await;
    chat.press(&format!("/show 2{ENTER}")).await;
    chat.ends_with("there is no such result, or it is too long ago\n>").await;
    chat.press(&format!(" /show{ENTER}")).await;
    chat.sees("You said:  /show").await;
    chat.ends_with("\n>").await;

    chat.press(&format!("/parallel echo a && echo b{ENTER}")).await;
    chat.sees("  → Bash {\"command\":\"echo b\"}: b\n  → Bash {\"command\":\"echo a\"}: a\n").await;
    chat.ends_with("\n>").await;

    // Also before an answer is given.
    chat.press(&format!("{ASK}{ENTER}")).await;
    chat.ends_with(ASKED).await;
    chat.press(&format!("/show 1{ENTER}")).await;
    chat.ends_with("xxxxxxxxxx\n❯ 1) Red\n  2) Green\n  3) Blue\n  other…").await;
    chat.press(ENTER).await;
    chat.sees("You chose: Red.").await;
}

/// The session in the README is what one sees.
#[tokio::test]
async fn the_readmes_session_is_true() {
    let readme = include_str!("../README.md");
    let (_, rest) = readme.split_once("<!-- session -->\n```console\n$ streamgate chat\n").unwrap();
    let (told, _) = rest.split_once("```\n<!-- /session -->").unwrap();
    let world = World::new().await;
    let mut chat = world.chat(&[]).await;
    for (line, seen) in [("What's the weather?", "You said: What's the weather?"), ("/tool ls -a", "  → . ..")] {
        chat.press(&format!("{line}{ENTER}")).await;
        chat.until(seen, |screen| screen.contains(seen) && screen.ends_with("\n>")).await;
    }
    chat.press(&format!("/ask Which one? | Red | Blue{ENTER}")).await;
    chat.ends_with("? Which one?\n❯ 1) Red\n  2) Blue\n  other…").await;
    chat.press(&format!("{DOWN}{ENTER}")).await;
    chat.sees("You chose: Blue.").await;
    chat.ends_with("\n>").await;
    chat.press(CTRL_D).await;
    let (_, seen) = chat.ended().await;
    let told = told.replace("ws://127.0.0.1:8080", &format!("ws://{}", world.program.address)).replace("^D", "");
    assert_eq!(seen, told.replace(&session(&told), &session(&seen)).trim_end());
}

impl Client {
    /// Submits a prompt that has to wait.
    async fn turn_later(&mut self, session: &str, prompt: &str) -> Value {
        let reply = self.request(json!({ "type": "session.turn", "session_id": session, "prompt": prompt })).await;
        assert_eq!(reply["type"], "ack", "{reply}");
        reply
    }
}
