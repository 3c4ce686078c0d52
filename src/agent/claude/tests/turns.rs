//! Single facts about turns, tools, questions and permissions.

use serde_json::{Value, json};

use super::super::ClaudeAdapter;
use super::{at_work, encoded, heard, line_of, new, setup, turn};
use crate::agent::{Adapter as _, AgentCommand, Process};
use crate::config::PermissionPolicy;
use crate::protocol::client::Answer;
use crate::protocol::event::Question;

fn tool_use(id: &str, tool: &str, input: &Value) -> Value {
    let block = json!({"type": "tool_use", "id": id, "name": tool, "input": input});
    json!({"type": "assistant", "message": {"id": "m", "model": "x", "content": [block]}, "parent_tool_use_id": null})
}

fn tool_result(id: &str, parent: Option<&str>) -> Value {
    let block = json!({"type": "tool_result", "tool_use_id": id, "content": "ok"});
    json!({"type": "user", "message": {"role": "user", "content": [block]}, "parent_tool_use_id": parent})
}

fn request(id: &str, tool_id: &str, tool: &str, input: &Value) -> Value {
    let request = json!({"subtype": "can_use_tool", "tool_name": tool, "input": input, "tool_use_id": tool_id});
    json!({"type": "control_request", "request_id": id, "request": request})
}

