//! Plays a recording: what the agent said is decoded, what its client said then becomes the commands that make this
//! adapter say it.
//!
//! The recordings were made by another client, with ids of its own. Its requests are matched with the adapter's by
//! their order and method, and the agent's answers are given the adapter's ids. Where the two clients differ:
//!  * what only the other one asked (`session/list`) has answers that nobody waits for here, as is;
//!  * `session/set_mode`, which it did not send, is answered by the player;
//!  * where it used `session/load` although the agent offers `session/resume`, the offer is taken out;
//!  * what a session cost before it was resumed is in another recording: here its first turn bears that;
//!  * what it answered to the agent must be what the adapter answers, word for word.

use std::collections::HashMap;
use std::path::Path;

use super::super::*;
use super::{adapter, show, show_tell, snapshot, turn};
use crate::config::PermissionPolicy;
use crate::protocol::client::Answer;
use crate::protocol::event::Question;

/// A line of a recording.
pub(super) struct Line {
    pub(super) direction: char,
    pub(super) message: Value,
}

pub(super) fn lines(recording: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(recording).expect("a recording can be read");
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a recording is JSON");
        let direction = line["d"].as_str().and_then(|direction| direction.chars().next()).expect("a direction");
        Line { direction, message: line["m"].clone() }
    };
    text.lines().map(line).collect()
}

/// What becomes of requests for permission in a recording: what its client did.
pub(super) fn policy(recording: &Path) -> PermissionPolicy {
    match recording.file_name().and_then(|name| name.to_str()) {
        Some(name) if name.contains("rejected") => PermissionPolicy::Deny,
        Some(name) if name.contains("permission-pending") => PermissionPolicy::Ask,
        _ => PermissionPolicy::Allow,
    }
}

pub(super) struct Player {
    pub(super) adapter: AcpAdapter,
    /// What came of it.
    pub(super) shown: Vec<String>,
    /// The commands of the task at work, by id.
    pub(super) commands: Vec<(String, AgentCommand)>,
    /// How many commands were given in all.
    pub(super) given: usize,
    /// What the adapter told, by id.
    pub(super) told: HashMap<String, String>,
    /// The adapter's requests that the other client has not made yet.
    requests: Vec<(String, String)>,
    /// The adapter's ids, by the other client's.
    ids: HashMap<String, String>,
    /// The adapter's answers to the agent.
    replies: Vec<Value>,
    asked: Option<(String, Vec<Question>)>,
    /// Prompts whose end has not come.
    pub(super) running: bool,
    tasks: u32,
    asks: u32,
    /// The first word of the other client about a session: how, and which.
    opening: Option<(String, Value)>,
}

impl Player {
    pub(super) fn new(recording: &Path) -> Self {
        let opens = |line: &Line| {
            let method = line.message["method"].as_str().filter(|_| line.direction == '>')?;
            ["session/load", "session/resume"]
                .contains(&method)
                .then(|| (method.to_owned(), line.message["params"]["sessionId"].clone()))
        };
        let prompted = |line: &Line| line.message["method"] == "session/prompt";
        let opening = lines(recording).iter().take_while(|line| !prompted(line)).find_map(opens);
        let remembered = opening.as_ref().map_or(Value::Null, |(_, session)| json!({"session": session}));
        Self {
            adapter: adapter(policy(recording), &remembered, Process::New),
            shown: Vec::new(),
            commands: Vec::new(),
            given: 0,
            told: HashMap::new(),
            requests: Vec::new(),
            ids: HashMap::new(),
            replies: Vec::new(),
            asked: None,
            running: false,
            tasks: 0,
            asks: 0,
            opening,
        }
    }

    /// Takes one line: the agent's lines as they reach the adapter are given to `hear`.
    pub(super) fn take(&mut self, line: &Line, prompt: &str, hear: &mut impl FnMut(&mut Self, &str)) {
        let message = &line.message;
        match (line.direction, message["method"].as_str()) {
            ('>', Some("initialize")) => {
                self.prompt(prompt);
                self.matched(message);
            }
            ('>', Some("session/prompt")) => {
                if !self.running {
                    let text = message["params"]["prompt"][0]["text"].as_str().unwrap_or_default();
                    self.prompt(text);
                }
                self.matched(message);
            }
            ('>', Some("session/cancel")) => {
                // Another client may cancel what has ended.
                self.command("interrupt", AgentCommand::Interrupt);
            }
            ('>', Some(_)) => self.matched(message),
            ('>', None) => self.compare_reply(message),
            ('<', _) => {
                let text = self.as_heard(message).to_string();
                hear(self, &text);
                self.answer_mode(hear);
            }
            _ => (),
        }
    }

    /// Feeds the adapter a line.
    pub(super) fn hear(&mut self, line: &str) {
        let mut events = Vec::new();
        if self.adapter.decode(line, &mut events).is_err() {
            self.shown.push("refused".to_owned());
        }
        for event in events {
            self.note(&event);
        }
    }

