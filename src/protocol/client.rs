//! What clients send: parsing and validation, the same for the socket and for REST bodies.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Detail, ErrorCode, ErrorFrame, TextLimits};
use crate::domain::{AskId, Mode, OnBusy, Priority, ProfileId, Seq, SessionId, TaskId};

/// The longest `request_id`, in bytes.
pub const REQUEST_ID_BYTES: usize = 128;
/// The longest name-like text (title, tool, model, idempotency key), in bytes.
pub const NAME_BYTES: usize = 256;
/// What every text consists of.
pub(crate) const TEXT: &str = r"^[^\u0000]*$";
/// The most entries of `allowed_tools`.
pub const ALLOWED_TOOLS: usize = 256;

/// What a client calls one of its frames; echoed in the direct reply.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct RequestId(#[schemars(length(min = 1, max = REQUEST_ID_BYTES), regex(pattern = TEXT))] pub String);

impl RequestId {
    /// The `request_id` of a frame that is refused unread, or that is not quite JSON (half an emoji, a
    /// number that no machine holds), so that its client does not wait for ever.
    pub fn find(text: &str) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Named {
            request_id: Option<String>,
        }
        let named: Named = serde_json::from_str(text).ok()?;
        named.request_id.filter(|id| (1..=REQUEST_ID_BYTES).contains(&id.len())).map(Self)
    }
}

/// A client frame and the name its client gave it.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
pub struct ClientMessage {
    /// Asks for a direct reply.
    pub request_id: Option<RequestId>,
    /// What is asked.
    #[schemars(flatten)]
    pub frame: ClientFrame,
}

/// Everything a client can ask for.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(tag = "type")]
pub enum ClientFrame {
    /// `task.submit`: a prompt. `session.turn` is the same; its `session_id` is required.
    #[schemars(rename = "task.submit")]
    Submit(Box<Submit>),
    /// `task.cancel`: stops a task, or takes it out of the line.
    #[schemars(rename = "task.cancel")]
    Cancel {
        /// Which task.
        task_id: TaskId,
    },
    /// `session.start`: a new session, and follow it.
    #[schemars(rename = "session.start")]
    Start {
        /// Which agent; the user's default if absent.
        profile_id: Option<ProfileId>,
        /// What to call the session.
        #[schemars(length(min = 1, max = NAME_BYTES), regex(pattern = TEXT))]
        title: Option<String>,
    },
    /// `session.resume`: follow a session, its history first.
    #[schemars(rename = "session.resume")]
    Resume {
        /// Which session.
        session_id: SessionId,
        /// What to replay.
        #[schemars(flatten, with = "ReplayFields")]
        from: ReplayFrom,
    },
    /// `task.answer`: what the user says to a question.
    #[schemars(rename = "task.answer")]
    Answer {
        /// Which task.
        task_id: TaskId,
        /// Which question; the oldest open one if absent.
        ask_id: Option<AskId>,
        /// The answer.
        answer: Answer,
    },
    /// `session.end`: no more turns; history and files stay.
    #[schemars(rename = "session.end")]
    End {
        /// Which session.
        session_id: SessionId,
    },
    /// `session.unsubscribe`: follow a session no more.
    #[schemars(rename = "session.unsubscribe")]
    Unsubscribe {
        /// Which session.
        session_id: SessionId,
    },
    /// `ping`: are you there, and where am I?
    #[schemars(rename = "ping")]
    Ping,
}

/// Where a replay starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayFrom {
    /// After this event; 0 = from the first.
    After(Seq),
    /// With the last so many events.
    Tail(u64),
}

/// [`ReplayFrom`] as the wire spells it: one of them, or none for all.
#[derive(JsonSchema)]
#[schemars(extend("not" = { "required": ["after_seq", "tail"] }))]
struct ReplayFields {
    /// Replay what follows this event; 0 or absent: from the first.
    after_seq: Option<Seq>,
    /// Replay the last so many events.
    #[schemars(range(max = i64::MAX))]
    tail: Option<u64>,
}

impl ReplayFields {
    fn read(fields: &mut Fields<'_>) -> ReplayFrom {
        let after_seq = fields.optional_integer("after_seq", 0).map(Seq);
        let tail = fields.optional_integer("tail", 0);
        match (Self { after_seq, tail }) {
            Self { after_seq: None, tail: Some(tail) } => ReplayFrom::Tail(tail),
            Self { after_seq, tail: None } => ReplayFrom::After(after_seq.unwrap_or_default()),
            Self { after_seq: Some(after), tail: Some(_) } => {
                fields.problem("tail", "can't go with `after_seq`; send one of them");
                ReplayFrom::After(after)
            }
        }
    }
}

