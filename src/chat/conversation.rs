//! What a client of the public protocol has to remember, and what it makes of each frame. A client
//! like any other: it knows the wire by its documents, not by the server's types.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;

use serde_json::{Map, Value, json};

use super::screen::{Screen, brief};

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
    /// Whether what was before this connection is still being shown.
    catching_up: bool,
    /// Whether the words of this turn have been streamed.
    streamed: bool,
    /// The first task from here, and how tasks ended: what the exit code of one turn depends on.
    own_task: Option<String>,
    ended: HashMap<String, bool>,
    /// Why there is no going on.
    refusal: Option<String>,
}

/// A question of the agent's, being answered one part after the other.
struct Asking {
    task_id: String,
    ask_id: Option<String>,
    questions: Vec<Value>,
    answers: Vec<String>,
}

impl Conversation {
    pub(super) fn new(session: Option<String>, profile: Option<String>) -> Self {
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
            catching_up: false,
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

    pub(super) fn is_asked(&self) -> bool {
        self.asking.is_some()
    }

    /// Whether the user's next line is waited for.
    pub(super) fn is_idle(&self) -> bool {
        !self.catching_up && (self.is_asked() || (self.open_tasks.is_empty() && self.own_prompts.is_empty()))
    }

    /// A new connection: follow the session from where the last one broke off, and say again what
    /// may have been lost.
    pub(super) fn connected(&mut self) {
        self.outbox.clear();
        self.catching_up = self.session.is_some();
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
        if self.asking.is_some() {
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

    /// Asks for the end of the task at work. Tells whether there is one.
    pub(super) fn cancel(&mut self) -> bool {
        let Some(task) = self.open_tasks.first() else { return false };
        let frame = json!({ "type": "task.cancel", "task_id": task });
        self.asking = None;
        self.send(frame);
        true
    }

    fn send(&mut self, mut frame: Value) {
        self.requests += 1;
        frame["request_id"] = json!(self.requests.to_string());
        self.outbox.push_back(frame.to_string());
        self.unanswered.insert(self.requests, frame);
    }

    /// Takes one frame of the server's.
    pub(super) fn receive(&mut self, frame: &Map<String, Value>) -> io::Result<()> {
        let text = |field: &str| frame.get(field).and_then(Value::as_str).unwrap_or_default();
        let number = |field: &str| frame.get(field).and_then(Value::as_u64).unwrap_or_default();
        if let Some(seq) = frame.get("seq").and_then(Value::as_u64) {
            if self.last_seq.is_some_and(|last| seq <= last) {
                return Ok(());
            }
            self.last_seq = Some(seq);
        }
        let task_id = text("task_id");
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
                }
            }
            "task:token" => {
                self.streamed = true;
                self.screen.text(text("text"))?;
            }
            "task:tool_use" if text("tool") != QUESTION_TOOL => {
                let input = frame.get("input").map(Value::to_string).unwrap_or_default();
                self.screen.note(&brief(&format!("⚙ {} {input}", text("tool"))))?;
            }
            "task:tool_result" if text("tool") != QUESTION_TOOL => {
                let mark = if frame.get("is_error") == Some(&Value::Bool(true)) { "✗" } else { "→" };
                self.screen.note(&format!("  {mark} {}", brief(text("output"))))?;
            }
            "task:ask_user" => self.ask(frame)?,
            "task:answered" => self.asking = None,
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
        self.open_tasks.retain(|open| open != task_id);
        if self.asking.as_ref().is_some_and(|asking| asking.task_id == task_id) {
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
        if let Some(request) = self.replied(error)
            && is_prompt(&request)
        {
            self.own_prompts.retain(|prompt| request["prompt"] != **prompt);
            // The exit code of one turn: this one failed.
            let task = self.own_task.get_or_insert_with(String::new).clone();
            self.ended.entry(task).or_insert(false);
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
        let cost = turn.get("cost_usd").and_then(Value::as_f64).unwrap_or_default();
        let (read, written) = (count("input_tokens"), count("output_tokens"));
        self.screen.note(&format!("[{read} tokens in, {written} out, ${cost:.4}]"))
    }

    fn ask(&mut self, event: &Map<String, Value>) -> io::Result<()> {
        let questions = event.get("questions").and_then(Value::as_array).cloned().unwrap_or_default();
        let id = |field: &str| event.get(field).and_then(Value::as_str).map(str::to_owned);
        let Some(task_id) = id("task_id").filter(|_| !questions.is_empty()) else { return Ok(()) };
        self.opened(&task_id);
        self.asking = Some(Asking { task_id, ask_id: id("ask_id"), questions, answers: Vec::new() });
        self.show_question()
    }

    fn show_question(&mut self) -> io::Result<()> {
        let Some(question) = self.asking.as_ref().and_then(Asking::current) else { return Ok(()) };
        let more = if question["multiSelect"] == true { " (several: 1,3)" } else { "" };
        self.screen.line(&format!("? {}{more}", question["question"].as_str().unwrap_or_default()))?;
        for (index, option) in question["options"].as_array().into_iter().flatten().enumerate() {
            let label = option["label"].as_str().unwrap_or_default();
            let about = option["description"].as_str().map(|about| format!(": {about}")).unwrap_or_default();
            self.screen.line(&format!("  {}) {label}{about}", index + 1))?;
        }
        Ok(())
    }

    fn answer(&mut self, line: &str) -> io::Result<()> {
        let Some(asking) = &mut self.asking else { return Ok(()) };
        let Some(answer) = asking.current().map(|question| chosen(question, line)) else { return Ok(()) };
        asking.answers.push(answer);
        if asking.current().is_some() {
            return self.show_question();
        }
        let frame = asking.reply();
        self.asking = None;
        self.send(frame);
        Ok(())
    }
}

impl Asking {
    /// The part that is to be answered now.
    fn current(&self) -> Option<&Value> {
        self.questions.get(self.answers.len())
    }

    fn is(&self, pending: &Map<String, Value>) -> bool {
        self.ask_id.as_deref() == pending.get("ask_id").and_then(Value::as_str)
    }

    fn reply(&self) -> Value {
        let answer = match self.answers.as_slice() {
            [only] => json!(only),
            answers => {
                let texts = self.questions.iter().map(|question| question["question"].as_str().unwrap_or_default());
                texts.zip(answers).map(|(question, answer)| (question.to_owned(), json!(answer))).collect()
            }
        };
        let mut frame = json!({ "type": "task.answer", "task_id": self.task_id, "answer": answer });
        if let Some(ask_id) = &self.ask_id {
            frame["ask_id"] = json!(ask_id);
        }
        frame
    }
}

/// What a typed line means: a choice by its number, several where that is allowed, or the line itself.
fn chosen(question: &Value, line: &str) -> String {
    let line = line.trim();
    let label = |number: &str| {
        let index = number.trim().parse::<usize>().ok()?.checked_sub(1)?;
        question["options"].get(index)?["label"].as_str().map(str::to_owned)
    };
    let labels = if question["multiSelect"] == true {
        line.split(',').map(label).collect::<Option<Vec<_>>>().map(|labels| labels.join(", "))
    } else {
        label(line)
    };
    labels.unwrap_or_else(|| line.to_owned())
}

fn is_prompt(frame: &Value) -> bool {
    frame.get("prompt").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(conversation: &mut Conversation, frame: &Value) {
        conversation.receive(frame.as_object().unwrap()).unwrap();
    }

    fn sent(conversation: &mut Conversation) -> Vec<Value> {
        std::iter::from_fn(|| conversation.next_frame()).map(|frame| serde_json::from_str(&frame).unwrap()).collect()
    }

    #[test]
    fn what_got_no_reply_is_said_again_in_the_same_words() {
        let mut conversation = Conversation::new(None, Some("prof_demo".to_owned()));
        conversation.connected();
        conversation.say("one").unwrap();
        conversation.say("two").unwrap();
        let first = sent(&mut conversation);
        assert_eq!(first.len(), 1, "the second waits for the session that the first makes");
        assert_eq!((&first[0]["type"], &first[0]["profile_id"]), (&json!("task.submit"), &json!("prof_demo")));

        conversation.connected();
        assert_eq!(sent(&mut conversation), first);
        receive(
            &mut conversation,
            &json!({ "type": "session.ready", "session_id": "sess_1", "task_id": "task_1", "request_id": "1" }),
        );
        receive(&mut conversation, &json!({ "type": "user.message", "text": "one", "task_id": "task_1", "seq": 1 }));
        conversation.connected();
        let again = sent(&mut conversation);
        assert_eq!(
            again[0],
            json!({ "type": "session.resume", "session_id": "sess_1", "after_seq": 1, "request_id": "resume" })
        );
        assert_eq!((again.len(), &again[1]["type"], &again[1]["prompt"]), (2, &json!("session.turn"), &json!("two")));
    }

    #[test]
    fn the_outcome_is_that_of_the_own_task_whatever_comes_first() {
        let mut conversation = Conversation::new(Some("sess_1".to_owned()), None);
        conversation.say("x").unwrap();
        receive(&mut conversation, &json!({ "type": "task:failed", "task_id": "task_0", "error": "e", "seq": 5 }));
        receive(
            &mut conversation,
            &json!({ "type": "task:done", "task_id": "task_1", "status": "completed", "seq": 6 }),
        );
        assert_eq!(conversation.outcome(), None);
        receive(&mut conversation, &json!({ "type": "ack", "task_id": "task_1", "request_id": "1" }));
        assert_eq!(conversation.outcome(), Some(true));
    }

    #[test]
    fn a_refused_prompt_is_a_failure() {
        let mut conversation = Conversation::new(None, None);
        conversation.say("x").unwrap();
        receive(&mut conversation, &json!({ "type": "error", "code": "CAPACITY", "message": "m", "request_id": "1" }));
        assert_eq!(conversation.outcome(), Some(false));
        assert!(conversation.is_idle());
    }

    #[test]
    fn questions_are_answered_one_by_one_by_number_or_in_words() {
        let mut conversation = Conversation::new(Some("sess_1".to_owned()), None);
        let options = json!([{ "label": "Yes" }, { "label": "No" }]);
        let questions = json!([
            { "question": "Q1", "options": options },
            { "question": "Q2", "options": options, "multiSelect": true },
            { "question": "Q3", "options": [] },
        ]);
        receive(
            &mut conversation,
            &json!({ "type": "task:ask_user", "task_id": "task_1", "ask_id": "ask_1", "questions": questions }),
        );
        for line in ["2", "1,2", "7"] {
            assert!(conversation.is_asked());
            conversation.say(line).unwrap();
        }
        let frame = sent(&mut conversation).remove(0);
        assert_eq!((&frame["task_id"], &frame["ask_id"]), (&json!("task_1"), &json!("ask_1")));
        assert_eq!(frame["answer"], json!({ "Q1": "No", "Q2": "Yes, No", "Q3": "7" }));
    }

    #[test]
    fn a_repeated_event_is_shown_once() {
        let mut conversation = Conversation::new(Some("sess_1".to_owned()), None);
        let prompt = json!({ "type": "user.message", "text": "x", "task_id": "task_1", "seq": 3 });
        conversation.own_prompts = vec!["x".to_owned(), "x".to_owned()];
        receive(&mut conversation, &prompt);
        receive(&mut conversation, &prompt);
        assert_eq!(conversation.own_prompts.len(), 1);
    }

    #[test]
    fn a_journal_that_went_back_is_followed_from_its_own_end() {
        let mut conversation = Conversation::new(Some("sess_1".to_owned()), None);
        conversation.last_seq = Some(9);
        let error = json!({ "type": "error", "code": "CURSOR_AHEAD", "message": "m", "request_id": "resume" });
        receive(&mut conversation, &error);
        assert_eq!(sent(&mut conversation)[0]["tail"], json!(SHOWN_HISTORY));
        receive(&mut conversation, &error);
        assert!(conversation.refusal().is_some());
    }
}
