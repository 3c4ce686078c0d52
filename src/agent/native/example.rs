//! The Python example of `docs/agent-protocol.md`, as a process, driven through the adapter.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::*;
use crate::agent::Turn;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/echo_agent.py");

struct Echo {
    process: Child,
    adapter: NativeAdapter,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Echo {
    fn start() -> Self {
        let mut process = Command::new("python3")
            .arg(EXAMPLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test needs python3: apt-get install python3");
        let stdin = process.stdin.take();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        Self { process, adapter: NativeAdapter::default(), stdin, stdout }
    }

    fn tell(&mut self, command: &AgentCommand) {
        let mut tells = Vec::new();
        self.adapter.encode("command", command, &mut tells);
        let [Tell::Write { text, .. }] = &tells[..] else { panic!("a command is one write") };
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn turn(&mut self, prompt: &str) {
        self.tell(&AgentCommand::Turn(Box::new(Turn {
            session_id: SessionId::generate(),
            task_id: TaskId::generate(),
            prompt: prompt.to_owned(),
            system_prompt: None,
            allowed_tools: None,
            max_turns: None,
            model: None,
        })));
    }

    /// What the next line means.
    fn events(&mut self) -> Vec<AgentEvent> {
        let mut line = String::new();
        assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "the agent goes on");
        let mut events = Vec::new();
        self.adapter.decode(&line, &mut events).unwrap();
        events
    }

    /// The text up to the end of the turn, and why it ended.
    fn rest(&mut self) -> (String, StopReason) {
        let mut said = String::new();
        loop {
            for event in self.events() {
                match event {
                    AgentEvent::Text(text) => said.push_str(&text),
                    AgentEvent::ToolResult { output, .. } => said += &["[", &output, "] "].concat(),
                    AgentEvent::Stopped { reason, .. } => return (said, reason),
                    other => panic!("unexpected {other:?}"),
                }
            }
        }
    }

    fn asked(&mut self) -> (String, Vec<Question>) {
        match <[AgentEvent; 2]>::try_from(self.events()) {
            Ok([AgentEvent::ToolUse { .. }, AgentEvent::Ask { id, questions }]) => (id, questions),
            other => panic!("expected a question, not {other:?}"),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_python_example_echoes_turn_after_turn_and_ends_with_stdin() {
    let mut echo = Echo::start();
    for prompt in ["Hello there", "once more"] {
        echo.turn(prompt);
        assert_eq!(echo.rest(), (format!("{prompt} "), StopReason::EndTurn));
    }
    echo.turn("last words");
    echo.stdin = None;
    assert_eq!(echo.rest(), ("last words ".to_owned(), StopReason::EndTurn));
    assert!(echo.process.wait().unwrap().success());
}

#[test]
fn the_python_example_asks_and_takes_the_answer() {
    let mut echo = Echo::start();
    echo.turn("Who is there?");
    let (id, questions) = echo.asked();
    assert_eq!(questions[0].options.len(), 2);
    echo.tell(&AgentCommand::Answer { id, questions, answer: Answer::Text("loud".to_owned()) });
    assert_eq!(echo.rest(), ("[loud] WHO IS THERE? ".to_owned(), StopReason::EndTurn));
}

#[test]
fn the_python_example_stops_when_interrupted_at_work_and_while_asking() {
    let mut echo = Echo::start();
    echo.turn(&"word ".repeat(10_000));
    echo.events();
    echo.tell(&AgentCommand::Interrupt);
    assert_eq!(echo.rest().1, StopReason::Interrupted);

    echo.turn("Who?");
    echo.asked();
    echo.tell(&AgentCommand::Interrupt);
    assert_eq!(echo.rest(), ("[no answer] ".to_owned(), StopReason::Interrupted));

    echo.turn("and on");
    assert_eq!(echo.rest(), ("and on ".to_owned(), StopReason::EndTurn));
}

#[test]
fn the_documentation_quotes_the_example_whole() {
    let documentation = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/agent-protocol.md"));
    let example = std::fs::read_to_string(EXAMPLE).unwrap();
    assert!(documentation.contains(&format!("```python\n{example}```\n")), "docs/agent-protocol.md is out of date");
}

/// Every JSON line that the documentation shows is one that the adapter reads, or writes.
#[test]
fn the_documentation_shows_only_lines_of_the_dialect() {
    let documentation = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/agent-protocol.md"));
    let lines: Vec<_> = documentation.lines().filter(|line| line.starts_with("{\"type\"")).collect();
    assert!(lines.len() > 10, "{lines:?}");
    for line in lines {
        let mut events = Vec::new();
        NativeAdapter::default().decode(line, &mut events).unwrap();
        let command = ["turn", "continue", "interrupt", "answer"]
            .iter()
            .any(|kind| line.starts_with(&format!("{{\"type\":\"{kind}\"")));
        assert_ne!(events.is_empty(), !command, "{line}");
    }
}
