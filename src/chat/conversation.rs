//! What a client of the public protocol has to remember, and what it makes of each frame. A client
//! like any other: it knows the wire by its documents, not by the server's types.

mod questions;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;

use serde_json::{Map, Value, json};

use super::asking::Asking;
use super::screen::Screen;
use super::tools::Tools;

/// Events of a session that one comes back to that are shown.
const SHOWN_HISTORY: u64 = 200;
/// The request id of `session.resume`, which is made anew on every connection.
const RESUME: &str = "resume";
/// The tool whose calls are shown as questions.
const QUESTION_TOOL: &str = "AskUserQuestion";

/// The conversation, over all its connections.
pub(super) struct Conversation {
    screen: Screen,
    session: Option<String>,
    profile: Option<String>,
    /// The last event that was shown.
    last_seq: Option<u64>,
    /// Frames to be sent.
    outbox: VecDeque<String>,
    /// Frames nobody has replied to, by number: they are sent again on the next connection. Keys make
    /// the repeat of a prompt harmless, the others are so by nature.
    unanswered: BTreeMap<u64, Value>,
    requests: u64,
    /// Prompts that wait until the first one has made the session.
    held: VecDeque<String>,
    /// Prompts from here whose `user.message` has not come.
    own_prompts: Vec<String>,
    /// The session's tasks that have not ended, oldest first.
    open_tasks: Vec<String>,
    asking: Option<Asking>,
    /// Whether questions are answered by keys.
    picks: bool,
    cancelling: Option<Cancelling>,
    tools: Tools,
    /// Whether what was before this connection is still being shown.
    catching_up: bool,
    /// The task that is next in its session and has not begun.
    next_up: Option<String>,
    /// Whether the words of this turn have been streamed.
    streamed: bool,
    /// The first task from here, and how tasks ended: what the exit code of one turn depends on.
    own_task: Option<String>,
    ended: HashMap<String, bool>,
    /// Why there is no going on.
    refusal: Option<String>,
}

/// What Ctrl-C was pressed for.
enum Cancelling {
    /// What is at work, once that is known.
    Wanted,
    /// This task; it was asked to end.
    Task(String),
}

impl Conversation {
    /// Goes on with a session or, without one, starts one. The user may answer questions by keys (`picks`),
    /// and ask for what was folded (`unfolds`).
    pub(super) fn new(session: Option<String>, profile: Option<String>, picks: bool, unfolds: bool) -> Self {
        Self {
            screen: Screen::new(),
            session,
            profile,
            last_seq: None,
            outbox: VecDeque::new(),
            unanswered: BTreeMap::new(),
            requests: 0,
            held: VecDeque::new(),
            own_prompts: Vec::new(),
            open_tasks: Vec::new(),
            asking: None,
            picks,
            cancelling: None,
            tools: Tools::new(unfolds),
            catching_up: false,
            next_up: None,
            streamed: false,
            own_task: None,
            ended: HashMap::new(),
            refusal: None,
        }
    }

    pub(super) fn screen(&mut self) -> &mut Screen {
        &mut self.screen
    }

    pub(super) fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// The next frame to be sent.
    pub(super) fn next_frame(&mut self) -> Option<String> {
        self.outbox.pop_front()
    }

    /// How the first task from here ended, once it has: whether it completed.
    pub(super) fn outcome(&self) -> Option<bool> {
        self.own_task.as_ref().and_then(|task| self.ended.get(task)).copied()
    }

    /// Why there is no going on, once there is none.
    pub(super) fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Whether the agent waits for an answer. What is being cancelled gets none.
    pub(super) fn is_asked(&self) -> bool {
        !self.catching_up && self.asking.is_some() && self.cancelling.is_none()
    }

    /// Whether a task whose turn it is in its session has not begun.
    pub(super) fn waits_for_others(&self) -> bool {
        self.next_up.is_some()
    }

    /// Says so, once.
    pub(super) fn note_wait(&mut self) -> anyhow::Result<()> {
        self.next_up = None;
        let why = "no container is free yet, or other tasks of yours are at work or wait for an answer";
        Ok(self.screen.note(&format!("waiting: {why}"))?)
    }

    /// Whether the user's next line is waited for.
    pub(super) fn is_idle(&self) -> bool {
        self.is_asked() || (!self.catching_up && self.has_no_work())
    }

    fn has_no_work(&self) -> bool {
        self.open_tasks.is_empty() && self.own_prompts.is_empty()
    }

    /// A new connection: follow the session from where the last one broke off, and say again what
    /// may have been lost.
    pub(super) fn connected(&mut self) {
        self.outbox.clear();
        self.catching_up = self.session.is_some();
        if let Some(asking) = &mut self.asking {
            asking.is_shown = false;
        }
        if let Some(session) = &self.session {
            let mut resume = json!({ "type": "session.resume", "session_id": session, "request_id": RESUME });
            match self.last_seq {
                Some(seq) => resume["after_seq"] = json!(seq),
                None => resume["tail"] = json!(SHOWN_HISTORY),
            }
            self.outbox.push_back(resume.to_string());
        }
        self.outbox.extend(self.unanswered.values().map(Value::to_string));
    }

