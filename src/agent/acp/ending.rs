//! The end of a turn: why, what it used, what went wrong.

use serde_json::Value;

use super::AcpAdapter;
use super::wire::{self, Prompted, RpcError};
use crate::agent::{AgentEvent, StopReason};
use crate::domain::Usage;

/// How claude-agent-acp says that it reached its limit: as an error.
const REACHED_LIMIT: &str = "Reached maximum number of turns";
/// What is put before every error by agents that are made with the protocol's kit.
const INTERNAL: &str = "Internal error: ";

impl AcpAdapter {
    /// The prompt was answered: the agent has stopped.
    pub(super) fn prompted(&mut self, outcome: Result<&str, RpcError>, events: &mut Vec<AgentEvent>) {
        match outcome {
            Ok(result) => {
                let prompted: Prompted = wire::read(result);
                let reason = match prompted.stop_reason.as_deref() {
                    Some("max_turn_requests") => StopReason::MaxTurns,
                    Some("refusal") => StopReason::Error("the agent refuses to go on with this".to_owned()),
                    // codex-acp stops so when it was refused a permission.
                    Some("cancelled") if !self.state.turn.refused => StopReason::Interrupted,
                    _ => StopReason::EndTurn,
                };
                self.stop(reason, used(&prompted), events);
            }
            Err(error) if error.message.as_deref().is_some_and(|message| message.contains(REACHED_LIMIT)) => {
                self.stop(StopReason::MaxTurns, None, events);
            }
            Err(error) => self.stop(StopReason::Error(words(&error)), None, events),
        }
    }

    /// The one end of the prompt that is awaited, if one is. `used`: tokens in and out, where the answer says.
    pub(super) fn stop(&mut self, reason: StopReason, used: Option<(u64, u64)>, events: &mut Vec<AgentEvent>) {
        let Some(prompt) = self.state.turn.prompt.take() else { return };
        let unanswered = self.state.asked.iter().filter(|asked| asked.answered_by.is_none());
        let waited: Vec<String> = unanswered.map(|asked| asked.tool.clone()).collect();
        self.end_tools(&waited, events);
        self.state.asked.clear();
        self.state.replies.clear();
        let reason = if self.state.turn.interrupted { StopReason::Interrupted } else { reason };
        let failed = matches!(reason, StopReason::Error(_) | StopReason::Interrupted);
        if failed && self.state.introduced_by.as_ref() == Some(&prompt) {
            self.state.introduced_by = None; // gemini-cli forgets the prompts that it did not come to the end of.
        }
        let turn = &self.state.turn;
        let (input_tokens, output_tokens) = used.unwrap_or((turn.input_tokens, turn.output_tokens));
        let cost_usd = if turn.cost_told { (self.state.cost - turn.cost_before).max(0.0) } else { 0.0 };
        events.push(AgentEvent::Stopped {
            reason,
            usage: Usage { input_tokens, output_tokens, cost_usd },
            cost_known: turn.cost_told,
            num_turns: turn.model_calls.max(1),
        });
    }
}

/// What a whole prompt used, where its answer says: most agents in `usage`, gemini-cli beside it.
fn used(prompted: &Prompted) -> Option<(u64, u64)> {
    tokens(&prompted.usage).or_else(|| {
        let count = &prompted.meta["quota"]["token_count"];
        Some((count["input_tokens"].as_u64()?, count["output_tokens"].as_u64().unwrap_or(0)))
    })
}

/// Tokens read and written. What the total counts beside `inputTokens` and `outputTokens` came from a cache, or was
/// thought; some agents count both within.
pub(super) fn tokens(usage: &Value) -> Option<(u64, u64)> {
    let count = |name: &str| usage[name].as_u64();
    let (input, output) = (count("inputTokens")?, count("outputTokens").unwrap_or(0));
    let beside = count("totalTokens").unwrap_or(0).saturating_sub(input.saturating_add(output));
    let thought = count("thoughtTokens").unwrap_or(0).min(beside);
    Some((input.saturating_add(beside - thought), output.saturating_add(thought)))
}

