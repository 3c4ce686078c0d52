//! The gateway restarts in the middle of a recording, after every single line of it.

use super::super::*;
use super::play::{self, Player, play};
use super::{adapter, snapshot};

/// Another adapter, with what the one before it committed, and the commands of the task at work. Whatever it tells
/// has been told before, in the same words.
fn restart(player: &mut Player, recording: &std::path::Path, state: &Value) {
    let size = state.to_string().len();
    assert!(size <= 48 << 10, "{size} bytes of state");
    let state: Value = serde_json::from_str(&state.to_string()).expect("a state is JSON");
    player.adapter = adapter(play::policy(recording), &state, Process::Known);
    let mut tells = Vec::new();
    player.adapter.tell_again(&mut tells);
    for (id, command) in &player.commands {
        player.adapter.encode(id, command, &mut tells);
    }
    for tell in tells {
        let Tell::Write { id, text } = tell else { panic!("ACP agents start with their box") };
        assert_eq!(player.told.get(&id), Some(&text), "told again as `{id}`");
    }
}

fn recordings() -> Vec<std::path::PathBuf> {
    let is_recording = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "jsonl");
    snapshot::recordings("acp-").into_iter().filter(is_recording).collect()
}

#[test]
fn a_restart_after_any_line_changes_nothing() {
    for recording in recordings() {
        let expected = play(&recording, Player::hear).shown;
        let restarted = play(&recording, |player, line| {
            player.hear(line);
            let state = player.adapter.state();
            restart(player, &recording, &state);
        });
        assert_eq!(restarted.shown, expected, "{}", recording.display());
    }
}

/// A state is committed with events only: what came after the last commit is heard again.
#[test]
fn lines_that_are_heard_again_after_a_restart_come_to_the_same() {
    for recording in recordings() {
        let expected = play(&recording, Player::hear).shown;
        let (mut committed, mut since): (Option<Value>, Vec<String>) = (None, Vec::new());
        let mut given = 0;
        let restarted = play(&recording, |player, line| {
            if player.given != given || committed.is_none() {
                // What is asked of an agent is committed too, before it is told.
                (committed, given) = (Some(player.adapter.state()), player.given);
                since.clear();
            }
            let before = player.shown.len();
            player.hear(line);
            since.push(line.to_owned());
            let state = committed.clone().expect("a commit");
            restart(player, &recording, &state);
            for line in &since {
                // What it tells again, it told before.
                let mut events = Vec::new();
                let _ = player.adapter.decode(line, &mut events);
                for event in events {
                    let AgentEvent::Tell(Tell::Write { id, text }) = event else { continue };
                    assert_eq!(player.told.get(&id), Some(&text), "told again as `{id}`");
                }
            }
            if player.shown[before..].iter().any(|event| !event.starts_with("tell ")) {
                committed = Some(player.adapter.state());
                since.clear();
            }
        });
        assert_eq!(restarted.shown, expected, "{}", recording.display());
    }
}