/// A prompt and how to run it. The body of `POST /v1/tasks` too.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
pub struct Submit {
    /// What the user wants.
    #[schemars(length(min = 1), regex(pattern = TEXT))]
    pub prompt: String,
    /// A turn of a conversation, or alone.
    #[schemars(with = "Option<Mode>", extend("default" = Mode::default()))]
    pub mode: Mode,
    /// Which agent; the session's or the user's default if absent.
    pub profile_id: Option<ProfileId>,
    /// Which session; a new one if absent.
    pub session_id: Option<SessionId>,
    /// The agent's settings.
    #[schemars(flatten)]
    pub options: TaskOptions,
    /// Its place in line.
    #[schemars(with = "Option<Priority>", extend("default" = Priority::default()))]
    pub priority: Priority,
    /// Makes a repeat harmless.
    #[schemars(length(min = 1, max = NAME_BYTES), regex(pattern = TEXT))]
    pub idempotency_key: Option<String>,
    /// What to do when the session is at work.
    #[schemars(with = "Option<OnBusy>", extend("default" = OnBusy::default()))]
    pub on_busy: OnBusy,
}

/// What a task passes to its run. Stored with the task as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, serde::Deserialize, JsonSchema)]
pub struct TaskOptions {
    /// The tools the agent may use; the profile's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = ALLOWED_TOOLS), inner(length(min = 1, max = NAME_BYTES)))]
    pub allowed_tools: Option<Vec<String>>,
    /// Model calls before the agent stops and is continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_turns: Option<u32>,
    /// US dollars after which the task is not continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub max_budget_usd: Option<f64>,
    /// Which model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_BYTES), regex(pattern = TEXT))]
    pub model: Option<String>,
    /// Working time, questions excluded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = i64::MAX))]
    pub timeout_seconds: Option<u64>,
}

/// What the user says to a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Answer {
    /// For one question, or the first of several.
    Text(#[schemars(regex(pattern = TEXT))] String),
    /// Question → answer.
    #[schemars(extend(
        "propertyNames" = { "pattern": TEXT },
        "additionalProperties" = { "type": "string", "pattern": TEXT },
    ))]
    PerQuestion(BTreeMap<String, String>),
}

impl ClientMessage {
    /// Reads one text frame. The error echoes the frame's `request_id` when that could be read.
    pub fn parse(text: &str, limits: TextLimits) -> Result<Self, ErrorFrame> {
        let object: Map<String, Value> = serde_json::from_str(text).map_err(|_| {
            ErrorFrame::new(
                ErrorCode::InvalidJson,
                "a frame must be one JSON object in a text frame, in whole characters",
            )
            .answering(RequestId::find(text))
        })?;
        let mut fields = Fields::new(&object, limits);
        let request_id = fields.optional_text("request_id", REQUEST_ID_BYTES).map(RequestId);
        let Some(kind) = fields.required_text("type", NAME_BYTES) else {
            return Err(fields.into_error().answering(request_id));
        };
        let Ok(frame) = ClientFrame::read(&kind, &mut fields) else {
            let message = format!("unknown `type` `{}`; see the protocol for the types there are", shorten(&kind));
            return Err(ErrorFrame::new(ErrorCode::UnknownType, message).answering(request_id));
        };
        match fields.finish(frame) {
            Ok(frame) => Ok(Self { request_id, frame }),
            Err(error) => Err(error.answering(request_id)),
        }
    }
}

impl ClientFrame {
    /// Reads the fields of a frame of type `kind`. Problems are left in `fields`, in whose presence the
    /// frame's content is arbitrary and must not be used.
    fn read(kind: &str, fields: &mut Fields<'_>) -> Result<Option<Self>, UnknownType> {
        Ok(match kind {
            "task.submit" => Submit::read(fields).map(|submit| Self::Submit(Box::new(submit))),
            "session.turn" => {
                fields.require("session_id");
                Submit::read(fields).map(|submit| Self::Submit(Box::new(submit)))
            }
            "task.cancel" => fields.task_id().map(|task_id| Self::Cancel { task_id }),
            "session.start" => Some(Self::Start {
                profile_id: fields.optional_profile("profile_id"),
                title: fields.optional_text("title", NAME_BYTES),
            }),
            "session.resume" => {
                let from = ReplayFields::read(fields);
                fields.session_id().map(|session_id| Self::Resume { session_id, from })
            }
            "task.answer" => {
                let (task_id, answer) = (fields.task_id(), fields.answer());
                let ask_id = fields.optional_id(
                    "ask_id",
                    AskId::parse,
                    ErrorFrame::new(
                        ErrorCode::Conflict,
                        "no such question; leave `ask_id` out to answer the oldest open one",
                    ),
                );
                task_id.zip(answer).map(|(task_id, answer)| Self::Answer { task_id, ask_id, answer })
            }
            "session.end" => fields.session_id().map(|session_id| Self::End { session_id }),
            "session.unsubscribe" => fields.session_id().map(|session_id| Self::Unsubscribe { session_id }),
            "ping" => Some(Self::Ping),
            _ => return Err(UnknownType),
        })
    }
}