fn success(text: &str, cost: f64) -> Value {
    json!({"type": "result", "subtype": "success", "is_error": false, "num_turns": 1, "result": text,
        "total_cost_usd": cost, "usage": {"input_tokens": 1, "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 300, "output_tokens": 5}})
}

fn question(text: &str) -> Question {
    Question { question: text.to_owned(), header: None, options: Vec::new(), multi_select: false }
}

fn answer(adapter: &mut ClaudeAdapter, id: &str, tool: &str, questions: &[Question], answer: &Answer) -> Value {
    let (tool, questions, answer) = (tool.to_owned(), questions.to_vec(), answer.clone());
    line_of(&encoded(adapter, id, &AgentCommand::Answer { id: tool, questions, answer }))["response"].clone()
}

fn said(text: &str) -> Answer {
    Answer::Text(text.to_owned())
}

#[test]
fn a_turns_usage_has_the_cache_in_it_and_its_share_of_the_cost() {
    let mut adapter = new(PermissionPolicy::Allow);
    assert_eq!(
        at_work(&mut adapter, &[success("x", 0.25)]),
        [r#"text "x""#, "stopped EndTurn 321/5/0.25 known=true turns=1"]
    );
    let mut adapter = ClaudeAdapter::new(setup(PermissionPolicy::Allow), &adapter.state(), Process::Known);
    assert_eq!(at_work(&mut adapter, &[success("", 0.75)]), ["stopped EndTurn 321/5/0.5 known=true turns=1"]);
    let mut adapter = ClaudeAdapter::new(setup(PermissionPolicy::Allow), &adapter.state(), Process::New);
    assert_eq!(at_work(&mut adapter, &[success("", 0.125)]), ["stopped EndTurn 321/5/0.125 known=true turns=1"]);
}

#[test]
fn ends_are_understood_without_their_ornaments() {
    let ends = [
        (json!({"subtype": "error_max_turns"}), "MaxTurns"),
        (json!({"subtype": "error_during_execution", "terminal_reason": "aborted_tools"}), "Interrupted"),
        (json!({"subtype": "success", "is_error": true, "result": "API Error: 529"}), r#"Error("API Error: 529")"#),
        (json!({"subtype": "error_max_budget_usd"}), r#"Error("Claude Code reached its budget")"#),
        (
            json!({"subtype": "error_new", "errors": ["[ede_diagnostic] x"]}),
            r#"Error("Claude Code reported `error_new`")"#,
        ),
        (json!({"subtype": "error_during_execution", "errors": ["a", "b"]}), r#"Error("a; b")"#),
        (
            json!({"subtype": 7, "errors": 5, "usage": [], "num_turns": "x"}),
            r#"Error("Claude Code reported an error without a message")"#,
        ),
    ];
    for (mut end, expected) in ends {
        end["type"] = json!("result");
        let shown = at_work(&mut new(PermissionPolicy::Allow), &[end]);
        assert_eq!(shown, [format!("stopped {expected} 0/0/0 known=false turns=0")]);
    }
}

#[test]
fn a_turn_ends_once_and_what_the_agent_does_by_itself_is_nobodys() {
    let mut adapter = new(PermissionPolicy::Ask);
    let init = json!({"type": "system", "subtype": "init"});
    let text = json!({"type": "stream_event", "event": {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hm"}}});
    let mut woken = success("hm", 1.5);
    woken["origin"] = json!({"kind": "task-notification"});
    assert_eq!(at_work(&mut adapter, &[success("", 1.0), success("", 1.0)]).len(), 1);

    let asked = request("r", "t", "Bash", &json!({}));
    let shown: Vec<_> = [&init, &text, &asked].iter().flat_map(|line| heard(&mut adapter, line)).collect();
    let [denied] = &shown[..] else { panic!("{shown:?}") };
    assert!(denied.contains("Nobody is there"), "{denied}");
    encoded(&mut adapter, "t", &AgentCommand::Turn(Box::new(turn("next"))));
    assert!(heard(&mut adapter, &text).is_empty() && heard(&mut adapter, &woken).is_empty());
    heard(&mut adapter, &init);
    assert_eq!(
        [heard(&mut adapter, &text), heard(&mut adapter, &success("hm", 2.0))].concat(),
        [r#"text "hm""#, "stopped EndTurn 321/5/1 known=true turns=1"]
    );
}

#[test]
fn text_is_shown_once_whether_it_came_in_pieces_or_not() {
    let start = |id: &str| json!({"type": "stream_event", "event": {"type": "message_start", "message": {"id": id}}});
    let piece = |text: &str| json!({"type": "stream_event", "event": {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}});
    let whole = |id: &str, text: &str| json!({"type": "assistant", "message": {"id": id, "model": "x", "content": [{"type": "text", "text": text}]}});
    let lines = [
        start("a"),
        piece("one "),
        piece("two"),
        whole("a", "one two"),
        whole("b", "three"),
        start("c"),
        whole("c", "four"),
    ];
    let shown = at_work(&mut new(PermissionPolicy::Allow), &lines);
    assert_eq!(shown, [r#"text "one ""#, r#"text "two""#, r#"text "three""#, r#"text "four""#]);
}

#[test]
fn an_answer_goes_back_by_the_exact_text_of_each_question() {
    let input = json!({"questions": [
        {"question": "One?", "header": "H", "options": [{"label": "A", "description": "a"}], "multiSelect": true},
        {"question": "Two?", "header": "H", "options": [], "multiSelect": false},
    ], "metadata": {"source": "x"}});
    let shown = [question("One?"), question("Two?")];
    let answers = |given: &Answer| {
        let mut adapter = new(PermissionPolicy::Deny);
        let events = at_work(
            &mut adapter,
            &[tool_use("q", "AskUserQuestion", &input), request("r", "q", "AskUserQuestion", &input)],
        );
        assert!(events[1].starts_with(r#"ask q "One?" ["A"] multi=true "Two?""#), "{events:?}");
        let response = answer(&mut adapter, "ask", "q", &shown, given);
        assert_eq!(response["request_id"], "r");
        let updated = response["response"]["updatedInput"].clone();
        assert_eq!(updated["questions"], input["questions"]);
        updated["answers"].clone()
    };
    assert_eq!(answers(&said("anything")), json!({"One?": "anything", "Two?": ""}));
    let given = [("Two?", "no"), ("One?", "A, B")].map(|(question, text)| (question.to_owned(), text.to_owned()));
    assert_eq!(answers(&Answer::PerQuestion(given.into())), json!({"One?": "A, B", "Two?": "no"}));
}

#[test]
fn a_question_too_large_to_keep_is_answered_from_what_was_shown() {
    let input = json!({"questions": [{"question": "One?", "header": "H", "options": [{"label": "A", "preview": "x".repeat(20_000)}]}]});
    let mut adapter = new(PermissionPolicy::Allow);
    at_work(&mut adapter, &[tool_use("q", "AskUserQuestion", &input), request("r", "q", "AskUserQuestion", &input)]);
    let response = answer(&mut adapter, "ask", "q", &[question("One?")], &said("A"));
    let asked = json!({"question": "One?", "header": "", "options": [], "multiSelect": false});
    assert_eq!(response["response"]["updatedInput"], json!({"questions": [asked], "answers": {"One?": "A"}}));
}

#[test]
fn a_permission_is_granted_or_refused_as_the_policy_says() {
    let input = json!({"command": "ls -la", "n": 12_345_678_901_234_567_890_u64});
    let lines = [tool_use("t", "Bash", &input), request("r", "t", "Bash", &input)];
    let allowed = at_work(&mut new(PermissionPolicy::Allow), &lines);
    assert!(allowed[1].contains("reply/r") && allowed[1].contains("updatedInput"), "{allowed:?}");
    assert!(allowed[1].contains("12345678901234567890"), "{allowed:?}");
    let denied = at_work(&mut new(PermissionPolicy::Deny), &lines);
    assert!(denied[1].contains("deny") && denied[1].contains("needs a permission"), "{denied:?}");
    let asked = at_work(&mut new(PermissionPolicy::Ask), &lines);
    assert_eq!(asked[1], r#"ask t "Allow Bash: `ls -la`?" ["Allow", "Deny"] multi=false"#);
}

#[test]
fn the_user_decides_about_a_permission() {
    let input = json!({"file_path": "a.txt", "content": "x".repeat(20_000)});
    let shown = [question("Allow Write: `a.txt`?")];
    let decided = |given: &Answer| {
        let mut adapter = new(PermissionPolicy::Ask);
        at_work(&mut adapter, &[tool_use("t", "Write", &input), request("r", "t", "Write", &input)]);
        let before = adapter.state();
        let first = answer(&mut adapter, "ask", "t", &shown, given);
        for state in [before, adapter.state()] {
            let mut again = ClaudeAdapter::new(setup(PermissionPolicy::Ask), &state, Process::Known);
            assert_eq!(answer(&mut again, "ask", "t", &shown, given), first);
        }
        first["response"].clone()
    };
    // A large input is not kept; an empty one leaves it as it is.
    assert_eq!(decided(&said(" allow ")), json!({"behavior": "allow", "updatedInput": {}}));
    assert_eq!(decided(&said("Yes"))["behavior"], "allow");
    let by_question = Answer::PerQuestion([(shown[0].question.clone(), "Allow".to_owned())].into());
    assert_eq!(decided(&by_question)["behavior"], "allow");
    assert_eq!(decided(&said("Deny")), json!({"behavior": "deny", "message": "The user denied this tool use."}));
    assert_eq!(decided(&said("Not there!")), json!({"behavior": "deny", "message": "Not there!"}));
}

#[test]
fn a_subagents_tool_is_shown_when_the_user_is_asked_about_it_and_else_not() {
    let mut adapter = new(PermissionPolicy::Ask);
    let mut inside = tool_use("s", "Bash", &json!({"command": "ls"}));
    inside["parent_tool_use_id"] = json!("agent");
    let lines = [
        tool_use("agent", "Agent", &json!({})),
        request("r", "s", "Bash", &json!({"command": "ls"})),
        inside.clone(),
        tool_result("s", Some("agent")),
        inside,
        tool_result("s", Some("agent")),
        tool_result("agent", None),
    ];
    assert_eq!(
        at_work(&mut adapter, &lines),
        [
            "use agent Agent {}",
            r#"use s Bash {"command":"ls"}"#,
            r#"ask s "Allow Bash: `ls`?" ["Allow", "Deny"] multi=false"#,
            r#"result s "ok" error=false"#,
            r#"result agent "ok" error=false"#,
        ]
    );
}

#[test]
fn an_answer_to_what_was_withdrawn_or_has_come_back_is_not_told() {
    let input = json!({"command": "ls"});
    let withdrawn = json!({"type": "control_cancel_request", "request_id": "r"});
    for end in [withdrawn, tool_result("t", None)] {
        let mut adapter = new(PermissionPolicy::Ask);
        at_work(&mut adapter, &[tool_use("t", "Bash", &input), request("r", "t", "Bash", &input), end]);
        let command =
            AgentCommand::Answer { id: "t".to_owned(), questions: vec![question("?")], answer: said("Allow") };
        assert!(encoded(&mut adapter, "ask", &command).is_empty());
    }
}

#[test]
fn what_was_settled_is_told_again_until_the_tool_is_back() {
    let mut adapter = new(PermissionPolicy::Allow);
    let input = json!({"plan": "x"});
    let lines = [tool_use("t", "ExitPlanMode", &input), request("r", "t", "ExitPlanMode", &input)];
    let told = at_work(&mut adapter, &lines).remove(1);
    let again = |adapter: &ClaudeAdapter| {
        let known = ClaudeAdapter::new(setup(PermissionPolicy::Allow), &adapter.state(), Process::Known);
        let mut tells = Vec::new();
        known.tell_again(&mut tells);
        tells.iter().map(|tell| format!("tell {tell:?}")).collect::<Vec<_>>()
    };
    assert_eq!(again(&adapter), [told]);
    heard(&mut adapter, &tool_result("t", None));
    assert!(again(&adapter).is_empty());
}

#[test]
fn a_request_that_is_not_known_is_refused_so_that_nobody_waits() {
    let mut adapter = new(PermissionPolicy::Allow);
    let line = json!({"type": "control_request", "request_id": "r", "request": {"subtype": "novel"}});
    let shown = at_work(&mut adapter, &[line]);
    assert!(shown.len() == 1 && shown[0].contains(r#"\"subtype\":\"error\""#), "{shown:?}");
}

#[test]
fn the_short_commands_are_lines_of_their_own() {
    let mut adapter = new(PermissionPolicy::Allow);
    let interrupt = line_of(&encoded(&mut adapter, "task/interrupt", &AgentCommand::Interrupt));
    let expected =
        json!({"type": "control_request", "request_id": "task/interrupt", "request": {"subtype": "interrupt"}});
    assert_eq!(interrupt, expected);
    let go_on = line_of(&encoded(&mut adapter, "c", &AgentCommand::Continue));
    assert_eq!(go_on["message"]["content"][0]["text"], "continue");
}

#[test]
fn a_request_cannot_make_its_own_answer_large() {
    let mut adapter = new(PermissionPolicy::Allow);
    let large = json!({"command": "x".repeat(1 << 20)});
    let told = at_work(&mut adapter, &[request("r", "t", "Bash", &large)]);
    let [told] = &told[..] else { panic!("{} events", told.len()) };
    assert!(told.contains("allow") && told.len() < 1_000, "{} bytes are told", told.len());
    for id in ["x".repeat(1 << 20), String::new(), "a b".to_owned()] {
        assert_eq!(heard(&mut adapter, &request(&id, "t", "Bash", &json!({}))), ["refused"]);
    }
}