/// What went wrong, in the provider's words as far as the agent passes them on; without what looks like a secret.
pub(super) fn words(error: &RpcError) -> String {
    let message = error.message.as_deref().unwrap_or_default();
    let message = plain(message.strip_prefix(INTERNAL).unwrap_or(message));
    let detail = ["message", "details", "error"].iter().find_map(|name| error.data[*name].as_str()).map(plain);
    let kind = ["errorName", "errorKind"].iter().find_map(|name| error.data[*name].as_str());
    let kind = kind.filter(|kind| *kind != "unknown").map(|kind| format!(" ({kind})")).unwrap_or_default();
    let said = match detail {
        Some(detail)
            if message.is_empty() || message.contains(&detail) || message == INTERNAL.trim_end_matches(": ") =>
        {
            detail
        }
        Some(detail) => format!("{message}: {detail}"),
        None if message.is_empty() => "the agent reported an error without a message".to_owned(),
        None => message,
    };
    without_secrets(&format!("{said}{kind}"))
}

/// Some pass on the provider's whole answer, as JSON: the words are in it.
fn plain(text: &str) -> String {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    let message = json["error"]["message"].as_str().or_else(|| json["message"].as_str());
    message.unwrap_or(text).trim().to_owned()
}

/// Providers quote keys that they don't know, and addresses with keys in them.
fn without_secrets(text: &str) -> String {
    let mut after_bearer = false;
    text.split_inclusive(char::is_whitespace)
        .map(|word| {
            let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            let follows = std::mem::replace(&mut after_bearer, core.eq_ignore_ascii_case("bearer"));
            let key = ["sk-", "sk_", "rk-", "pk-", "AIza", "gsk_", "ghp_", "xai-", "eyJ"]
                .iter()
                .any(|start| core.starts_with(start));
            if !core.is_empty() && (follows || key && core.len() > 8) {
                return word.replace(core, "***");
            }
            match word.find('?') {
                Some(query) if word.contains("://") => {
                    format!("{}?***{}", &word[..query], &word[word.trim_end().len()..])
                }
                _ => word.to_owned(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_are_told_in_the_providers_words() {
        for (error, said) in [
            (
                json!({"message": "Internal error: API Error: 400 no", "data": {"errorKind": "unknown"}}),
                "API Error: 400 no",
            ),
            (
                json!({"message": "Internal error: no key", "data": {"errorKind": "authentication_failed"}}),
                "no key (authentication_failed)",
            ),
            (json!({"message": "Internal error", "data": {"details": "400 Mock failure"}}), "400 Mock failure"),
            (json!({"message": "Internal error", "data": {"message": "{\"error\":{\"message\":\"Mock\"}}"}}), "Mock"),
            (json!({"message": "{\"error\":{\"message\":\"invalid x-api-key\",\"code\":401}}"}), "invalid x-api-key"),
            (json!({"message": "Authentication required"}), "Authentication required"),
            (json!({"message": "Bad", "data": {"details": "worse"}}), "Bad: worse"),
            (json!({}), "the agent reported an error without a message"),
            (json!({"message": 7, "data": [1]}), "the agent reported an error without a message"),
        ] {
            assert_eq!(words(&wire::read(&error.to_string())), said);
        }
    }

    #[test]
    fn secrets_are_not_passed_on() {
        for (text, said) in [
            (
                "Incorrect API key provided: sk-proj-abcdef123456. See https://x.y/z",
                "Incorrect API key provided: ***. See https://x.y/z",
            ),
            ("Authorization: Bearer abc.def, refused", "Authorization: Bearer ***, refused"),
            ("failed: https://x.y/v1/m?key=AIzaSecret at once", "failed: https://x.y/v1/m?*** at once"),
            ("is sk-1 a key? no", "is sk-1 a key? no"),
        ] {
            assert_eq!(without_secrets(text), said);
        }
    }

    #[test]
    fn tokens_beside_those_that_are_named_were_read_or_thought() {
        for (usage, counted) in [
            (json!({"inputTokens": 10, "outputTokens": 3, "cachedReadTokens": 5, "totalTokens": 18}), Some((15, 3))),
            (json!({"inputTokens": 10, "outputTokens": 3, "cachedReadTokens": 5, "totalTokens": 13}), Some((10, 3))),
            (json!({"inputTokens": 10, "outputTokens": 3, "thoughtTokens": 2, "totalTokens": 15}), Some((10, 5))),
            (json!({"inputTokens": 10}), Some((10, 0))),
            (json!({"outputTokens": 10}), None),
            (json!(null), None),
        ] {
            assert_eq!(tokens(&usage), counted, "{usage}");
        }
    }
}
