//! What the agent asks for: answers to its questions, and permission to use a tool.
//!
//! Each is a control request that the agent waits for. Those that are the user's to answer are kept until the tool
//! comes back, with their answers, so that an answer that is given again is the same; the others are settled here
//! at once.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::super::native::{questions_of, read};
use super::decode::tool_input;
use super::state::{ProcessState, is_id};
use super::wire::{self, ControlRequest, Line, Permission, text};
use crate::agent::{ASK_TOOL, AgentEvent, DecodeError, Tell, says_yes};
use crate::config::PermissionPolicy;
use crate::protocol::client::Answer;
use crate::protocol::event::{Question, QuestionOption};

/// The choices that a request for permission has.
const ALLOW: &str = "Allow";
const DENY: &str = "Deny";
/// What the model hears about a tool use that was not allowed.
const DENIED: &str = "The user denied this tool use.";
const NOT_ALLOWED: &str = "This tool use needs a permission that nobody gives here; go on without it.";
const NOBODY: &str = "Nobody is there to answer; go on without an answer.";
const NO_QUESTION: &str = "There is no question in it that could be put to the user.";
/// What the agent hears about a request that is not known here.
const UNKNOWN: &str = "this host does not know such requests";
/// How much of a tool's input is shown in a question.
const SHOWN_INPUT: usize = 400;
/// The input that leaves a tool's own as it is.
const SAME_INPUT: &str = "{}";

/// A request that waits for the user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// The agent's id for it.
    pub(super) id: String,
    /// The tool call that it is for.
    pub(super) tool: String,
    kind: Kind,
    /// The tool's input as JSON, if it is small.
    #[serde(default)]
    pub(super) input: Option<String>,
    /// The command that answered it.
    #[serde(default)]
    answered_by: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// `AskUserQuestion`: the answers go into its input.
    Question,
    /// Any other tool: it may be used or not.
    Permission,
}

/// A request that was answered without the user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Settled {
    /// The agent's id for it.
    pub(super) id: String,
    /// The tool call that it is for, if any.
    pub(super) tool: String,
    verdict: Verdict,
    /// The tool's input as JSON, if it is small.
    #[serde(default)]
    pub(super) input: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Allowed,
    NotAllowed,
    Nobody,
    NoQuestion,
    Unknown,
}

impl Settled {
    /// What the agent is told, as often as one likes.
    pub(super) fn tell(&self) -> Tell {
        let tell_id = format!("reply/{}", self.id);
        let deny = |message| wire::permission(&tell_id, &self.id, &Permission::Deny { message });
        match self.verdict {
            Verdict::Allowed => wire::permission(&tell_id, &self.id, &allow(&raw(self.input.as_deref()))),
            Verdict::NotAllowed => deny(NOT_ALLOWED),
            Verdict::Nobody => deny(NOBODY),
            Verdict::NoQuestion => deny(NO_QUESTION),
            Verdict::Unknown => wire::refusal(&tell_id, &self.id, UNKNOWN),
        }
    }
}

/// Reads a request: puts it to the user, or settles it. One that has been met before is skipped.
pub(super) fn request(
    process: &mut ProcessState,
    permissions: PermissionPolicy,
    line: &Line<'_>,
    events: &mut Vec<AgentEvent>,
) -> Result<(), DecodeError> {
    let Some(id) = text(line.request_id) else {
        return Err(DecodeError("a control request without an id".to_owned()));
    };
    if !is_id(&id) {
        return Err(DecodeError("a control request whose id is none".to_owned())); // It would come back in the answer.
    }
    if process.knows_request(&id) {
        return Ok(());
    }
    let request: ControlRequest<'_> = read("control_request", line.request.map_or("null", RawValue::get))?;
    let ControlRequest { tool_name: name, tool_use_id: tool, .. } = request;
    let mut settle = |process: &mut ProcessState, verdict, mut input: Option<String>| {
        process.drop_large(&mut input);
        let settled = Settled { id: id.clone(), tool: tool.clone(), verdict, input };
        events.push(AgentEvent::Tell(settled.tell()));
        process.keep_settled(settled);
    };
    if request.subtype != "can_use_tool" {
        settle(process, Verdict::Unknown, None);
        return Ok(());
    }
    let raw = tool_input(request.input)?;
    let input = Some(raw.get().to_owned());
    let kind = if name == ASK_TOOL { Kind::Question } else { Kind::Permission };
    let questions = match (kind, permissions) {
        (Kind::Permission, PermissionPolicy::Allow) => {
            settle(process, Verdict::Allowed, input);
            return Ok(());
        }
        (Kind::Permission, PermissionPolicy::Deny) => {
            settle(process, Verdict::NotAllowed, None);
            return Ok(());
        }
        (Kind::Permission, PermissionPolicy::Ask) => vec![permission_question(&name, &value(&raw))],
        (Kind::Question, _) => questions_of(&value(&raw)),
    };
    if questions.is_empty() {
        settle(process, Verdict::NoQuestion, None);
        return Ok(());
    }
    let asked = Request { id: id.clone(), tool: tool.clone(), kind, input, answered_by: None };
    let there_is_a_user = process.owes_end && !process.by_itself;
    if !there_is_a_user || !process.keep_request(asked) {
        settle(process, Verdict::Nobody, None);
        return Ok(());
    }
    // A subagent's tool use is not shown until it is asked about.
    if process.open_tool(&tool) {
        events.push(AgentEvent::ToolUse { id: tool.clone(), tool: name, input: raw });
    }
    events.push(AgentEvent::Ask { id: tool, questions });
    Ok(())
}

