//! The demo agent over in-memory stdio: commands in, lines out, and the gateway's own adapter to read
//! them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::agent::Adapter as _;
use crate::agent::native::NativeAdapter;

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

struct Demo {
    stdin: Option<DuplexStream>,
    stdout: BufReader<DuplexStream>,
    workspace: tempfile::TempDir,
    exit: JoinHandle<io::Result<Option<i32>>>,
}

impl Demo {
    fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    fn start_in(workspace: tempfile::TempDir) -> Self {
        let (stdin, agent_stdin) = tokio::io::duplex(64 << 10);
        let (agent_stdout, stdout) = tokio::io::duplex(64 << 10);
        let directory = workspace.path().to_owned();
        let exit =
            tokio::spawn(async move { serve(agent_stdin, agent_stdout, &directory, &AtomicBool::new(false)).await });
        Self { stdin: Some(stdin), stdout: BufReader::new(stdout), workspace, exit }
    }

    async fn tell(&mut self, command: &Value) {
        let line = format!("{command}\n");
        self.stdin.as_mut().expect("stdin is open").write_all(line.as_bytes()).await.unwrap();
    }

    async fn turn(&mut self, prompt: &str) {
        self.tell(&json!({"type": "turn", "session_id": "s", "task_id": "t", "prompt": prompt})).await;
    }

    fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// The next line's bytes; empty at the end.
    async fn raw_line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        timeout(PATIENCE, self.stdout.read_until(b'\n', &mut line)).await.expect("a line in time").unwrap();
        line
    }

    /// The next line, which the gateway understands too.
    async fn line(&mut self) -> Value {
        let line = String::from_utf8(self.raw_line().await).unwrap();
        let mut events = Vec::new();
        NativeAdapter::default().decode(line.trim_end(), &mut events).unwrap();
        assert!(!events.is_empty(), "the gateway makes nothing of: {line}");
        serde_json::from_str(&line).unwrap()
    }

    /// What follows up to the end of the leg.
    async fn leg(&mut self) -> Leg {
        let mut leg = Leg::default();
        loop {
            let line = self.line().await;
            match line["type"].as_str().unwrap() {
                "text" => leg.tokens.push(line["text"].as_str().unwrap().to_owned()),
                "done" | "error" => {
                    leg.end = line;
                    return leg;
                }
                _ => leg.tools.push(line),
            }
        }
    }

    async fn run(&mut self, prompt: &str) -> Leg {
        self.turn(prompt).await;
        self.leg().await
    }

    async fn exit(self) -> Option<i32> {
        timeout(PATIENCE, self.exit).await.expect("it ends in time").unwrap().unwrap()
    }
}

#[derive(Debug, Default)]
struct Leg {
    tokens: Vec<String>,
    tools: Vec<Value>,
    end: Value,
}

impl Leg {
    fn text(&self) -> String {
        self.tokens.concat()
    }

    fn stop_reason(&self) -> &str {
        self.end["stop_reason"].as_str().unwrap_or("error")
    }
}

/// A whole turn in a fresh workspace.
async fn run(prompt: &str) -> Leg {
    Demo::start().run(prompt).await
}

#[tokio::test]
async fn text_is_said_back_a_word_a_token() {
    let leg = run("hello  big\nworld").await;
    assert_eq!(leg.tokens, ["You ", "said: ", "hello ", " ", "big\nworld"]);
    let usage = json!({"input_tokens": 3, "output_tokens": 5, "cost_usd": 0.0});
    assert_eq!(leg.end, json!({"type": "done", "stop_reason": "end_turn", "usage": usage, "num_turns": 1}));

    let leg = run("/say one two \n/tokens 3").await;
    assert_eq!(leg.tokens, ["one ", "two ", "t1 ", "t2 ", "t3 "]);
}

#[tokio::test]
async fn tokens_keep_their_pace() {
    let started = Instant::now();
    assert_eq!(run("/tokens 4 30").await.tokens.len(), 4);
    assert!(started.elapsed() >= Duration::from_millis(90));
}

#[tokio::test]
async fn a_tool_gives_what_it_put_out_and_how_it_ended() {
    let leg = run("/tool printf ' a\\n'; echo b >&2; echo c").await;
    let input = json!({"command": "printf ' a\\n'; echo b >&2; echo c"});
    assert_eq!(leg.tools[0], json!({"type": "tool_use", "id": "tool_1", "tool": "Bash", "input": input}));
    assert_eq!(leg.tools[1], json!({"type": "tool_result", "id": "tool_1", "output": " a\nb\nc\n"}));
    assert_eq!(leg.end["num_turns"], 2);

    let failed = &run("/tool exit 3").await.tools[1];
    assert_eq!(*failed, json!({"type": "tool_result", "id": "tool_1", "output": "", "is_error": true}));
}