/// The frame's `type` is not one of ours.
struct UnknownType;

impl Submit {
    /// Reads a submit's fields, as of `task.submit` or of `POST /v1/tasks`.
    pub fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let prompt = fields.prompt("prompt");
        let submit = Self {
            prompt: prompt.clone().unwrap_or_default(),
            mode: fields.word("mode", Mode::ALL, Mode::as_str).unwrap_or_default(),
            profile_id: fields.optional_profile("profile_id"),
            session_id: fields.optional_id("session_id", SessionId::parse, ErrorFrame::session_not_found()),
            options: TaskOptions {
                allowed_tools: fields.optional_names("allowed_tools", ALLOWED_TOOLS),
                max_turns: fields
                    .optional_integer("max_turns", 1)
                    .map(|turns| u32::try_from(turns).unwrap_or(u32::MAX)),
                max_budget_usd: fields.optional_amount("max_budget_usd"),
                model: fields.optional_text("model", NAME_BYTES),
                timeout_seconds: fields.optional_integer("timeout_seconds", 1),
            },
            priority: fields.word("priority", Priority::ALL, Priority::as_str).unwrap_or_default(),
            idempotency_key: fields.optional_text("idempotency_key", NAME_BYTES),
            on_busy: fields.word("on_busy", OnBusy::ALL, OnBusy::as_str).unwrap_or_default(),
        };
        if submit.mode == Mode::Batch && submit.session_id.is_some() {
            fields.problem("session_id", "can't go with mode `batch`, which makes a session of its own");
        }
        prompt.map(|_| submit)
    }
}

/// Reads the fields of a JSON object and notes every problem, so that one reply names them all.
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    limits: TextLimits,
    problems: Vec<Detail>,
    /// An error that outranks `VALIDATION_FAILED` once all fields are well-formed.
    refusal: Option<ErrorFrame>,
}

impl<'a> Fields<'a> {
    /// A reader of `object`. Fields nobody asks for are ignored.
    pub fn new(object: &'a Map<String, Value>, limits: TextLimits) -> Self {
        Self { object, limits, problems: Vec::new(), refusal: None }
    }

