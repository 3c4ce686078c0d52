//! The gateway dies in the middle of a transcript; the next one goes on.

use serde_json::Value;

use super::super::ClaudeAdapter;
use super::player::{Played, Step, play, show_tell, step};
use crate::agent::transcript::traces;
use crate::agent::{Adapter as _, AgentCommand, Process, Setup};

/// What the adapter knows before each step, and after the last.
fn states(played: &Played) -> Vec<Value> {
    let mut adapter = ClaudeAdapter::new(played.setup.clone(), &Value::Null, Process::New);
    let mut states = vec![adapter.state()];
    for now in &played.steps {
        step(&mut adapter, now);
        states.push(adapter.state());
    }
    states
}

/// The commands of the task at work at step `at`.
fn commands(played: &Played, at: usize) -> Vec<Step> {
    let mut commands = Vec::new();
    for (now, shown) in played.steps[..at].iter().zip(&played.shown) {
        match now {
            Step::Command(_, AgentCommand::Interrupt) => (), // Not given again.
            Step::Command(..) => commands.push(now.clone()),
            Step::Line(_) => {
                if shown.iter().any(|event| event.starts_with("stopped") && !event.contains("MaxTurns")) {
                    commands.clear();
                }
            }
        }
    }
    commands
}

/// Goes on at step `at` with what was known at step `known`: the same tells under the same ids, the same events.
fn go_on(played: &Played, states: &[Value], at: usize, known: usize) -> Result<(), String> {
    // Meanwhile the agent may have begun its file.
    let setup = Setup { has_memory: true, ..played.setup.clone() };
    // Through text, as it is committed.
    let state = serde_json::from_str(&states[known].to_string()).unwrap();
    let mut adapter = ClaudeAdapter::new(setup, &state, Process::Known);
    let mut again = Vec::new();
    adapter.tell_again(&mut again);
    let mut again: Vec<String> = again.iter().map(show_tell).collect();
    again.extend(commands(played, at).iter().flat_map(|command| step(&mut adapter, command)));
    let told: Vec<&String> = played.shown[..at].iter().flatten().collect();
    // A launch is heeded once, whatever it says.
    if let Some(new) = again.iter().find(|tell| !is_launch(tell) && !told.contains(tell)) {
        return Err(format!("told only after the restart: {new}"));
    }
    for ((now, expected), state) in played.steps.iter().zip(&played.shown).zip(&states[1..]).skip(at) {
        let shown = step(&mut adapter, now);
        let (shown, expected) = (without_launch(&shown), without_launch(expected));
        if shown != expected {
            return Err(format!("{shown:?} and not {expected:?}"));
        }
        if adapter.state() == *state {
            break; // From here on it is the same adapter.
        }
    }
    Ok(())
}

fn is_launch(shown: &str) -> bool {
    shown.starts_with("> launch")
}

fn without_launch(shown: &[String]) -> Vec<&String> {
    shown.iter().filter(|shown| !is_launch(shown)).collect()
}

#[test]
fn whoever_goes_on_in_the_middle_of_a_transcript_makes_the_same_of_the_rest() {
    for path in traces("claude-code") {
        let played = play(&path);
        let states = states(&played);
        for at in 0..=played.steps.len() {
            // The last command may have changed what is known, and that not have been committed.
            let after_command = at > 0 && matches!(played.steps[at - 1], Step::Command(..));
            for known in at - usize::from(after_command)..=at {
                if let Err(wrong) = go_on(&played, &states, at, known) {
                    panic!("{}, gone on at {at} knowing {known}: {wrong}", path.display());
                }
            }
        }
    }
}