    /// A line from the user: an answer when something was asked, else a prompt.
    pub(super) fn say(&mut self, line: &str) -> io::Result<()> {
        if self.asking.is_some() && self.cancelling.is_none() {
            return self.answer(line);
        }
        let line = line.trim_end();
        if line.trim().is_empty() {
            return Ok(());
        }
        if self.session.is_none() && !self.own_prompts.is_empty() {
            self.held.push_back(line.to_owned());
        } else {
            self.submit(line);
        }
        Ok(())
    }

    fn submit(&mut self, prompt: &str) {
        let key = uuid::Uuid::now_v7().to_string();
        let mut frame = match &self.session {
            Some(session) => json!({ "type": "session.turn", "session_id": session }),
            None => json!({ "type": "task.submit" }),
        };
        if let (None, Some(profile)) = (&self.session, &self.profile) {
            frame["profile_id"] = json!(profile);
        }
        frame["prompt"] = json!(prompt);
        frame["idempotency_key"] = json!(key);
        self.own_prompts.push(prompt.to_owned());
        self.send(frame);
    }

    /// Asks for the end of the task at work, as soon as it is known and there is a connection. False if there
    /// is nothing to end, or its end has been asked for.
    pub(super) fn cancel(&mut self) -> bool {
        if self.cancelling.is_some() || (!self.catching_up && self.has_no_work()) {
            return false;
        }
        self.cancelling = Some(Cancelling::Wanted);
        self.go_on_cancelling();
        true
    }

    fn go_on_cancelling(&mut self) {
        match (&self.cancelling, self.open_tasks.first()) {
            (Some(Cancelling::Wanted), Some(task)) if !self.catching_up => {
                let frame = json!({ "type": "task.cancel", "task_id": task });
                self.cancelling = Some(Cancelling::Task(task.clone()));
                self.send(frame);
            }
            (Some(Cancelling::Wanted), _) if !self.catching_up && self.has_no_work() => self.cancelling = None,
            (Some(Cancelling::Task(task)), _) if !self.open_tasks.contains(task) => self.cancelling = None,
            _ => (),
        }
    }

    fn send(&mut self, mut frame: Value) {
        self.requests += 1;
        frame["request_id"] = json!(self.requests.to_string());
        self.outbox.push_back(frame.to_string());
        self.unanswered.insert(self.requests, frame);
    }

    /// Takes one frame of the server's.
    pub(super) fn receive(&mut self, frame: &Map<String, Value>) -> io::Result<()> {
        self.heed(frame)?;
        self.go_on_cancelling();
        Ok(())
    }

    fn heed(&mut self, frame: &Map<String, Value>) -> io::Result<()> {
        let text = |field: &str| frame.get(field).and_then(Value::as_str).unwrap_or_default();
        let number = |field: &str| frame.get(field).and_then(Value::as_u64).unwrap_or_default();
        if let Some(seq) = frame.get("seq").and_then(Value::as_u64) {
            if self.last_seq.is_some_and(|last| seq <= last) {
                return Ok(());
            }
            self.last_seq = Some(seq);
        }
        let task_id = text("task_id");
        if self.next_up.as_deref() == Some(task_id) {
            self.next_up = None; // It is at work, or over.
        }
        match text("type") {
            "session.ready" => {
                self.replied(frame);
                let session = text("session_id");
                self.session = Some(session.to_owned());
                self.screen.note(&format!("session {session}"))?;
                while let Some(prompt) = self.held.pop_front() {
                    self.submit(&prompt);
                }
            }
            "ack" => drop(self.replied(frame)),
            "error" => self.refused(frame)?,
            "session.state" => self.attached(frame)?,
            "session.closed" => {
                self.refusal = Some("the session has ended — start another with `streamgate chat`".to_owned());
            }
            "user.message" => {
                self.opened(task_id);
                match self.own_prompts.iter().position(|prompt| prompt == text("text")) {
                    Some(own) => drop(self.own_prompts.remove(own)),
                    None => self.screen.line(&format!("> {}", text("text")))?,
                }
            }
            "task:queued" => {
                self.opened(task_id);
                if number("position") > 0 {
                    self.screen.note(&format!("waiting, {} before it", number("position")))?;
                } else {
                    self.next_up = Some(task_id.to_owned());
                }
            }
            "task:token" => {
                self.streamed = true;
                self.screen.text(text("text"))?;
            }
            "task:tool_use" if text("tool") != QUESTION_TOOL => self.screen.note(&self.tools.called(frame))?,
            "task:tool_result" if text("tool") != QUESTION_TOOL => self.screen.note(&self.tools.returned(frame))?,
            "task:ask_user" => self.ask(frame)?,
            "task:answered" => self.answered(frame)?,
            "turn.continuing" => {
                let (now, most) = (number("continuation"), number("max_continuations"));
                self.screen.note(&format!("goes on ({now} of at most {most})"))?;
            }
            "turn.done" => self.turn_done(frame)?,
            "task:done" => {
                let completed = text("status") == "completed";
                if !completed {
                    self.screen.note(text("status"))?;
                }
                self.closed(task_id, completed);
            }
            "task:failed" => {
                self.screen.line(&format!("failed: {}", text("error")))?;
                self.closed(task_id, false);
            }
            _ => (), // Unknown types are for newer clients.
        }
        Ok(())
    }

