//! What no recording has: interrupts at any time, damage to a session's memory, questions of all kinds.

use super::super::*;
use super::*;
use crate::protocol::client::Answer;

/// A conversation by hand.
struct Talk {
    adapter: AcpAdapter,
    policy: PermissionPolicy,
}

impl Talk {
    fn new(policy: PermissionPolicy, state: &Value) -> Self {
        Self { adapter: adapter(policy, state, Process::New), policy }
    }

    /// An agent that takes prompts.
    fn ready(policy: PermissionPolicy) -> Self {
        let mut talk = Self::new(policy, &Value::Null);
        talk.say("task", &AgentCommand::Turn(Box::new(turn("go"))));
        talk.hear(&json!({"id": "task/initialize", "result": {}}));
        talk.hear(&json!({"id": "task/session/new", "result": {"sessionId": "s"}}));
        talk
    }

    /// A command; what is told comes without what all of them have.
    fn say(&mut self, id: &str, command: &AgentCommand) -> Vec<String> {
        let mut tells = Vec::new();
        self.adapter.encode(id, command, &mut tells);
        tells.iter().map(short).collect()
    }

    fn turn(&mut self, id: &str) -> Vec<String> {
        self.say(id, &AgentCommand::Turn(Box::new(turn("go"))))
    }

    fn interrupt(&mut self) -> Vec<String> {
        self.say("task/interrupt", &AgentCommand::Interrupt)
    }

    fn answer(&mut self, id: &str, tool: &str, text: &str) -> Vec<String> {
        let answer =
            AgentCommand::Answer { id: tool.to_owned(), questions: Vec::new(), answer: Answer::Text(text.to_owned()) };
        self.say(id, &answer)
    }

    fn hear(&mut self, message: &Value) -> Vec<String> {
        let mut events = Vec::new();
        self.adapter.decode(&message.to_string(), &mut events).unwrap();
        let shown = |event: &AgentEvent| match event {
            AgentEvent::Tell(tell) => short(tell),
            event => show(event),
        };
        events.iter().map(shown).collect()
    }

    fn update(&mut self, update: &Value) -> Vec<String> {
        self.hear(&json!({"method": "session/update", "params": {"sessionId": "s", "update": update}}))
    }

    /// Another gateway takes over.
    fn restart(&mut self) {
        self.adapter = adapter(self.policy, &self.adapter.state(), Process::Known);
    }

    /// The agent ends, another is started.
    fn next_process(&mut self) {
        self.adapter = adapter(self.policy, &self.adapter.state(), Process::New);
    }
}

fn short(tell: &Tell) -> String {
    let Tell::Write { id, text } = tell else { panic!("ACP agents start with their box") };
    let lines = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        match line["method"].as_str() {
            Some(method) => method.to_owned(),
            None => line.get("result").unwrap_or(&line["error"]["code"]).to_string(),
        }
    });
    format!("tell {id}: {}", lines.collect::<Vec<_>>().join(" "))
}

const INTERRUPTED: &str = "stopped Interrupted 0/0/0.000000 known=false turns=1";

fn end(id: &str) -> Value {
    json!({"id": id, "result": {"stopReason": "end_turn"}})
}

fn permission(id: u32) -> Value {
    json!({"id": id, "method": "session/request_permission", "params": {
        "toolCall": {"toolCallId": format!("t{id}"), "title": "ls", "kind": "execute", "rawInput": {"command": "ls"}},
        "options": [{"optionId": "o", "name": "Allow", "kind": "allow_once"}, {"optionId": "r", "name": "No", "kind": "reject_once"}],
    }})
}

#[test]
fn an_interrupt_before_the_prompt_stops_at_the_next_step_of_the_handshake() {
    let mut talk = Talk::new(PermissionPolicy::Allow, &Value::Null);
    assert_eq!(talk.turn("task"), ["tell task/initialize: initialize"]);
    assert!(talk.interrupt().is_empty());
    talk.restart();
    assert_eq!(talk.hear(&json!({"id": "task/initialize", "result": {}})), [INTERRUPTED]);
    assert_eq!(talk.turn("next"), ["tell next/session/new: session/new"]);
    assert!(talk.interrupt().is_empty());
    assert_eq!(talk.hear(&json!({"id": "next/session/new", "result": {"sessionId": "s"}})), [INTERRUPTED]);
    assert_eq!(talk.turn("third"), ["tell third: session/prompt"]);
    assert_eq!(talk.hear(&end("third")), ["stopped EndTurn 0/0/0.000000 known=false turns=1"]);
}