    pub(super) fn note(&mut self, event: &AgentEvent) {
        self.shown.push(show(event));
        match event {
            AgentEvent::Tell(tell) => self.tell(tell),
            AgentEvent::Stopped { .. } => self.running = false,
            AgentEvent::Ask { id, questions } => self.asked = Some((id.clone(), questions.clone())),
            _ => (),
        }
    }

    fn tell(&mut self, tell: &Tell) {
        let Tell::Write { id, text } = tell else { panic!("ACP agents start with their box") };
        assert!(text.ends_with('\n'), "whole lines");
        assert_eq!(self.told.insert(id.clone(), text.clone()), None, "an id names one thing");
        for line in text.lines() {
            let message: Value = serde_json::from_str(line).expect("a line is JSON");
            match (message["method"].as_str(), message["id"].as_str()) {
                (Some(method), Some(id)) => self.requests.push((method.to_owned(), id.to_owned())),
                (Some(_), None) => (),
                (None, _) => self.replies.push(message),
            }
        }
    }

    fn prompt(&mut self, text: &str) {
        let go_on = text == "continue";
        if !go_on {
            self.tasks += 1;
            self.commands.clear();
        }
        self.running = true;
        let continuations = self.commands.iter().filter(|(_, command)| matches!(command, AgentCommand::Continue));
        let continuation = continuations.count() + 1;
        if go_on {
            self.command(&format!("continue/{continuation}"), AgentCommand::Continue);
        } else {
            self.command("", AgentCommand::Turn(Box::new(turn(text))));
        }
    }

    fn command(&mut self, name: &str, command: AgentCommand) {
        let separator = if name.is_empty() { "" } else { "/" };
        let id = format!("task_{}{separator}{name}", self.tasks);
        let what = match &command {
            AgentCommand::Turn(turn) => format!("turn {:?}", turn.prompt),
            AgentCommand::Continue => "continue".to_owned(),
            AgentCommand::Interrupt => "interrupt".to_owned(),
            AgentCommand::Answer { answer, .. } => format!("answer {answer:?}"),
        };
        self.shown.push(format!("> {id} {what}"));
        let mut tells = Vec::new();
        self.given += 1;
        self.adapter.encode(&id, &command, &mut tells);
        for tell in &tells {
            self.shown.push(show_tell(tell));
            self.tell(tell);
        }
        self.commands.push((id, command));
    }

    /// A request of the other client: the adapter's next, if it is the same.
    fn matched(&mut self, message: &Value) {
        if self.requests.first().is_some_and(|(method, _)| message["method"] == **method) {
            let (_, ours) = self.requests.remove(0);
            self.ids.insert(message["id"].to_string(), ours);
        } else {
            self.shown.push(format!("# only in the recording: {}", message["method"].as_str().unwrap_or_default()));
        }
    }

    /// What the other client answered the agent. If the user was asked here, they say so.
    fn compare_reply(&mut self, message: &Value) {
        if let Some((tool, questions)) = self.asked.take()
            && !self.replies.iter().any(|reply| reply["id"] == message["id"])
        {
            self.asks += 1;
            let answer = message["result"]["content"]["question_0"].as_str().expect("the recording's answer");
            let answer = Answer::Text(answer.to_owned());
            let id = format!("ask_{}", self.asks);
            self.command(&id, AgentCommand::Answer { id: tool, questions, answer });
        }
        let reply = self.replies.iter().find(|reply| reply["id"] == message["id"]);
        assert_eq!(reply, Some(message), "what the agent is answered");
    }

    /// A line of the agent with the adapter's ids.
    fn as_heard(&self, message: &Value) -> Value {
        let mut message = message.clone();
        if message.get("method").is_none()
            && let Some(id) = self.ids.get(&message["id"].to_string())
        {
            message["id"] = json!(id);
        }
        let loads = self.opening.as_ref().is_some_and(|(method, _)| method == "session/load");
        if let Some(offers) = message.pointer_mut("/result/agentCapabilities/sessionCapabilities").filter(|_| loads) {
            offers.as_object_mut().expect("capabilities").remove("resume");
        }
        message
    }

    fn answer_mode(&mut self, hear: &mut impl FnMut(&mut Self, &str)) {
        if self.requests.first().is_some_and(|(method, _)| method == "session/set_mode") {
            let (_, id) = self.requests.remove(0);
            hear(self, &json!({"jsonrpc": "2.0", "id": id, "result": {}}).to_string());
        }
    }
}

/// Plays a whole recording.
pub(super) fn play(recording: &Path, mut hear: impl FnMut(&mut Player, &str)) -> Player {
    let lines = lines(recording);
    let is_prompt = |line: &&Line| line.direction == '>' && line.message["method"] == "session/prompt";
    let first = lines.iter().find(is_prompt).and_then(|line| line.message["params"]["prompt"][0]["text"].as_str());
    let first = first.unwrap_or("(none)").to_owned();
    let mut player = Player::new(recording);
    for line in &lines {
        player.take(line, &first, &mut hear);
    }
    player
}

#[test]
fn recordings_come_to_what_is_written_down_beside_them() {
    snapshot::check("acp-", |recording| play(recording, Player::hear).shown);
}