/// The agent does not wait for an answer any more.
pub(super) fn withdraw(process: &mut ProcessState, line: &Line<'_>) {
    if let Some(id) = text(line.request_id) {
        process.requests.retain(|request| request.id != id);
        process.settled.retain(|settled| settled.id != id);
    }
}

/// What the agent is told when the user answers `questions`, which the tool call `tool` put: by the command `id`,
/// which may have been given before.
pub(super) fn answer(
    process: &mut ProcessState,
    id: &str,
    tool: &str,
    questions: &[Question],
    answer: &Answer,
) -> Option<Tell> {
    let of_tool = || process.requests.iter().enumerate().filter(|(_, request)| request.tool == tool);
    let before = of_tool().find(|(_, request)| request.answered_by.as_deref() == Some(id));
    let (at, _) = before.or_else(|| of_tool().find(|(_, request)| request.answered_by.is_none()))?;
    let request = &mut process.requests[at];
    request.answered_by = Some(id.to_owned());
    let tell = match request.kind {
        Kind::Question => {
            let updated = answered_input(request.input.as_deref(), questions, answer);
            wire::permission(id, &request.id, &allow(&raw(Some(&updated))))
        }
        Kind::Permission => match verdict_of(questions, answer) {
            Ok(()) => wire::permission(id, &request.id, &allow(&raw(request.input.as_deref()))),
            Err(message) => wire::permission(id, &request.id, &Permission::Deny { message }),
        },
    };
    Some(tell)
}

/// The input of `AskUserQuestion` with the user's answers, by the exact text of each question.
fn answered_input(input: Option<&str>, shown: &[Question], answer: &Answer) -> String {
    let input: Value = input.and_then(|input| serde_json::from_str(input).ok()).unwrap_or_default();
    let asked = questions_of(&input);
    // What viewers saw may have been cut, never put in another order.
    let asked = if asked.is_empty() { shown } else { &asked };
    let mut answers: Map<String, Value> =
        asked.iter().map(|question| (question.question.clone(), Value::from(""))).collect();
    let exact = |text: &str| {
        let at = shown.iter().position(|question| question.question == text);
        at.and_then(|at| asked.get(at)).map_or_else(|| text.to_owned(), |question| question.question.clone())
    };
    match answer {
        Answer::Text(text) => {
            answers.extend(asked.first().map(|first| (first.question.clone(), Value::from(text.as_str()))));
        }
        Answer::PerQuestion(given) => {
            answers.extend(given.iter().map(|(question, text)| (exact(question), Value::from(text.as_str()))));
        }
    }
    let questions = match &input["questions"] {
        Value::Null => shown.iter().map(as_asked).collect(),
        questions => questions.clone(),
    };
    json!({"questions": questions, "answers": answers}).to_string()
}

/// A question in the form that the tool demands, from what viewers saw.
fn as_asked(question: &Question) -> Value {
    let options = question.options.iter().map(|option| {
        let description = option.description.as_deref().unwrap_or_default();
        json!({"label": option.label, "description": description})
    });
    json!({
        "question": question.question,
        "header": question.header.as_deref().unwrap_or_default(),
        "options": options.collect::<Vec<_>>(),
        "multiSelect": question.multi_select,
    })
}

/// How a request for permission is put to the user.
fn permission_question(tool: &str, input: &Value) -> Question {
    const TELLING: &[&str] = &["command", "file_path", "notebook_path", "path", "url", "query", "pattern", "skill"];
    let telling = TELLING.iter().find_map(|field| input[field].as_str());
    let mut shown = telling.map_or_else(|| input.to_string(), str::to_owned);
    if shown.len() > SHOWN_INPUT {
        shown.truncate(shown.floor_char_boundary(SHOWN_INPUT));
        shown.push('…');
    }
    let option = |label: &str| QuestionOption { label: label.to_owned(), description: None };
    Question {
        question: format!("Allow {tool}: `{shown}`?"),
        header: Some("Permission".to_owned()),
        options: vec![option(ALLOW), option(DENY)],
        multi_select: false,
    }
}

/// What the user says to a request for permission: yes, or no with what the model is told.
fn verdict_of<'a>(questions: &[Question], answer: &'a Answer) -> Result<(), &'a str> {
    let text = match answer {
        Answer::Text(text) => text.as_str(),
        Answer::PerQuestion(given) => {
            let asked = questions.first().and_then(|question| given.get(&question.question));
            asked.or_else(|| given.values().next()).map_or("", String::as_str)
        }
    };
    match text.trim() {
        word if says_yes(word) => Ok(()),
        word if word.is_empty() || word.eq_ignore_ascii_case(DENY) => Err(DENIED),
        message => Err(message),
    }
}

fn allow(input: &RawValue) -> Permission<'_> {
    Permission::Allow { updated_input: input }
}

/// JSON as it is; what is not kept is left as it is by the agent too.
fn raw(json: Option<&str>) -> Box<RawValue> {
    serde_json::from_str(json.unwrap_or(SAME_INPUT)).unwrap_or_default()
}

fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_default()
}