    fn opened(&mut self, task_id: &str) {
        if !self.open_tasks.iter().any(|open| open == task_id) {
            self.open_tasks.push(task_id.to_owned());
        }
    }

    fn closed(&mut self, task_id: &str, completed: bool) {
        self.streamed = false;
        self.tools.ended();
        self.open_tasks.retain(|open| open != task_id);
        if self.asking.as_ref().is_some_and(|asking| asking.is_of(task_id)) {
            self.asking = None;
        }
        self.ended.insert(task_id.to_owned(), completed);
    }

    /// A direct reply: its request is done.
    fn replied(&mut self, reply: &Map<String, Value>) -> Option<Value> {
        let request = reply.get("request_id")?.as_str()?.parse().ok()?;
        let request = self.unanswered.remove(&request)?;
        if let (Some(task), true) = (reply.get("task_id"), is_prompt(&request)) {
            self.own_task = self.own_task.take().or_else(|| task.as_str().map(str::to_owned));
        }
        Some(request)
    }

    fn refused(&mut self, error: &Map<String, Value>) -> io::Result<()> {
        let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
        let code = error.get("code").and_then(Value::as_str).unwrap_or_default();
        if error.get("request_id").and_then(Value::as_str) == Some(RESUME) {
            if code == "CURSOR_AHEAD" && self.last_seq.take().is_some() {
                // The gateway's journal was put back to an earlier day.
                self.connected();
            } else {
                self.refusal = Some(format!("{message} — {code}"));
            }
            return Ok(());
        }
        let request = self.replied(error);
        if let Some(request) = request.as_ref().filter(|request| is_prompt(request)) {
            self.own_prompts.retain(|prompt| request["prompt"] != **prompt);
            // The exit code of one turn: this one failed.
            let task = self.own_task.get_or_insert_with(String::new).clone();
            self.ended.entry(task).or_insert(false);
        } else if request.is_some_and(|request| request["type"] == "task.cancel") {
            self.cancelling = None;
        }
        self.screen.line(&format!("{code}: {message}"))
    }

    /// What is so after the replay.
    fn attached(&mut self, state: &Map<String, Value>) -> io::Result<()> {
        self.catching_up = false;
        let id = |task: &Value| task["task_id"].as_str().map(str::to_owned);
        let queue = state.get("queue").and_then(Value::as_array).into_iter().flatten();
        self.open_tasks = state.get("task").into_iter().chain(queue).filter_map(id).collect();
        match state.get("pending_ask").and_then(Value::as_object) {
            None => self.asking = None,
            // What was answered just before the connection broke is answered again.
            Some(pending) if self.is_answering(pending) => (),
            Some(pending) if self.asking.as_ref().is_none_or(|asking| !asking.is(pending)) => self.ask(pending)?,
            Some(_) => (),
        }
        Ok(())
    }

    fn turn_done(&mut self, turn: &Map<String, Value>) -> io::Result<()> {
        let text = turn.get("result_text").and_then(Value::as_str).unwrap_or_default();
        if !std::mem::take(&mut self.streamed) {
            self.screen.text(text)?;
        }
        self.screen.end_line()?;
        // Only the polished text has the addresses of files.
        for link in text.split(|character: char| character.is_whitespace() || "()<>\"".contains(character)) {
            if link.starts_with("http") && link.contains("_pvt=") {
                self.screen.line(link)?;
            }
        }
        let count = |field: &str| turn.get(field).and_then(Value::as_u64).unwrap_or_default();
        let cost = cost(turn);
        let (read, written) = (count("input_tokens"), count("output_tokens"));
        self.screen.note(&format!("[{read} tokens in, {written} out, {cost}]"))
    }
}

/// What a turn cost, if its agent or its model's prices say.
fn cost(turn: &Map<String, Value>) -> String {
    match (turn.get("cost_known"), turn.get("cost_usd").and_then(Value::as_f64)) {
        (Some(Value::Bool(false)), _) | (_, None) => "cost unknown".to_owned(),
        (_, Some(cost)) => format!("${cost:.4}"),
    }
}

fn is_prompt(frame: &Value) -> bool {
    frame.get("prompt").is_some()
}

#[cfg(test)]
mod tests;