#[test]
fn an_agent_that_answers_a_cancel_in_its_own_way_has_stopped_once() {
    for answer in [
        json!({"result": {"stopReason": "cancelled"}}),
        json!({"result": {"stopReason": "end_turn"}}),
        json!({"result": null}),
        json!({"error": {"code": -1, "message": "aborted"}}),
    ] {
        let mut talk = Talk::ready(PermissionPolicy::Allow);
        assert_eq!(talk.interrupt(), ["tell task/interrupt: session/cancel"]);
        let mut answer = answer;
        answer["id"] = json!("task");
        assert_eq!(talk.hear(&answer), [INTERRUPTED]);
        assert!(talk.hear(&answer).is_empty(), "a second answer ends nothing");
        assert!(talk.interrupt().is_empty(), "nothing runs");
        assert_eq!(talk.turn("next"), ["tell next: session/prompt"]);
        assert!(talk.hear(&answer).is_empty(), "nor does a late one");
        assert_eq!(talk.hear(&end("next")).len(), 1);
    }
}

#[test]
fn open_requests_are_cancelled_with_their_turn() {
    let mut talk = Talk::ready(PermissionPolicy::Ask);
    assert_eq!(talk.hear(&permission(1)).len(), 2);
    assert_eq!(talk.interrupt(), [r#"tell task/interrupt: session/cancel {"outcome":{"outcome":"cancelled"}}"#]);
    assert_eq!(talk.hear(&permission(2))[1], r#"tell reply/2: {"outcome":{"outcome":"cancelled"}}"#);
    talk.restart();
    let mut again = Vec::new();
    talk.adapter.tell_again(&mut again);
    assert_eq!(again.len(), 1, "what it may not have heard");
    let told = [r#"tell task/interrupt: session/cancel {"outcome":{"outcome":"cancelled"}}"#];
    assert_eq!(talk.interrupt(), told, "given again");
    assert_eq!(talk.hear(&json!({"id": "task", "result": {"stopReason": "cancelled"}})), [INTERRUPTED]);
    talk.adapter.tell_again(&mut again);
    assert_eq!(again.len(), 1, "nothing of what is over");
}

#[test]
fn a_permission_is_put_to_the_user_and_answered_once() {
    let mut talk = Talk::ready(PermissionPolicy::Ask);
    assert_eq!(
        talk.hear(&permission(1)),
        [r#"use t1 execute {"command":"ls"}"#, r#"ask t1 "May the agent do this? ls" ["Allow", "No"] multi=false"#,]
    );
    assert!(talk.hear(&permission(1)).is_empty(), "the same line twice");
    talk.restart();
    let told = [r#"tell ask_1: {"outcome":{"optionId":"o","outcome":"selected"}}"#];
    assert_eq!(talk.answer("ask_1", "t1", "allow"), told);
    talk.restart();
    assert_eq!(talk.answer("ask_1", "t1", "allow"), told, "given again");
    assert!(talk.answer("ask_2", "t1", "allow").is_empty(), "nothing more is asked");
}

#[test]
fn a_turn_that_codex_ends_because_it_was_refused_is_done() {
    let mut talk = Talk::ready(PermissionPolicy::Deny);
    assert_eq!(talk.hear(&permission(1))[1], r#"tell reply/1: {"outcome":{"optionId":"r","outcome":"selected"}}"#);
    assert_eq!(
        talk.hear(&json!({"id": "task", "result": {"stopReason": "cancelled"}})),
        ["stopped EndTurn 0/0/0.000000 known=false turns=1"]
    );
    talk.turn("next");
    assert_eq!(talk.hear(&json!({"id": "next", "result": {"stopReason": "cancelled"}})), [INTERRUPTED]);
}

#[test]
fn a_form_of_no_tool_call_is_a_call_of_its_own() {
    let mut talk = Talk::ready(PermissionPolicy::Allow);
    let form = json!({"id": "f", "method": "elicitation/create", "params": {
        "mode": "form", "message": "How many?", "requestedSchema": {"properties": {"n": {"type": "integer"}}},
    }});
    assert_eq!(
        talk.hear(&form),
        [
            r#"use ask/f AskUserQuestion {"questions":[{"header":null,"options":[],"question":"How many?"}]}"#
                .replace(r#""header":null,"#, "")
                .as_str(),
            r#"ask ask/f "How many?" [] multi=false"#,
        ]
    );
    assert_eq!(talk.answer("ask_1", "ask/f", "7"), [r#"tell ask_1: {"action":"accept","content":{"n":7}}"#]);
    talk.restart();
    let text = json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "Seven."}});
    assert_eq!(talk.update(&text), [r#"result ask/f "answered" error=false"#, r#"text "Seven.""#]);
    assert_eq!(talk.update(&text), [r#"text "Seven.""#]);
}

#[test]
fn what_is_asked_beyond_a_turn_is_cancelled_or_refused() {
    let mut talk = Talk::ready(PermissionPolicy::Allow);
    talk.hear(&end("task"));
    assert_eq!(talk.hear(&permission(1)), [r#"tell reply/1: {"outcome":{"outcome":"cancelled"}}"#]);
    let request = |id: u32, method: &str| json!({"id": id, "method": method, "params": {}});
    assert_eq!(talk.hear(&request(2, "elicitation/create")), [r#"tell reply/2: {"action":"cancel"}"#]);
    assert_eq!(talk.hear(&request(3, "fs/read_text_file")), ["tell reply/3: -32601"]);
    assert_eq!(talk.hear(&request(4, "terminal/create")), ["tell reply/4: -32601"]);
    assert_eq!(talk.hear(&request(5, "session/request_permission")), ["tell reply/5: -32602"]);
    assert!(talk.hear(&json!({"method": "novel", "params": {}})).is_empty());
}

#[test]
fn a_question_that_the_agent_does_not_wait_for_is_taken_back() {
    let mut talk = Talk::ready(PermissionPolicy::Ask);
    talk.hear(&permission(1));
    assert_eq!(
        talk.hear(&json!({"id": "task", "result": {"stopReason": "max_turn_requests"}})),
        [
            r#"result t1 "the agent went on without an answer" error=true"#,
            "stopped MaxTurns 0/0/0.000000 known=false turns=1",
        ]
    );
    assert_eq!(talk.say("task/continue/1", &AgentCommand::Continue), ["tell task/continue/1: session/prompt"]);
    talk.restart();
    assert!(talk.turn("task").is_empty(), "its first prompt is over");
    assert_eq!(talk.say("task/continue/1", &AgentCommand::Continue), ["tell task/continue/1: session/prompt"]);
    assert_eq!(talk.hear(&end("task/continue/1")).len(), 1);
}

#[test]
fn a_session_that_can_not_be_resumed_is_loaded_or_else_begun_anew() {
    let mut talk = Talk::new(PermissionPolicy::Allow, &json!({"session": "old", "introduced_by": "earlier"}));
    talk.turn("task");
    let offers = json!({"agentCapabilities": {"loadSession": true, "sessionCapabilities": {"resume": {}}}});
    assert_eq!(
        talk.hear(&json!({"id": "task/initialize", "result": offers})),
        ["tell task/session/resume: session/resume"]
    );
    let error = |id: &str| json!({"id": id, "error": {"code": -32601, "message": "no"}});
    assert_eq!(talk.hear(&error("task/session/resume")), ["tell task/session/load: session/load"]);
    let replay = json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "again"}});
    assert!(talk.update(&replay).is_empty(), "heard before");
    assert_eq!(talk.hear(&error("task/session/load")), ["tell task/session/new: session/new"]);
    assert_eq!(talk.hear(&error("task/session/new")), [r#"stopped Error("no") 0/0/0.000000 known=false turns=1"#]);
    assert_eq!(talk.turn("next"), ["tell next/session/resume: session/resume"]);
}

#[test]
fn a_system_prompt_goes_with_the_first_prompt_of_a_session() {
    let blocks = |talk: &mut Talk, id: &str| {
        let mut turn = turn("go");
        turn.system_prompt = Some("Be kind.".to_owned());
        let mut tells = Vec::new();
        talk.adapter.encode(id, &AgentCommand::Turn(Box::new(turn)), &mut tells);
        let [Tell::Write { text, .. }] = &tells[..] else { panic!("one line") };
        let line: Value = serde_json::from_str(text).unwrap();
        line["params"]["prompt"].as_array().map_or(0, Vec::len)
    };
    let mut talk = Talk::new(PermissionPolicy::Allow, &Value::Null);
    assert_eq!(blocks(&mut talk, "task"), 0, "initialize");
    talk.interrupt();
    talk.hear(&json!({"id": "task/initialize", "result": {}}));
    blocks(&mut talk, "second");
    talk.interrupt();
    talk.hear(&json!({"id": "second/session/new", "result": {"sessionId": "s"}}));
    assert_eq!(blocks(&mut talk, "third"), 2);
    talk.restart();
    assert_eq!(blocks(&mut talk, "third"), 2, "given again");
    talk.hear(&json!({"id": "third", "error": {}}));
    assert_eq!(blocks(&mut talk, "fourth"), 2, "the one before may have been forgotten");
    talk.hear(&end("fourth"));
    assert_eq!(blocks(&mut talk, "fifth"), 1);
}

#[test]
fn claude_takes_its_settings_with_the_session() {
    let mut first = turn("go");
    first.system_prompt = Some("Be kind.".to_owned());
    first.allowed_tools = Some(vec!["Bash".to_owned()]);
    first.max_turns = Some(3);
    first.model = Some("opus".to_owned());
    let mut talk = Talk::new(PermissionPolicy::Allow, &Value::Null);
    talk.say("task", &AgentCommand::Turn(Box::new(first.clone())));
    let mut events = Vec::new();
    let hello =
        json!({"id": "task/initialize", "result": {"agentInfo": {"name": "@agentclientprotocol/claude-agent-acp"}}});
    talk.adapter.decode(&hello.to_string(), &mut events).unwrap();
    let [AgentEvent::Tell(Tell::Write { text, .. })] = &events[..] else { panic!("one line") };
    let line: Value = serde_json::from_str(text).unwrap();
    assert_eq!(
        line["params"]["_meta"],
        json!({"systemPrompt": {"append": "Be kind."},
               "claudeCode": {"options": {"maxTurns": 3, "model": "opus", "tools": ["Bash"]}}}),
    );
    assert!(talk.adapter.fits(&first));
    talk.restart();
    assert!(!talk.adapter.fits(&turn("other settings")), "another process has to be started");
    talk.next_process();
    assert!(talk.adapter.fits(&turn("other settings")));
}

#[test]
fn a_mode_without_questions_is_set_where_all_is_allowed() {
    let opened = json!({"id": "task/session/new", "result": {"sessionId": "s", "modes": {
        "currentModeId": "default", "availableModes": [{"id": "default"}, {"id": "yolo"}]}}});
    for (policy, told) in [
        (PermissionPolicy::Allow, "tell task/session/new/mode: session/set_mode"),
        (PermissionPolicy::Ask, "tell task: session/prompt"),
    ] {
        let mut talk = Talk::new(policy, &Value::Null);
        talk.turn("task");
        talk.hear(&json!({"id": "task/initialize", "result": {}}));
        assert_eq!(talk.hear(&opened), [told]);
    }
    let mut talk = Talk::new(PermissionPolicy::Allow, &Value::Null);
    talk.turn("task");
    talk.hear(&json!({"id": "task/initialize", "result": {}}));
    talk.hear(&opened);
    talk.restart();
    assert_eq!(talk.turn("task"), ["tell task/session/new/mode: session/set_mode"]);
    let refused = json!({"id": "task/session/new/mode", "error": {"code": -32601}});
    assert_eq!(talk.hear(&refused), ["tell task: session/prompt"]);
}

#[test]
fn what_a_loaded_session_repeats_behind_its_answer_is_not_told_as_new() {
    let said = |text: &str| json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}});
    let answered = |request: &str| json!({"id": format!("next/session/load{request}"), "result": {}});
    for (policy, mode) in [(PermissionPolicy::Allow, "yolo"), (PermissionPolicy::Ask, "default")] {
        let mut talk = Talk::ready(policy);
        talk.hear(&end("task"));
        talk.next_process();
        talk.turn("next");
        talk.hear(&json!({"id": "next/initialize", "result": {"agentCapabilities": {"loadSession": true}}}));
        let loaded = json!({"id": "next/session/load", "result": {"modes": {
            "currentModeId": "default", "availableModes": [{"id": "default"}, {"id": "yolo"}]}}});
        assert_eq!(talk.hear(&loaded), ["tell next/session/load/mode: session/set_mode"]);
        assert_eq!(talk.adapter.state()["phase"]["setting_mode"][1], mode);
        assert!(talk.update(&said("said before")).is_empty());
        assert_eq!(talk.hear(&answered("/mode")), ["tell next/session/load/mode/1: session/set_mode"]);
        assert!(talk.update(&said("said before that")).is_empty());
        talk.restart();
        assert_eq!(talk.turn("next"), ["tell next/session/load/mode/1: session/set_mode"]);
        assert_eq!(talk.hear(&answered("/mode/1")), ["tell next/session/load/mode/2: session/set_mode"]);
        assert!(talk.update(&json!({"sessionUpdate": "current_mode_update"})).is_empty());
        assert_eq!(talk.hear(&answered("/mode/2")), ["tell next: session/prompt"]);
        assert_eq!(talk.update(&said("news")), ["text \"news\""]);
    }
}

#[test]
fn costs_are_counted_from_the_turns_beginning_as_the_agent_keeps_them() {
    let cost = |amount: f64| json!({"sessionUpdate": "usage_update", "cost": {"amount": amount, "currency": "USD"}});
    let mut talk = Talk::ready(PermissionPolicy::Allow);
    talk.update(&cost(0.25));
    talk.update(&json!({"sessionUpdate": "usage_update", "used": 7}));
    assert_eq!(talk.hear(&end("task")), ["stopped EndTurn 0/0/0.250000 known=true turns=1"]);
    talk.next_process();
    talk.turn("next");
    talk.hear(&json!({"id": "next/initialize", "result": {"agentCapabilities": {"loadSession": true}}}));
    talk.hear(&json!({"id": "next/session/load", "result": {}}));
    talk.update(&cost(0.75));
    assert_eq!(talk.hear(&end("next")), ["stopped EndTurn 0/0/0.500000 known=true turns=1"]);
    talk.turn("third");
    talk.update(&cost(0.125));
    assert_eq!(talk.hear(&end("third")), ["stopped EndTurn 0/0/0.125000 known=true turns=1"]);
}

#[test]
fn a_late_word_about_a_tool_call_of_an_earlier_prompt_is_not_heard() {
    let mut talk = Talk::ready(PermissionPolicy::Allow);
    let sight = |kind: &str, status: &str| json!({"sessionUpdate": kind, "toolCallId": "t", "title": "bash", "status": status, "rawInput": {"command": "ls"}});
    assert_eq!(talk.update(&sight("tool_call", "in_progress")).len(), 1);
    talk.interrupt();
    talk.hear(&end("task"));
    assert!(talk.update(&sight("tool_call_update", "completed")).is_empty());
    talk.turn("next");
    assert!(talk.update(&sight("tool_call_update", "completed")).is_empty());
    assert_eq!(talk.update(&sight("tool_call", "in_progress")).len(), 1, "a new one under the same id");
}

#[test]
fn state_stays_small_whatever_the_agent_says() {
    let long = "x".repeat(10_000);
    let mut talk = Talk::ready(PermissionPolicy::Ask);
    for n in 0..300 {
        talk.update(&json!({"sessionUpdate": "tool_call", "toolCallId": format!("{long}{n}"), "title": long, "status": "in_progress"}));
        let mut request = permission(n);
        request["params"]["toolCall"]["toolCallId"] = json!(format!("{long}{n}"));
        request["params"]["options"][0]["name"] = json!(long);
        talk.hear(&request);
        talk.hear(&json!({"id": format!("m{n}"), "method": "novel/request"}));
    }
    let size = talk.adapter.state().to_string().len();
    assert!(size <= 48 << 10, "{size}");
    assert!(talk.adapter.decode(&json!({"id": long, "method": "novel"}).to_string(), &mut Vec::new()).is_err());
}
