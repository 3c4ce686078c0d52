//! Lines that were cut, doubled, garbled or lost on the way leave the adapter standing.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::super::*;
use super::play::{Player, play};
use super::snapshot;
use super::*;

/// What happens to a line on its way.
#[derive(Clone, Debug)]
enum Damage {
    Cut(usize),
    Twice,
    Garbled(usize, u8),
    Lost,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<usize>().prop_map(Damage::Cut),
        Just(Damage::Twice),
        (any::<usize>(), 0x20..0x7f_u8).prop_map(|(at, byte)| Damage::Garbled(at, byte)),
        Just(Damage::Lost),
    ]
}

fn damaged(line: &str, damage: &Damage) -> Vec<String> {
    match damage {
        Damage::Cut(at) => vec![line[..line.floor_char_boundary(at % line.len())].to_owned()],
        Damage::Twice => vec![line.to_owned(), line.to_owned()],
        Damage::Garbled(at, byte) => {
            let mut bytes = line.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] = *byte;
            vec![String::from_utf8_lossy(&bytes).into_owned()]
        }
        Damage::Lost => Vec::new(),
    }
}

/// The lines of the agent in a recording as this adapter would hear them, each with the prompt that is at work then.
type Heard = Vec<(String, Option<(String, AgentCommand)>)>;

static HEARD: LazyLock<Vec<Heard>> = LazyLock::new(|| {
    let recordings = snapshot::recordings("acp-").into_iter();
    let recordings = recordings.filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
    recordings
        .map(|recording| {
            let mut heard = Vec::new();
            play(&recording, |player: &mut Player, line: &str| {
                heard.push((line.to_owned(), player.commands.first().cloned()));
                player.hear(line);
            });
            heard
        })
        .collect()
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_line_costs_no_more_than_itself(
        which in any::<prop::sample::Index>(),
        harms in prop::collection::vec((any::<prop::sample::Index>(), damage()), 1..6),
    ) {
        let heard = which.get(&HEARD);
        let mut adapter = adapter(PermissionPolicy::Allow, &Value::Null, Process::New);
        let (mut given, mut stopped) = (Vec::new(), 0);
        for (index, (line, command)) in heard.iter().enumerate() {
            if let Some((id, command)) = command
                && !given.contains(id)
            {
                given.push(id.clone());
                adapter.encode(id, command, &mut Vec::new());
            }
            let harm = harms.iter().find(|(at, _)| at.index(heard.len()) == index);
            let arrived = harm.map_or_else(|| vec![line.clone()], |(_, damage)| damaged(line, damage));
            for line in arrived {
                let mut events = Vec::new();
                let _ = adapter.decode(&line, &mut events);
                stopped += events.iter().filter(|event| matches!(event, AgentEvent::Stopped { .. })).count();
            }
            prop_assert!(stopped <= given.len(), "a turn stops once");
            prop_assert!(adapter.state().to_string().len() <= 48 << 10);
        }
        // Whatever happened, the next turn of a new process comes to its end.
        let mut next = super::adapter(PermissionPolicy::Allow, &adapter.state(), Process::New);
        let mut shown = Vec::new();
        let mut tells = Vec::new();
        next.encode("last", &AgentCommand::Turn(Box::new(turn("go"))), &mut tells);
        for _ in 0..8 {
            let Some(Tell::Write { id, .. }) = tells.pop() else { break };
            let mut events = Vec::new();
            let answer = json!({"jsonrpc": "2.0", "id": id, "result": {"sessionId": "s", "stopReason": "end_turn"}});
            next.decode(&answer.to_string(), &mut events).unwrap();
            for event in events {
                match event {
                    AgentEvent::Tell(tell) => tells.push(tell),
                    event => shown.push(show(&event)),
                }
            }
        }
        prop_assert_eq!(shown, vec!["stopped EndTurn 0/0/0.000000 known=false turns=1".to_owned()]);
    }

    #[test]
    fn any_text_is_survived(lines in prop::collection::vec(".*", 0..8)) {
        let mut adapter = adapter(PermissionPolicy::Ask, &Value::Null, Process::New);
        adapter.encode("task", &AgentCommand::Turn(Box::new(turn("go"))), &mut Vec::new());
        for line in lines {
            let _ = adapter.decode(&line, &mut Vec::new());
        }
    }
}