    /// `value`, if no field had a problem.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, ErrorFrame> {
        match value {
            Some(value) if self.problems.is_empty() && self.refusal.is_none() => Ok(value),
            _ => Err(self.into_error()),
        }
    }

    fn into_error(self) -> ErrorFrame {
        match self.refusal {
            Some(refusal) if self.problems.is_empty() => refusal,
            _ => ErrorFrame::invalid(self.problems),
        }
    }

    /// Notes that `field` is not what it must be.
    pub fn problem(&mut self, field: &str, problem: impl Into<String>) {
        self.problems.push(Detail { field: field.to_owned(), problem: problem.into() });
    }

    fn value(&self, field: &str) -> Option<&'a Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    fn require(&mut self, field: &str) {
        if self.value(field).is_none() {
            self.problem(field, "is required");
        }
    }

    /// A text of 1 to `limit` bytes without U+0000, if present.
    pub fn optional_text(&mut self, field: &str, limit: usize) -> Option<String> {
        let value = self.value(field)?;
        match value.as_str() {
            None => self.problem(field, "must be a string"),
            Some("") => self.problem(field, "must not be empty"),
            Some(text) if text.contains('\0') => self.problem(field, "must not contain U+0000"),
            Some(text) if text.len() > limit => self.problem(field, format!("must be at most {limit} bytes")),
            Some(text) => return Some(text.to_owned()),
        }
        None
    }

    /// A text that must be there.
    pub fn required_text(&mut self, field: &str, limit: usize) -> Option<String> {
        self.require(field);
        self.optional_text(field, limit)
    }

    fn prompt(&mut self, field: &str) -> Option<String> {
        let limit = self.limits.prompt_bytes;
        if self.value(field).and_then(Value::as_str).is_some_and(|text| text.len() > limit) {
            let message = format!("`{field}` is over {limit} bytes; shorten it, or put it in a file of the workspace");
            self.refusal = Some(ErrorFrame::new(ErrorCode::PayloadTooLarge, message));
            return None;
        }
        self.required_text(field, limit)
    }

    /// A whole number of at least `least`, if present.
    pub fn optional_integer(&mut self, field: &str, least: u64) -> Option<u64> {
        let value = self.value(field)?;
        // The databases count in 64 bits with a sign.
        let number = value.as_u64().filter(|number| *number >= least && i64::try_from(*number).is_ok());
        if number.is_none() {
            self.problem(field, format!("must be a whole number, {least} or more"));
        }
        number
    }

    fn optional_amount(&mut self, field: &str) -> Option<f64> {
        let amount = self.value(field)?.as_f64().filter(|amount| amount.is_finite() && *amount > 0.0);
        if amount.is_none() {
            self.problem(field, "must be a number above 0");
        }
        amount
    }

    fn optional_names(&mut self, field: &str, most: usize) -> Option<Vec<String>> {
        let legal = |name: &Value| {
            name.as_str()
                .filter(|name| !name.is_empty() && name.len() <= NAME_BYTES && !name.contains('\0'))
                .map(str::to_owned)
        };
        let names = self
            .value(field)?
            .as_array()
            .filter(|names| names.len() <= most)
            .and_then(|names| names.iter().map(legal).collect());
        if names.is_none() {
            self.problem(field, format!("must be an array of at most {most} strings of 1 to {NAME_BYTES} bytes"));
        }
        names
    }

    /// One of the words of an enum, if present.
    pub fn word<T: Copy>(&mut self, field: &str, all: &[T], spell: fn(T) -> &'static str) -> Option<T> {
        let value = self.value(field)?;
        let word = value.as_str().and_then(|word| all.iter().copied().find(|candidate| spell(*candidate) == word));
        if word.is_none() {
            let words: Vec<&str> = all.iter().map(|candidate| spell(*candidate)).collect();
            self.problem(field, format!("must be one of: {}", words.join(", ")));
        }
        word
    }

    /// An id, if present. A string that is no id of the kind is `missing`, as if it named nothing.
    pub fn optional_id<T>(&mut self, field: &str, parse: fn(&str) -> Option<T>, missing: ErrorFrame) -> Option<T> {
        let text = self.optional_text(field, NAME_BYTES)?;
        let id = parse(&text);
        if id.is_none() {
            self.refusal.get_or_insert(missing);
        }
        id
    }

    /// A profile id, if present.
    pub fn optional_profile(&mut self, field: &str) -> Option<ProfileId> {
        let missing = ErrorFrame::new(ErrorCode::NotFound, "no such profile; `GET /v1/profiles` lists those there are");
        self.optional_id(field, ProfileId::parse, missing)
    }

    fn session_id(&mut self) -> Option<SessionId> {
        self.require("session_id");
        self.optional_id("session_id", SessionId::parse, ErrorFrame::session_not_found())
    }

    fn task_id(&mut self) -> Option<TaskId> {
        self.require("task_id");
        self.optional_id("task_id", TaskId::parse, ErrorFrame::task_not_found())
    }

    /// The `answer` of `task.answer`, which may be empty text.
    pub fn answer(&mut self) -> Option<Answer> {
        self.require("answer");
        let limit = self.limits.prompt_bytes;
        let legal = |text: &str| !text.contains('\0');
        let answer = match self.value("answer")? {
            Value::String(text) if legal(text) => Some(Answer::Text(text.clone())),
            Value::Object(answers) => answers
                .iter()
                .map(|(question, answer)| match answer {
                    Value::String(text) if legal(text) && legal(question) => Some((question.clone(), text.clone())),
                    _ => None,
                })
                .collect::<Option<_>>()
                .map(Answer::PerQuestion),
            _ => None,
        };
        let Some(answer) = answer else {
            self.problem("answer", "must be a string, or an object of strings by question, without U+0000");
            return None;
        };
        let size = match &answer {
            Answer::Text(text) => text.len(),
            Answer::PerQuestion(answers) => answers.iter().map(|(question, text)| question.len() + text.len()).sum(),
        };
        if size > limit {
            let message = format!("`answer` is over {limit} bytes; shorten it");
            self.refusal = Some(ErrorFrame::new(ErrorCode::PayloadTooLarge, message));
            return None;
        }
        Some(answer)
    }
}

/// The beginning of a text of a client's, to be quoted back.
fn shorten(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}

#[cfg(test)]
mod tests;
