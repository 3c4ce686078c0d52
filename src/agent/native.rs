//! The native dialect: one JSON object a line, described for agents' authors in `docs/agent-protocol.md`.
//!
//! Lenient where leniency can't mislead: unknown types and fields are skipped, and a line that ends a
//! turn is never refused for its ornaments, because a lost `done` would leave the run waiting.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{ASK_TOOL, Adapter, AgentCommand, AgentEvent, DecodeError, StopReason, Tell};
use crate::domain::{SessionId, TaskId, Usage};
use crate::protocol::client::Answer;
use crate::protocol::event::{Question, QuestionOption};

/// The native dialect. It has no state: every line means the same at any time.
#[derive(Debug, Default)]
pub struct NativeAdapter {}

impl Adapter for NativeAdapter {
    fn decode(&mut self, line: &str, events: &mut Vec<AgentEvent>) -> Result<(), DecodeError> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        // Serde would read a JSON array as a struct too.
        if !line.trim_ascii_start().starts_with('{') {
            return Err(DecodeError("a line is not a JSON object".to_owned()));
        }
        match &*read::<Kind>("agent", line)?.r#type {
            "text" => {
                let Text { text } = read("text", line)?;
                if !text.is_empty() {
                    events.push(AgentEvent::Text(text));
                }
            }
            "tool_use" => read::<ToolUse>("tool_use", line)?.into_events(events)?,
            "tool_result" => {
                let ToolResult { id, output, is_error } = read("tool_result", line)?;
                let output = output.map(text_of).unwrap_or_default();
                events.push(AgentEvent::ToolResult { id, output, is_error: is_error.unwrap_or_default() });
            }
            "done" => events.push(read::<Done>("done", line)?.into_event()),
            "error" => events.push(read::<Failure>("error", line)?.into_event()),
            _ => (), // From a newer protocol.
        }
        Ok(())
    }

    fn encode(&mut self, id: &str, command: &AgentCommand, tells: &mut Vec<Tell>) {
        let line = match command {
            AgentCommand::Turn(turn) => CommandLine::Turn {
                session_id: turn.session_id,
                task_id: turn.task_id,
                prompt: &turn.prompt,
                system_prompt: turn.system_prompt.as_deref(),
                allowed_tools: turn.allowed_tools.as_deref(),
                max_turns: turn.max_turns,
                model: turn.model.as_deref(),
            },
            AgentCommand::Continue => CommandLine::Continue,
            AgentCommand::Interrupt => CommandLine::Interrupt,
            AgentCommand::Answer { id: tool, questions, answer } => {
                CommandLine::Answer { id: tool, answer: by_question(questions, answer) }
            }
        };
        #[expect(clippy::expect_used, reason = "string keys into memory can't fail to encode")]
        let mut text = serde_json::to_string(&line).expect("a command encodes");
        text.push('\n');
        tells.push(Tell::Write { id: id.to_owned(), text });
    }
}

/// An answer the agent can look up by its own question: every question asked is a key, also when the
/// user gave one text for several (it answers the first) or left some out. What the user said beyond
/// that goes along.
fn by_question(questions: &[Question], answer: &Answer) -> Map<String, Value> {
    let mut answers: Map<String, Value> =
        questions.iter().map(|question| (question.question.clone(), Value::from(""))).collect();
    match answer {
        Answer::Text(text) => {
            let first = questions.first().map(|question| question.question.clone()).unwrap_or_default();
            answers.insert(first, Value::from(text.as_str()));
        }
        Answer::PerQuestion(given) => {
            answers.extend(given.iter().map(|(question, text)| (question.clone(), Value::from(text.as_str()))));
        }
    }
    answers
}

/// A line to the agent.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum CommandLine<'a> {
    Turn {
        session_id: SessionId,
        task_id: TaskId,
        prompt: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        system_prompt: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        allowed_tools: Option<&'a [String]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        max_turns: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<&'a str>,
    },
    Continue,
    Interrupt,
    Answer {
        id: &'a str,
        answer: Map<String, Value>,
    },
}

