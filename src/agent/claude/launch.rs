//! How Claude Code is started: its arguments, and which conversation it takes up.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::state::{Launched, State};
use crate::agent::{ASK_TOOL, Setup, Tell, Turn};
use crate::config::PermissionPolicy;
use crate::domain::SessionId;

/// What every process is started with. `--permission-prompt-tool stdio` is what lets it ask the user.
const ALWAYS: &[&str] = &[
    "-p",
    "--input-format",
    "stream-json",
    "--output-format",
    "stream-json",
    "--verbose",
    "--include-partial-messages",
    "--permission-prompt-tool",
    "stdio",
];

/// How much of a directory's name it keeps when it names a conversation's directory by it.
const PROJECT_NAME: usize = 200;

/// The arguments that a turn wants, but for the conversation.
pub(super) struct Arguments(Vec<String>);

impl Arguments {
    pub(super) fn of(turn: &Turn, permissions: PermissionPolicy) -> Self {
        let mode = match permissions {
            PermissionPolicy::Allow => "bypassPermissions",
            PermissionPolicy::Ask | PermissionPolicy::Deny => "default",
        };
        let mut arguments: Vec<String> = ALWAYS.iter().map(ToString::to_string).collect();
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        add("--permission-mode", mode.to_owned());
        if let Some(turns) = turn.max_turns {
            add("--max-turns", turns.to_string());
        }
        if let Some(model) = &turn.model {
            add("--model", model.clone());
        }
        if let Some(prompt) = &turn.system_prompt {
            add("--append-system-prompt", prompt.clone());
        }
        if let Some(tools) = &turn.allowed_tools {
            let mut tools: Vec<&str> = tools.iter().map(String::as_str).collect();
            if !tools.contains(&ASK_TOOL) {
                tools.push(ASK_TOOL);
            }
            add("--tools", tools.join(","));
        }
        Self(arguments)
    }

    /// Tells them from others; a system prompt may be larger than a state.
    pub(super) fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for argument in &self.0 {
            digest.update(argument.len().to_le_bytes());
            digest.update(argument);
        }
        BASE64_STANDARD.encode(digest.finalize())
    }
}

/// What starts the process for `turn`. Of a process that runs already nothing new is noted.
pub(super) fn tell(setup: &Setup, state: &mut State, turn: &Turn) -> Tell {
    let arguments = Arguments::of(turn, setup.permissions);
    let conversation = &state.conversation;
    if state.process.launched.is_none() {
        let launched = Launched { arguments: arguments.digest(), conversation: conversation.number };
        state.process.launched = Some(launched);
    }
    // The first conversation is there if its file is; of later ones only the state tells.
    let there = if conversation.number == 0 { setup.has_memory } else { conversation.kept };
    let flag = if there { "--resume" } else { "--session-id" };
    let name = conversation_name(setup.session_id, conversation.number);
    let Arguments(mut arguments) = arguments;
    arguments.extend([flag.to_owned(), name.to_string()]);
    Tell::Launch(arguments)
}

/// The name of a session's conversation: the session's own, for the first.
fn conversation_name(session: SessionId, number: u32) -> Uuid {
    Uuid::from_u128(session.uuid().as_u128() ^ u128::from(number))
}

/// Where the first conversation of `session` is kept, below its home, which is the directory `cwd` that it works
/// in: `.claude/projects/<cwd, each character but letters and digits a dash>/<uuid>.jsonl`. A long `cwd` is cut,
/// and told from others by a hash.
pub fn memory_file(session: SessionId, cwd: &str) -> String {
    let units: Vec<u16> = cwd.encode_utf16().collect();
    let plain = |unit: &u16| u8::try_from(*unit).ok().filter(u8::is_ascii_alphanumeric).map_or('-', char::from);
    let mut project: String = units.iter().map(plain).collect();
    if project.len() > PROJECT_NAME {
        project.truncate(PROJECT_NAME);
        project.push('-');
        project.push_str(&hash(&units));
    }
    format!(".claude/projects/{project}/{}.jsonl", session.uuid())
}

/// JavaScript's usual hash of a text, in digits and letters.
fn hash(units: &[u16]) -> String {
    let hash = units.iter().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(*unit)));
    let (mut left, mut digits) = (hash.unsigned_abs(), Vec::new());
    loop {
        digits.push(char::from_digit(left % 36, 36).unwrap_or('0'));
        left /= 36;
        if left == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}