#[tokio::test]
async fn a_tool_works_in_the_workspace_without_stdin() {
    let mut demo = Demo::start();
    let leg = demo.run("/tool cat; pwd -P").await;
    let workspace = demo.workspace.path().canonicalize().unwrap();
    assert_eq!(leg.tools[1]["output"], format!("{}\n", workspace.display()));
}

#[tokio::test]
async fn a_tool_that_floods_is_cut_and_one_that_leaves_something_behind_is_not_waited_for() {
    let output = run("/tool yes | head -c 3000000").await.tools[1]["output"].as_str().unwrap().len();
    assert_eq!(output, (1 << 20) + (64 << 10));

    let leg = run("/tool echo here; sleep 30 &").await;
    assert_eq!(leg.tools[1]["output"], "here\n");
}

#[tokio::test]
async fn a_tool_that_is_not_allowed_does_not_run() {
    let mut demo = Demo::start();
    demo.tell(&json!({"type": "turn", "prompt": "/tool touch made", "allowed_tools": ["Read"]})).await;
    let leg = demo.leg().await;
    assert_eq!(leg.tools[1]["is_error"], true);
    assert!(!demo.workspace.path().join("made").exists());
}

#[tokio::test]
async fn parallel_tools_are_open_at_once_and_come_back_in_reverse() {
    // Each waits for the other: one after the other would never end.
    let leg = run("/parallel touch a; until [ -e b ]; do sleep 0.01; done; echo A && touch b; until [ -e a ]; do sleep 0.01; done; echo B").await;
    let seen: Vec<_> = leg.tools.iter().map(|line| (&line["type"], &line["id"], &line["output"])).collect();
    let none = Value::Null;
    assert_eq!(
        seen,
        [
            (&json!("tool_use"), &json!("tool_1"), &none),
            (&json!("tool_use"), &json!("tool_2"), &none),
            (&json!("tool_result"), &json!("tool_2"), &json!("B\n")),
            (&json!("tool_result"), &json!("tool_1"), &json!("A\n")),
        ]
    );
}

#[tokio::test]
async fn a_question_waits_for_its_own_answer() {
    let mut demo = Demo::start();
    demo.turn("/ask Which one? | A | B").await;
    let ask = demo.line().await;
    let questions = json!([{"question": "Which one?", "options": [{"label": "A"}, {"label": "B"}]}]);
    assert_eq!((&ask["tool"], &ask["input"]["questions"]), (&json!("AskUserQuestion"), &questions));

    demo.tell(&json!({"type": "answer", "id": "another", "answer": {"Which one?": "A"}})).await;
    demo.tell(&json!({"type": "answer", "id": ask["id"], "answer": {"Which one?": "B"}})).await;
    let leg = demo.leg().await;
    assert_eq!(leg.tools, [json!({"type": "tool_result", "id": ask["id"], "output": "B"})]);
    assert_eq!(leg.text(), "You chose: B.");
}

#[tokio::test]
async fn a_question_nobody_can_answer_any_more_ends() {
    let mut demo = Demo::start();
    demo.turn("/ask Which?").await;
    demo.close_stdin();
    assert_eq!(demo.leg().await.tools[1]["is_error"], true);
    assert_eq!(demo.exit().await, None);
}

#[tokio::test]
async fn an_image_is_a_png_in_the_workspace() {
    let mut demo = Demo::start();
    assert_eq!(demo.run("/image charts/one.png").await.tokens, ["![charts/one.png](charts/one.png)"]);
    let image = std::fs::read(demo.workspace.path().join("charts/one.png")).unwrap();
    assert!(image.starts_with(b"\x89PNG\r\n\x1a\n") && image.ends_with(b"IEND\xaeB`\x82"));
    assert_eq!(demo.run("/image a b.png").await.text(), "![a b.png](<a b.png>)");
}

