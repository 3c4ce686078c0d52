//! How the agent is started, and which conversation it takes up.

use serde_json::{Value, json};

use super::super::{ClaudeAdapter, memory_file};
use super::{at_work, encoded, heard, setup, turn};
use crate::agent::{Adapter as _, AgentCommand, Process, Setup, Tell, Turn};
use crate::config::PermissionPolicy;
use crate::domain::SessionId;

const UUID: &str = "0192f0c1-d2e3-7f40-a5b6-c7d8e9f00112";

fn launched(adapter: &mut ClaudeAdapter, turn: &Turn) -> Vec<String> {
    let tells = encoded(adapter, "t", &AgentCommand::Turn(Box::new(turn.clone())));
    let [Tell::Launch(arguments), Tell::Write { .. }] = &tells[..] else { panic!("not a launch: {tells:?}") };
    arguments.clone()
}

fn next(adapter: &ClaudeAdapter, setup: Setup) -> ClaudeAdapter {
    ClaudeAdapter::new(setup, &adapter.state(), Process::New)
}

#[test]
fn a_turn_becomes_arguments() {
    let mut adapter = ClaudeAdapter::new(setup(PermissionPolicy::Allow), &Value::Null, Process::New);
    let turn = Turn {
        system_prompt: Some("-Be kind.\nAlways.".to_owned()),
        allowed_tools: Some(vec!["Bash".to_owned(), "Read".to_owned()]),
        max_turns: Some(7),
        model: Some("m".to_owned()),
        ..turn("go")
    };
    let common = "-p --input-format stream-json --output-format stream-json --verbose --include-partial-messages \
                  --permission-prompt-tool stdio --permission-mode bypassPermissions --max-turns 7 --model m \
                  --append-system-prompt";
    let mut expected: Vec<&str> = common.split_whitespace().collect();
    expected.extend(["-Be kind.\nAlways.", "--tools", "Bash,Read,AskUserQuestion", "--session-id", UUID]);
    assert_eq!(launched(&mut adapter, &turn), expected);
}

#[test]
fn who_may_decide_about_permissions_is_asked_for_them() {
    for permissions in [PermissionPolicy::Ask, PermissionPolicy::Deny] {
        let mut adapter = ClaudeAdapter::new(setup(permissions), &Value::Null, Process::New);
        let arguments = launched(&mut adapter, &Turn { allowed_tools: Some(Vec::new()), ..turn("go") });
        assert!(arguments.windows(2).any(|pair| pair == ["--permission-mode", "default"]), "{arguments:?}");
        assert!(arguments.windows(2).any(|pair| pair == ["--tools", "AskUserQuestion"]), "{arguments:?}");
    }
}

#[test]
fn a_process_is_launched_once_and_fits_turns_with_the_same_settings() {
    let mut adapter = ClaudeAdapter::new(setup(PermissionPolicy::Allow), &Value::Null, Process::New);
    let (first, other) = (turn("one"), Turn { max_turns: Some(1), ..turn("one") });
    assert!(adapter.fits(&first) && adapter.fits(&other) && !adapter.saves_at_end());
    launched(&mut adapter, &first);
    assert!(adapter.fits(&turn("two")) && !adapter.fits(&other) && adapter.saves_at_end());
    let tells = encoded(&mut adapter, "t2", &AgentCommand::Turn(Box::new(turn("two"))));
    assert!(matches!(&tells[..], [Tell::Write { id, .. }] if id == "t2"), "{tells:?}");

    let mut known = ClaudeAdapter::new(setup(PermissionPolicy::Allow), &adapter.state(), Process::Known);
    assert!(known.fits(&turn("three")) && !known.fits(&other));
    launched(&mut known, &turn("three")); // Again: the launch may not have been heard.
    assert!(next(&known, setup(PermissionPolicy::Allow)).fits(&other));
}

#[test]
fn a_conversation_that_is_there_is_resumed() {
    let there = Setup { has_memory: true, ..setup(PermissionPolicy::Allow) };
    let mut adapter = ClaudeAdapter::new(there, &Value::Null, Process::New);
    assert!(launched(&mut adapter, &turn("go")).ends_with(&["--resume".to_owned(), UUID.to_owned()]));
}

#[test]
fn a_conversation_that_can_not_be_resumed_is_followed_by_another() {
    let there = Setup { has_memory: true, ..setup(PermissionPolicy::Allow) };
    let mut adapter = ClaudeAdapter::new(there.clone(), &Value::Null, Process::New);
    launched(&mut adapter, &turn("go"));
    let lost = json!({"type": "result", "subtype": "error_during_execution", "is_error": true, "num_turns": 0,
        "errors": ["No conversation found with session ID: x"]});
    let shown = heard(&mut adapter, &lost);
    assert!(shown[0].contains("can't take up the conversation"), "{shown:?}");
    assert!(!adapter.fits(&turn("go")), "that process ends");

    let uuid = |last: &str| format!("{}{last}", &UUID[..UUID.len() - 1]);
    let mut second = next(&adapter, there.clone());
    assert!(launched(&mut second, &turn("go")).ends_with(&["--session-id".to_owned(), uuid("3")]));
    // It dies before its first turn has ended: whether it left a file is not known.
    let mut third = next(&second, there.clone());
    assert!(launched(&mut third, &turn("go")).ends_with(&["--session-id".to_owned(), uuid("0")]));
    let done = json!({"type": "result", "subtype": "success", "result": "x"});
    assert_eq!(at_work(&mut third, &[done]).len(), 2);
    let mut fourth = next(&third, there);
    assert!(launched(&mut fourth, &turn("go")).ends_with(&["--resume".to_owned(), uuid("0")]));
}

#[test]
fn a_conversation_is_in_a_file_named_by_directory_and_session() {
    let session = SessionId::parse(super::SESSION).unwrap();
    let file = |cwd: &str| memory_file(session, cwd);
    assert_eq!(file("/workspace"), format!(".claude/projects/-workspace/{UUID}.jsonl"));
    assert_eq!(file("/a/home.x_1/a b.c"), format!(".claude/projects/-a-home-x-1-a-b-c/{UUID}.jsonl"));
    assert_eq!(file("/ä/𝕏"), format!(".claude/projects/-----/{UUID}.jsonl"));
    // As a process in such a directory named it.
    let parts: Vec<String> = (0..12).map(|part| format!("long_directory_name_{part:02}")).collect();
    let long = format!("/srv/{}", parts.join("/"));
    let name = long.replace(['/', '_'], "-");
    assert_eq!(file(&long), format!(".claude/projects/{}-u0qu2a/{UUID}.jsonl", &name[..200]));
}
