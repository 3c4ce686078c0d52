//! A question of the agent's, which may have several parts: they are answered one after the other.

use serde_json::{Map, Value, json};

use super::picker::Picker;

/// The question, and the answers by now.
pub(super) struct Asking {
    task_id: String,
    ask_id: Option<String>,
    questions: Vec<Value>,
    answers: Vec<String>,
    /// The part that is being answered by keys.
    picker: Option<Picker>,
    /// Whether the user has seen it, on this connection.
    pub(super) is_shown: bool,
}

impl Asking {
    /// What `task:ask_user` or a session's `pending_ask` asks; nothing, if that is nothing.
    pub(super) fn new(event: &Map<String, Value>) -> Option<Self> {
        let id = |field: &str| event.get(field).and_then(Value::as_str).map(str::to_owned);
        let questions = event.get("questions").and_then(Value::as_array).filter(|questions| !questions.is_empty())?;
        Some(Self {
            task_id: id("task_id")?,
            ask_id: id("ask_id"),
            questions: questions.clone(),
            answers: Vec::new(),
            picker: None,
            is_shown: false,
        })
    }

    pub(super) fn task_id(&self) -> &str {
        &self.task_id
    }

    pub(super) fn is_of(&self, task_id: &str) -> bool {
        self.task_id == task_id
    }

    /// Whether `pending_ask` is this one.
    pub(super) fn is(&self, pending: &Map<String, Value>) -> bool {
        self.ask_id.as_deref() == pending.get("ask_id").and_then(Value::as_str)
    }

    /// The part that is to be answered now.
    fn current(&self) -> Option<&Value> {
        self.questions.get(self.answers.len())
    }

    /// The same, to be answered by keys.
    pub(super) fn picker(&mut self) -> Option<&mut Picker> {
        if self.picker.is_none() {
            self.picker = self.current().map(Picker::new);
        }
        self.picker.as_mut()
    }

    /// The part that is to be answered now, in words. With its choices, unless they are made by keys.
    pub(super) fn lines(&self, by_keys: bool) -> Vec<String> {
        let Some(question) = self.current() else { return Vec::new() };
        let more = match (question["multiSelect"] == true, by_keys) {
            (false, _) => "",
            (true, false) => " (several: 1,3)",
            (true, true) => " (several: space marks, Enter confirms)",
        };
        let mut lines = vec![format!("? {}{more}", question["question"].as_str().unwrap_or_default())];
        let options = question["options"].as_array().into_iter().flatten().filter(|_| !by_keys);
        lines.extend(options.enumerate().map(|(index, option)| {
            let label = option["label"].as_str().unwrap_or_default();
            let about = option["description"].as_str().map(|about| format!(": {about}")).unwrap_or_default();
            format!("  {}) {label}{about}", index + 1)
        }));
        lines
    }

    /// What a typed line means for the part that is to be answered now.
    pub(super) fn chosen(&self, line: &str) -> Option<String> {
        self.current().map(|question| chosen(question, line))
    }

    /// Takes the answer to the part that is to be answered now. After the last: the frame that says them all.
    pub(super) fn answer(&mut self, answer: String) -> Option<Value> {
        self.answers.push(answer);
        self.picker = None;
        self.current().is_none().then(|| self.reply())
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

/// An answer in words, as `task:answered` has it: a text, or one for every part of the question.
pub(super) fn words(answer: Option<&Value>) -> String {
    match answer {
        Some(Value::Object(parts)) => parts.values().map(|part| words(Some(part))).collect::<Vec<_>>().join("; "),
        Some(Value::String(text)) => text.clone(),
        other => other.map(Value::to_string).unwrap_or_default(),
    }
}