#[tokio::test]
async fn an_image_never_leaves_the_workspace() {
    let mut demo = Demo::start();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), demo.workspace.path().join("link")).unwrap();
    let absolute = outside.path().join("x.png").display().to_string();
    for name in ["../x.png", "link/x.png", &absolute, ".."] {
        let text = demo.run(&format!("/image {name}")).await.text();
        assert!(text.starts_with("Can't write "), "{name}: {text}");
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn it_stops_at_its_turn_limit_and_goes_on_when_told() {
    let mut demo = Demo::start();
    let leg = demo.run("/say a\n/continue 2\n/say b").await;
    assert_eq!((leg.stop_reason(), leg.text()), ("max_turns", "a".to_owned()));
    for (stop_reason, text) in [("max_turns", ""), ("end_turn", "b")] {
        demo.tell(&json!({"type": "continue"})).await;
        let leg = demo.leg().await;
        assert_eq!((leg.stop_reason(), &*leg.text()), (stop_reason, text));
    }
    demo.tell(&json!({"type": "continue"})).await;
    assert_eq!(demo.leg().await.end["message"], "there is nothing to continue");
}

#[tokio::test]
async fn the_turn_limit_it_is_given_counts_model_calls() {
    let mut demo = Demo::start();
    demo.tell(&json!({"type": "turn", "prompt": "/tool echo 1\n/tool echo 2\n/tool echo 3\n/say end", "max_turns": 2}))
        .await;
    let leg = demo.leg().await;
    assert_eq!((leg.stop_reason(), leg.tools.len(), &leg.end["num_turns"]), ("max_turns", 4, &json!(2)));
    demo.tell(&json!({"type": "continue"})).await;
    let leg = demo.leg().await;
    assert_eq!((leg.stop_reason(), leg.tools.len(), leg.text()), ("end_turn", 2, "end".to_owned()));
}

#[tokio::test]
async fn a_new_turn_takes_the_place_of_one_that_could_be_continued() {
    let mut demo = Demo::start();
    demo.run("/continue 5\n/say old").await;
    assert_eq!(demo.run("/say new").await.text(), "new");
    demo.tell(&json!({"type": "continue"})).await;
    assert_eq!(demo.leg().await.stop_reason(), "error");
}

#[tokio::test]
async fn the_usage_it_is_told_is_the_sum_of_the_turn() {
    let mut demo = Demo::start();
    let leg = demo.run("/say some words\n/usage 100 50 0.25\n/continue 1\n/say more words").await;
    assert_eq!(leg.end["usage"], json!({"input_tokens": 100, "output_tokens": 50, "cost_usd": 0.25}));
    demo.tell(&json!({"type": "continue"})).await;
    let leg = demo.leg().await;
    assert_eq!(leg.end["usage"], json!({"input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0}));

    let leg = demo.run("/usage 1 2\n/fail out of luck").await;
    let usage = json!({"input_tokens": 1, "output_tokens": 2});
    assert_eq!(leg.end, json!({"type": "error", "message": "out of luck", "usage": usage, "num_turns": 1}));
}

#[tokio::test]
async fn memory_survives_turns_and_restarts() {
    let mut demo = Demo::start();
    assert_eq!(demo.run("/recall").await.text(), "I remember nothing.");
    demo.run("/remember blue").await;
    assert_eq!(demo.run("/recall").await.text(), "blue");
    let mut restarted = Demo::start_in(demo.workspace);
    restarted.run("/remember red").await;
    assert_eq!(restarted.run("/recall").await.text(), "blue\nred");
}

#[tokio::test]
async fn it_tells_its_environment_and_who_it_is() {
    assert_eq!(run("/env PATH").await.text(), std::env::var("PATH").unwrap());
    assert_eq!(run("/env NOT_SET_ANYWHERE").await.text(), "NOT_SET_ANYWHERE is not set.");
    assert!(run("/id").await.text().contains(&format!("pid={} host=", std::process::id())));
}

#[tokio::test]
async fn a_big_result_has_the_bytes_it_was_told() {
    assert_eq!(run("/big 3000000").await.tools[1]["output"].as_str().unwrap().len(), 3_000_000);
}

#[tokio::test]
async fn an_orphan_ends_the_turn_and_twice_has_two_results() {
    let leg = run("/orphan\n/say never").await;
    assert_eq!((leg.tools.len(), leg.text(), leg.stop_reason()), (1, String::new(), "end_turn"));

    let leg = run("/twice").await;
    let outputs: Vec<_> = leg.tools[1..].iter().map(|line| (&line["id"], &line["output"])).collect();
    assert_eq!(outputs, [(&json!("tool_1"), &json!("first")), (&json!("tool_1"), &json!("second"))]);
}

#[tokio::test]
async fn garbage_is_three_bad_lines_and_then_it_goes_on() {
    let mut demo = Demo::start();
    demo.turn("/garbage\n/say fine").await;
    let lines = [demo.raw_line().await, demo.raw_line().await, demo.raw_line().await];
    assert!(serde_json::from_slice::<Value>(&lines[0]).is_err());
    assert!(std::str::from_utf8(&lines[1]).is_err());
    assert_eq!(lines[2].len(), (3 << 20) + 1);
    assert_eq!(demo.leg().await.text(), "fine");
}

#[tokio::test]
async fn a_crash_comes_after_what_was_said_before() {
    let mut demo = Demo::start();
    demo.turn("/say last words\n/crash 7\n/say never").await;
    assert_eq!(demo.line().await["text"], "last ");
    assert_eq!(demo.line().await["text"], "words");
    assert_eq!(demo.raw_line().await, b"");
    assert_eq!(demo.exit().await, Some(7));
}

#[tokio::test]
async fn an_interrupt_is_acknowledged_within_100_ms_whatever_it_does() {
    for (prompt, lines_before) in [
        ("/sleep 60000", 0),
        ("/tokens 100000 50", 1),
        ("/tool sleep 60", 1),
        ("/parallel sleep 60 && sleep 61", 2),
        ("/ask Which? | A", 1),
        ("/tokens 100000000", 1),
    ] {
        let mut demo = Demo::start();
        demo.turn(prompt).await;
        for _ in 0..lines_before {
            demo.line().await;
        }
        let started = Instant::now();
        demo.tell(&json!({"type": "interrupt"})).await;
        let leg = demo.leg().await;
        // Ten times the promise, for machines that are busy with other tests.
        assert!(started.elapsed() < Duration::from_secs(1), "{prompt}: {:?}", started.elapsed());
        assert_eq!(leg.stop_reason(), "interrupted", "{prompt}");
        let results = leg.tools.iter().filter(|line| line["is_error"] == true).count();
        assert_eq!(
            results,
            if prompt.starts_with("/sleep") || prompt.starts_with("/tokens") { 0 } else { lines_before }
        );
        assert_eq!(demo.run("/say ready").await.text(), "ready", "{prompt}");
    }
}

#[tokio::test]
async fn an_interrupt_ends_all_that_a_tool_started() {
    let mut demo = Demo::start();
    demo.turn("/tool sleep 600 & echo $! >background; sleep 601 & echo $! >pids; sleep 602").await;
    let pids = demo.workspace.path().join("pids");
    while std::fs::read_to_string(&pids).unwrap_or_default().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    demo.tell(&json!({"type": "interrupt"})).await;
    assert_eq!(demo.leg().await.stop_reason(), "interrupted");
    for file in ["background", "pids"] {
        let pid = std::fs::read_to_string(demo.workspace.path().join(file)).unwrap();
        // Gone, or a zombie that only its new parent can bury.
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap_or_default();
        assert!(status.is_empty() || status.contains("State:\tZ"), "{status}");
    }
}

#[tokio::test]
async fn an_interrupt_while_nothing_runs_is_not_answered() {
    let mut demo = Demo::start();
    demo.tell(&json!({"type": "interrupt"})).await;
    assert_eq!(demo.run("/say a").await.stop_reason(), "end_turn");
}

#[tokio::test]
async fn hanging_ignores_interrupts() {
    let mut demo = Demo::start();
    demo.turn("/say still\n/hang\n/say never").await;
    assert_eq!(demo.line().await["text"], "still");
    demo.tell(&json!({"type": "interrupt"})).await;
    demo.tell(&json!({"type": "interrupt"})).await;
    let mut more = [0];
    let silence = timeout(Duration::from_millis(300), demo.stdout.read(&mut more)).await;
    assert!(silence.is_err(), "it hangs");
    demo.exit.abort();
}

#[tokio::test]
async fn a_turn_that_comes_too_early_waits() {
    let mut demo = Demo::start();
    demo.turn("/sleep 50\n/say one").await;
    demo.turn("/say two").await;
    assert_eq!(demo.leg().await.text(), "one");
    assert_eq!(demo.leg().await.text(), "two");
}

#[tokio::test]
async fn what_is_no_command_is_skipped_and_stdin_closed_means_finish_and_go() {
    let mut demo = Demo::start();
    for line in ["\n", "nonsense\n", "{\"type\":\"novel\",\"x\":1}\n", "{\"type\":\"turn\"}\n"] {
        demo.stdin.as_mut().unwrap().write_all(line.as_bytes()).await.unwrap();
    }
    demo.turn("/sleep 50\n/say done").await;
    demo.close_stdin();
    assert_eq!(demo.leg().await.text(), "done");
    assert_eq!(demo.exit().await, None);
}