// What an agent says is read in two steps, because serde can't hand out raw JSON from a tagged enum.

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

#[derive(Deserialize)]
struct ToolUse {
    id: String,
    tool: String,
    #[serde(default)]
    input: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct ToolResult<'a> {
    id: String,
    #[serde(default, borrow)]
    output: Option<&'a RawValue>,
    #[serde(default)]
    is_error: Option<bool>,
}

#[derive(Deserialize)]
struct Done {
    #[serde(default)]
    stop_reason: Value,
    #[serde(default)]
    usage: Value,
    #[serde(default)]
    num_turns: Value,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    message: Value,
    #[serde(default)]
    usage: Value,
    #[serde(default)]
    num_turns: Value,
}

impl ToolUse {
    fn into_events(self, events: &mut Vec<AgentEvent>) -> Result<(), DecodeError> {
        let Self { id, tool, input } = self;
        // Raw JSON goes to clients unparsed; whatever their parsers could choke on (nesting without end,
        // half a surrogate pair) ends here.
        let value: Value = match &input {
            Some(raw) => read("tool_use", raw.get())?,
            None => Value::Object(Map::new()),
        };
        let input = match input {
            Some(raw) => raw,
            None => serde_json::value::to_raw_value(&value).map_err(|error| refusal("tool_use", &error))?,
        };
        let questions = if tool == ASK_TOOL { questions_of(&value) } else { Vec::new() };
        events.push(AgentEvent::ToolUse { id: id.clone(), tool, input });
        // Without a single question there is nothing to show or answer: it stays a plain tool use.
        if !questions.is_empty() {
            events.push(AgentEvent::Ask { id, questions });
        }
        Ok(())
    }
}

impl Done {
    fn into_event(self) -> AgentEvent {
        let reason = match self.stop_reason.as_str() {
            Some("max_turns") => StopReason::MaxTurns,
            Some("interrupted") => StopReason::Interrupted,
            _ => StopReason::EndTurn,
        };
        stopped(reason, &self.usage, &self.num_turns)
    }
}

impl Failure {
    fn into_event(self) -> AgentEvent {
        let message = match self.message {
            Value::String(text) if !text.trim().is_empty() => text,
            Value::String(_) | Value::Null => "the agent reported an error without a message".to_owned(),
            other => other.to_string(),
        };
        stopped(StopReason::Error(message), &self.usage, &self.num_turns)
    }
}

fn stopped(reason: StopReason, usage: &Value, num_turns: &Value) -> AgentEvent {
    let cost = usage["cost_usd"].as_f64().filter(|cost| cost.is_finite() && *cost >= 0.0);
    let usage = Usage {
        input_tokens: count(&usage["input_tokens"]).unwrap_or(0),
        output_tokens: count(&usage["output_tokens"]).unwrap_or(0),
        cost_usd: cost.unwrap_or(0.0),
    };
    let num_turns = count(num_turns).and_then(|turns| u32::try_from(turns).ok()).unwrap_or(1);
    AgentEvent::Stopped { reason, usage, cost_known: cost.is_some(), num_turns }
}

/// A count, also from a language that only has floats.
fn count(value: &Value) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate is cut to what fits")]
    value.as_u64().or_else(|| value.as_f64().filter(|number| *number >= 0.0).map(|number| number as u64))
}

