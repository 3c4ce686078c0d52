//! The agent: this program again. Of the prompt `WORDS APART` it says that many words, that many microseconds
//! apart. A word tells when it was due and when it was said.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// What makes this program the agent.
pub(crate) const ARGUMENT: &str = "be-the-agent";

/// Microseconds, by the only clock that two processes share without more ado.
#[allow(clippy::disallowed_methods, reason = "a benchmark measures the real time")]
pub(crate) fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

/// When the words of a text were due, and were said.
pub(crate) fn words(text: &str) -> impl Iterator<Item = (u64, u64)> {
    text.split_whitespace().map(|word| {
        let (due, said) = word.split_once('/').unwrap();
        (due.parse().unwrap(), said.parse().unwrap())
    })
}

/// Heeds commands until there are no more.
pub(crate) fn run() {
    for line in std::io::stdin().lines() {
        let command: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if command["type"] != "turn" {
            continue;
        }
        let (words, apart) = command["prompt"].as_str().unwrap().split_once(' ').unwrap();
        speak(words.parse().unwrap(), apart.parse().unwrap());
        tell(&json!({"type": "done", "stop_reason": "end_turn"}));
    }
}

/// Never late because of what was late before: what was due meanwhile is said at once, and says so.
fn speak(words: u64, apart: u64) {
    // Agents know nothing of each other: neither do their moments.
    let first = now() + rand::random_range(0..apart);
    for word in 0..words {
        let due = first + word * apart;
        std::thread::sleep(Duration::from_micros(due.saturating_sub(now())));
        tell(&json!({"type": "text", "text": format!("{due}/{} ", now())}));
    }
}

fn tell(line: &Value) {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes()).unwrap();
    stdout.flush().unwrap();
}
