//! Lines that are damaged on the way leave the adapter standing.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::ClaudeAdapter;
use super::player::{Played, Step, play, step};
use super::{heard, new};
use crate::agent::transcript::traces;
use crate::agent::{Adapter as _, Process};
use crate::config::PermissionPolicy;

/// The most that a state may be.
const STATE_BYTES: usize = 48 << 10;

static TRACES: LazyLock<Vec<Played>> = LazyLock::new(|| traces("claude-code").iter().map(|path| play(path)).collect());

/// The transcript that is played after a damaged one.
fn clean() -> &'static Played {
    let name = "l-queued-user-message";
    let at = traces("claude-code").iter().position(|path| path.file_stem().unwrap() == name).unwrap();
    &TRACES[at]
}

#[derive(Clone, Debug)]
enum Damage {
    Cut(prop::sample::Index),
    Double,
    Drop,
    Garble(prop::sample::Index, char),
    SwapWith(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<prop::sample::Index>().prop_map(Damage::Cut),
        Just(Damage::Double),
        Just(Damage::Drop),
        (any::<prop::sample::Index>(), any::<char>()).prop_map(|(at, with)| Damage::Garble(at, with)),
        any::<prop::sample::Index>().prop_map(Damage::SwapWith),
    ]
}

fn damaged(steps: &[Step], at: usize, damage: &Damage) -> Vec<Step> {
    let mut steps = steps.to_vec();
    let character = |line: &str, index: &prop::sample::Index| {
        let characters = line.char_indices().collect::<Vec<_>>();
        *index.get(&characters)
    };
    match (damage, steps[at].clone()) {
        // Of one that was cut before its first character nothing is left to cut or to garble.
        (Damage::Cut(_) | Damage::Garble(..), Step::Line(line)) if line.is_empty() => (),
        (Damage::Cut(index), Step::Line(line)) => {
            steps[at] = Step::Line(line[..character(&line, index).0].to_owned());
        }
        (Damage::Garble(index, with), Step::Line(line)) => {
            let (start, was) = character(&line, index);
            steps[at] = Step::Line(format!("{}{with}{}", &line[..start], &line[start + was.len_utf8()..]));
        }
        (Damage::Double, line @ Step::Line(_)) => steps.insert(at, line),
        (Damage::Drop, Step::Line(_)) => drop(steps.remove(at)),
        (Damage::SwapWith(index), Step::Line(_)) => {
            let other = index.index(steps.len());
            steps.swap(at, other);
        }
        (_, Step::Command(..)) => (),
    }
    steps
}

fn count(shown: &[String], what: &str) -> usize {
    shown.iter().filter(|event| event.starts_with(what)).count()
}

/// Plays steps; says what they came to. Never more ends than turns.
fn survive(adapter: &mut ClaudeAdapter, steps: &[Step]) -> Vec<String> {
    let (mut all, mut turns) = (Vec::new(), 0);
    for now in steps {
        let shown = step(adapter, now);
        if matches!(now, Step::Command(..)) {
            turns += shown.iter().filter(|tell| tell.contains(r#""type":"user""#)).count();
        }
        all.extend(shown);
        assert!(count(&all, "stopped") <= turns, "more ends than turns: {all:#?}");
        let state = adapter.state().to_string();
        assert!(state.len() <= STATE_BYTES, "a state of {} bytes", state.len());
    }
    all
}

/// Cost is told as a sum over the process, and so depends on what came before.
fn without_cost(shown: &[String]) -> Vec<String> {
    let cut = |event: &String| {
        let parts: Vec<&str> = event.split('/').collect();
        if event.starts_with("stopped") { parts[..2].join("/") } else { event.clone() }
    };
    shown.iter().filter(|event| !event.starts_with("> launch")).map(cut).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn damaged_lines_never_end_a_turn_twice_and_later_lines_are_read(
        trace in any::<prop::sample::Index>(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), damage()), 1..6),
    ) {
        let played = trace.get(&TRACES);
        let mut steps = played.steps.clone();
        for (at, damage) in &damages {
            if !steps.is_empty() {
                steps = damaged(&steps, at.index(steps.len()), damage);
            }
        }
        let mut adapter = ClaudeAdapter::new(played.setup.clone(), &Value::Null, Process::New);
        survive(&mut adapter, &steps);

        let expected: Vec<String> = clean().shown.iter().flatten().cloned().collect();
        let shown = survive(&mut adapter, &clean().steps);
        prop_assert_eq!(without_cost(&shown), without_cost(&expected));
    }

    #[test]
    fn a_line_that_is_cut_is_refused_and_leaves_no_mark(trace in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
        let played = trace.get(&TRACES);
        let lines = played.steps.iter().filter_map(|step| match step {
            Step::Line(line) => Some(line),
            Step::Command(..) => None,
        });
        let mut adapter = new(PermissionPolicy::Ask);
        for line in lines {
            let before = adapter.state();
            let cut = &line[..line.floor_char_boundary(1 + at.index(line.len() - 1))];
            let mut events = Vec::new();
            prop_assert!(adapter.decode(cut, &mut events).is_err());
            prop_assert!(events.is_empty());
            prop_assert_eq!(adapter.state(), before);
            adapter.decode(line, &mut events).unwrap();
        }
    }
}

#[test]
fn a_state_is_small_whatever_the_agent_says() {
    let mut adapter = new(PermissionPolicy::Ask);
    super::at_work(&mut adapter, &[]);
    for round in 0..40 {
        for size in [1, 100, 127, 5_000] {
            let id = format!("{round}-{}", "x\"\u{1}é\\".repeat(size));
            let plain = format!("{round}-{}", "x".repeat(size.min(124)));
            for id in [id, plain] {
                heard(
                    &mut adapter,
                    &json!({"type": "stream_event", "event": {"type": "message_start", "message": {"id": id}}}),
                );
                let block = json!({"type": "tool_use", "id": id, "name": id, "input": {"a": id}});
                heard(&mut adapter, &json!({"type": "assistant", "message": {"id": id, "content": [block]}}));
                let input = json!({"command": "\"".repeat(size)});
                for subtype in ["can_use_tool", &id] {
                    let request = json!({"subtype": subtype, "tool_name": "Bash", "tool_use_id": id, "input": input});
                    let request_id = format!("{subtype}{id}");
                    heard(&mut adapter, &json!({"type": "control_request", "request_id": id, "request": request}));
                    heard(
                        &mut adapter,
                        &json!({"type": "control_request", "request_id": request_id, "request": request}),
                    );
                }
            }
        }
        let state = adapter.state().to_string();
        assert!(state.len() <= STATE_BYTES, "a state of {} bytes", state.len());
    }
}