/// The questions of an `AskUserQuestion` that can be shown: bare strings count as questions and as choices; what has no words is
/// left out.
pub(super) fn questions_of(input: &Value) -> Vec<Question> {
    let list = input["questions"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .filter_map(|value| {
            let choices = value["options"].as_array().map(Vec::as_slice).unwrap_or_default();
            Some(Question {
                question: words(value, "question")?,
                header: words(&value["header"], ""),
                options: choices
                    .iter()
                    .filter_map(|choice| {
                        let description = words(&choice["description"], "");
                        Some(QuestionOption { label: words(choice, "label")?, description })
                    })
                    .collect(),
                multi_select: value["multiSelect"].as_bool().unwrap_or(false),
            })
        })
        .collect()
}

/// The text of `value` itself, or of its `field`, when there is any.
fn words(value: &Value, field: &str) -> Option<String> {
    let text = value.as_str().or_else(|| value[field].as_str())?;
    (!text.trim().is_empty()).then(|| text.to_owned())
}

/// A JSON string's text; of any other JSON, the JSON.
fn text_of(raw: &RawValue) -> String {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
}

/// Reads `json`, which should be a `kind` of thing.
pub(super) fn read<'a, T: Deserialize<'a>>(kind: &'static str, json: &'a str) -> Result<T, DecodeError> {
    serde_json::from_str(json).map_err(|error| refusal(kind, &error))
}

/// Says what is wrong without the line's own words, which serde's messages quote and logs must not hold.
fn refusal(kind: &str, error: &serde_json::Error) -> DecodeError {
    let cause = if error.is_data() { "a field is missing or of the wrong type" } else { "it is not valid JSON" };
    DecodeError(format!("unreadable {kind} line: {cause} (near column {})", error.column()))
}

#[cfg(test)]
mod example;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Turn;
    use crate::agent::transcript::show;

    /// Transcript in, events out; a line that is refused shows as `refused`.
    fn check(transcript: &[&str], expected: &[&str]) {
        let mut adapter = NativeAdapter::default();
        let mut shown = Vec::new();
        for line in transcript {
            let mut events = Vec::new();
            if adapter.decode(line, &mut events).is_err() {
                assert!(events.is_empty(), "a refused line has no events: {line}");
                shown.push("refused".to_owned());
            }
            shown.extend(events.iter().map(show));
        }
        assert_eq!(shown, expected);
    }

    fn encoded(command: &AgentCommand) -> Value {
        let mut tells = Vec::new();
        NativeAdapter::default().encode("task_1", command, &mut tells);
        let [Tell::Write { id, text }] = &tells[..] else { panic!("a command is one write") };
        assert_eq!(id, "task_1");
        let line = text.strip_suffix('\n').expect("a command ends with a newline");
        assert!(!line.contains('\n'), "a command is one line");
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn a_turn_comes_out_as_it_happened() {
        check(
            &[
                r#"{"type":"text","text":"Let me look.\n"}"#,
                r#"{"type":"tool_use","id":"1","tool":"Bash","input":{"command":"ls"}}"#,
                r#"{"type":"tool_result","id":"1","output":" a\nb\n"}"#,
                r#"{"type":"tool_use","id":"2","tool":"Bash"}"#,
                r#"{"type":"tool_result","id":"2","output":"no","is_error":true}"#,
                r#"{"type":"done","stop_reason":"end_turn","usage":{"input_tokens":12,"output_tokens":3,"cost_usd":0.5},"num_turns":2}"#,
            ],
            &[
                r#"text "Let me look.\n""#,
                r#"use 1 Bash {"command":"ls"}"#,
                r#"result 1 " a\nb\n" error=false"#,
                "use 2 Bash {}",
                r#"result 2 "no" error=true"#,
                "stopped EndTurn 12/3/0.5 known=true turns=2",
            ],
        );
    }

    #[test]
    fn every_way_to_stop_is_understood() {
        check(
            &[
                r#"{"type":"done","stop_reason":"max_turns","usage":{"input_tokens":1,"output_tokens":2}}"#,
                r#"{"type":"done","stop_reason":"interrupted"}"#,
                r#"{"type":"error","message":"no key","usage":{"input_tokens":7}}"#,
            ],
            &[
                "stopped MaxTurns 1/2/0 known=false turns=1",
                "stopped Interrupted 0/0/0 known=false turns=1",
                r#"stopped Error("no key") 7/0/0 known=false turns=1"#,
            ],
        );
    }

    #[test]
    fn the_end_of_a_turn_is_never_refused_for_its_ornaments() {
        check(
            &[
                r#"{"type":"done"}"#,
                r#"{"type":"done","stop_reason":"novel","usage":null,"num_turns":"many"}"#,
                r#"{"type":"done","stop_reason":7,"usage":{"input_tokens":3.0,"output_tokens":-1,"cost_usd":-2}}"#,
                r#"{"type":"error"}"#,
                r#"{"type":"error","message":{"code":5},"usage":[]}"#,
            ],
            &[
                "stopped EndTurn 0/0/0 known=false turns=1",
                "stopped EndTurn 0/0/0 known=false turns=1",
                "stopped EndTurn 3/0/0 known=false turns=1",
                r#"stopped Error("the agent reported an error without a message") 0/0/0 known=false turns=1"#,
                r#"stopped Error("{\"code\":5}") 0/0/0 known=false turns=1"#,
            ],
        );
    }

    #[test]
    fn an_output_that_is_not_text_is_passed_as_its_json() {
        check(
            &[
                r#"{"type":"tool_result","id":"1","output":{"files": ["a"]}}"#,
                r#"{"type":"tool_result","id":"2","output":42}"#,
                r#"{"type":"tool_result","id":"3","output":null}"#,
                r#"{"type":"tool_result","id":"4","is_error":null}"#,
            ],
            &[
                r#"result 1 "{\"files\": [\"a\"]}" error=false"#,
                r#"result 2 "42" error=false"#,
                r#"result 3 "" error=false"#,
                r#"result 4 "" error=false"#,
            ],
        );
    }

    #[test]
    fn a_question_is_a_tool_use_and_then_an_ask() {
        check(
            &[
                r#"{"type":"tool_use","id":"q","tool":"AskUserQuestion","input":{"questions":[{"question":"Pick","header":"H","multiSelect":true,"options":[{"label":"A","description":"a"},{"label":"B"}],"extra":1}]}}"#,
            ],
            &[
                r#"use q AskUserQuestion {"questions":[{"question":"Pick","header":"H","multiSelect":true,"options":[{"label":"A","description":"a"},{"label":"B"}],"extra":1}]}"#,
                r#"ask q "Pick" ["A", "B"] multi=true"#,
            ],
        );
    }

    #[test]
    fn bare_strings_make_questions_and_choices() {
        check(
            &[
                r#"{"type":"tool_use","id":"q","tool":"AskUserQuestion","input":{"questions":["Why?",{"question":"How?","options":["x",{"label":""},3,{"label":"y"}]},{"options":[]},5]}}"#,
            ],
            &[
                r#"use q AskUserQuestion {"questions":["Why?",{"question":"How?","options":["x",{"label":""},3,{"label":"y"}]},{"options":[]},5]}"#,
                r#"ask q "Why?" [] multi=false "How?" ["x", "y"] multi=false"#,
            ],
        );
    }

    #[test]
    fn an_ask_without_a_question_is_a_plain_tool_use() {
        check(
            &[
                r#"{"type":"tool_use","id":"1","tool":"AskUserQuestion","input":{"questions":[]}}"#,
                r#"{"type":"tool_use","id":"2","tool":"AskUserQuestion","input":"?"}"#,
                r#"{"type":"tool_use","id":"3","tool":"AskUserQuestion"}"#,
                r#"{"type":"tool_use","id":"4","tool":"AskUserQuestion","input":{"questions":[{"question":" "}]}}"#,
            ],
            &[
                r#"use 1 AskUserQuestion {"questions":[]}"#,
                r#"use 2 AskUserQuestion "?""#,
                "use 3 AskUserQuestion {}",
                r#"use 4 AskUserQuestion {"questions":[{"question":" "}]}"#,
            ],
        );
    }

    #[test]
    fn what_is_not_known_or_says_nothing_is_skipped() {
        check(
            &[
                "",
                " \r",
                r#"{"type":"thinking","usage":"any","id":[1]}"#,
                r#"{"type":"text","text":""}"#,
                "{\"type\":\"text\",\"text\":\"a\",\"more\":{}}\r",
                r#"{"text":"b","\u0074ype":"te\u0078t"}"#,
            ],
            &[r#"text "a""#, r#"text "b""#],
        );
    }

    #[test]
    fn a_broken_line_is_refused_and_the_next_one_read() {
        let deep =
            format!(r#"{{"type":"tool_use","id":"1","tool":"T","input":{}{}}}"#, "[".repeat(500), "]".repeat(500));
        check(
            &[
                "hello",
                "42",
                r#"["text","smuggled"]"#,
                "{",
                r#"{"text":"no type"}"#,
                r#"{"type":1}"#,
                r#"{"type":"text"}"#,
                r#"{"type":"text","text":5}"#,
                r#"{"type":"text","text":"half a pair \ud800"}"#,
                r#"{"type":"tool_use","id":1,"tool":"T","input":{}}"#,
                r#"{"type":"tool_use","id":"1","input":{}}"#,
                r#"{"type":"tool_use","id":"1","tool":"T","input":"\ud800"}"#,
                &deep,
                r#"{"type":"tool_result","output":"whose?"}"#,
                r#"{"type":"text","text":"a"}{"type":"text","text":"b"}"#,
                r#"{"type":"text","text":"still here"}"#,
            ],
            &[&["refused"; 15][..], &[r#"text "still here""#]].concat(),
        );
    }

    #[test]
    fn a_refusal_never_quotes_the_line() {
        for line in [
            "hunter2",
            r#"{"type":"text","text":{"hunter2":1}}"#,
            r#"{"type":"text","text":"hunter2"#,
            r#"{"type":"tool_use","id":"hunter2","tool":true}"#,
            r#"{"hunter2":"hunter2"}"#,
        ] {
            let error = NativeAdapter::default().decode(line, &mut Vec::new()).unwrap_err().to_string();
            assert!(!error.contains("hunter2") && error.len() < 120, "{error}");
        }
    }

    #[test]
    fn a_turn_is_told_with_what_is_known_and_nothing_else() {
        let (session_id, task_id) = (SessionId::generate(), TaskId::generate());
        let mut turn = Turn {
            session_id,
            task_id,
            prompt: "two\nlines".to_owned(),
            system_prompt: None,
            allowed_tools: None,
            max_turns: None,
            model: None,
        };
        let least = serde_json::json!({
            "type": "turn", "session_id": session_id, "task_id": task_id, "prompt": "two\nlines",
        });
        assert_eq!(encoded(&AgentCommand::Turn(Box::new(turn.clone()))), least);

        turn.system_prompt = Some("Be kind.".to_owned());
        turn.allowed_tools = Some(vec!["Bash".to_owned()]);
        turn.max_turns = Some(3);
        turn.model = Some("m".to_owned());
        let most = serde_json::json!({
            "type": "turn", "session_id": session_id, "task_id": task_id, "prompt": "two\nlines",
            "system_prompt": "Be kind.", "allowed_tools": ["Bash"], "max_turns": 3, "model": "m",
        });
        assert_eq!(encoded(&AgentCommand::Turn(Box::new(turn))), most);
    }

    #[test]
    fn the_short_commands_are_their_type_alone() {
        assert_eq!(encoded(&AgentCommand::Continue), serde_json::json!({"type": "continue"}));
        assert_eq!(encoded(&AgentCommand::Interrupt), serde_json::json!({"type": "interrupt"}));
    }

    #[test]
    fn an_answer_names_every_question_that_was_asked() {
        let question =
            |text: &str| Question { question: text.to_owned(), header: None, options: Vec::new(), multi_select: false };
        let questions = vec![question("Which?"), question("When?")];
        let answer = |answer| {
            let id = "q".to_owned();
            let told = encoded(&AgentCommand::Answer { id, questions: questions.clone(), answer });
            assert_eq!((&told["type"], &told["id"]), (&Value::from("answer"), &Value::from("q")));
            told["answer"].clone()
        };

        assert_eq!(answer(Answer::Text("A".to_owned())), serde_json::json!({"Which?": "A", "When?": ""}));
        let given = [("When?", "now"), ("Else?", "yes")].map(|(key, text)| (key.to_owned(), text.to_owned()));
        assert_eq!(
            answer(Answer::PerQuestion(given.into())),
            serde_json::json!({"Which?": "", "When?": "now", "Else?": "yes"}),
        );
    }
}
