//! How a turn ends: one `result` line, which also says what it cost.

use serde_json::Value;

use super::super::native::read;
use super::state::State;
use crate::agent::{AgentEvent, DecodeError, StopReason};
use crate::domain::Usage;

/// How the process says that it can't take up its conversation. It then ends.
const NO_CONVERSATION: &str = "No conversation found";
/// Whose the turns are that it took by itself.
const WOKEN: &str = "task-notification";

/// Reads the end of a turn. It is never refused for its ornaments, because a lost end would leave the run waiting.
pub(super) fn result(state: &mut State, line: &str, events: &mut Vec<AgentEvent>) -> Result<(), DecodeError> {
    let result: Value = read("result", line)?;
    let State { conversation, process } = state;
    let said = process.said;
    process.end_turn();
    if !process.owes_end || result["origin"]["kind"] == WOKEN {
        return Ok(()); // Nobody's turn. What it cost is in the sum that the next one tells.
    }
    process.owes_end = false;
    let reason = reason(&result);
    if is_lost(&result) {
        conversation.follow();
    } else {
        conversation.kept = true;
    }
    let cost = amount(&result["total_cost_usd"]);
    let spent = cost.map(|total| if total < process.cost_usd { total } else { nanodollars(total - process.cost_usd) });
    process.cost_usd = cost.unwrap_or(process.cost_usd);
    // Commands of its own, such as `/cost`, are answered without a word from the model.
    if reason == StopReason::EndTurn
        && !said
        && let Some(text) = result["result"].as_str().filter(|text| !text.is_empty())
    {
        events.push(AgentEvent::Text(text.to_owned()));
    }
    events.push(AgentEvent::Stopped {
        reason,
        usage: usage(&result["usage"], spent.unwrap_or(0.0)),
        cost_known: spent.is_some(),
        num_turns: u32::try_from(count(&result["num_turns"])).unwrap_or(u32::MAX),
    });
    Ok(())
}

fn reason(result: &Value) -> StopReason {
    let aborted = result["terminal_reason"].as_str().is_some_and(|reason| reason.starts_with("aborted"));
    match result["subtype"].as_str().unwrap_or_default() {
        "error_max_turns" => StopReason::MaxTurns,
        "error_during_execution" if aborted => StopReason::Interrupted,
        _ if is_lost(result) => StopReason::Error(
            "Claude Code can't take up the conversation so far; the next prompt begins a new one".to_owned(),
        ),
        // A model API that failed is a success with an error.
        "success" if result["is_error"] != true => StopReason::EndTurn,
        subtype => StopReason::Error(words(result).unwrap_or_else(|| what_failed(subtype))),
    }
}

fn is_lost(result: &Value) -> bool {
    let first = result["errors"][0].as_str().unwrap_or_default();
    result["subtype"] == "error_during_execution" && first.starts_with(NO_CONVERSATION)
}

/// Its own words for what went wrong.
fn words(result: &Value) -> Option<String> {
    let errors = result["errors"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let errors: Vec<&str> = errors.filter(|error| !error.starts_with("[ede_diagnostic]")).collect();
    let text = result["result"].as_str().map_or_else(|| errors.join("; "), str::to_owned);
    (!text.trim().is_empty()).then_some(text)
}

fn what_failed(subtype: &str) -> String {
    match subtype {
        "error_max_budget_usd" => "Claude Code reached its budget".to_owned(),
        "error_max_structured_output_retries" => "the model gave no output of the form that was asked for".to_owned(),
        "success" | "" => "Claude Code reported an error without a message".to_owned(),
        subtype => format!("Claude Code reported `{}`", subtype.chars().take(64).collect::<String>()),
    }
}

/// Dollars without the noise of their difference.
fn nanodollars(dollars: f64) -> f64 {
    (dollars * 1e9).round() / 1e9
}

/// The tokens of the turn, those from and for the cache among them.
fn usage(usage: &Value, cost_usd: f64) -> Usage {
    let input = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"];
    Usage {
        input_tokens: input.iter().fold(0, |sum: u64, field| sum.saturating_add(count(&usage[*field]))),
        output_tokens: count(&usage["output_tokens"]),
        cost_usd,
    }
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn amount(value: &Value) -> Option<f64> {
    value.as_f64().filter(|amount| amount.is_finite() && *amount >= 0.0)
}
