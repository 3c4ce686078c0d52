//! What a task may use and what its agent is told, from what was asked for and what its profile grants.

use std::time::Duration;

use super::briefing;
use crate::agent::Turn;
use crate::config::{LimitsConfig, OnBudget, ProfileConfig};
use crate::domain::{SessionId, TaskId};
use crate::protocol::client::TaskOptions;

/// What a task may use, from the task and its profile.
#[derive(Clone, Debug)]
pub(super) struct Allowance {
    pub(super) timeout: Duration,
    pub(super) ask_timeout: Duration,
    pub(super) max_budget_usd: Option<f64>,
    pub(super) max_continuations: u32,
    pub(super) on_budget: OnBudget,
}

impl Allowance {
    pub(super) fn new(options: &TaskOptions, profile: &ProfileConfig, limits: &LimitsConfig) -> Self {
        let profile_timeout = time(profile, limits);
        let profile_budget = (profile.max_budget_usd > 0.0).then_some(profile.max_budget_usd);
        Self {
            // A task may ask for less than its profile grants, never for more.
            timeout: options.timeout_seconds.map_or(profile_timeout, Duration::from_secs).min(profile_timeout),
            ask_timeout: Duration::from_secs(limits.ask_timeout_seconds),
            max_budget_usd: match (options.max_budget_usd, profile_budget) {
                (Some(task), Some(profile)) => Some(task.min(profile)),
                (task, profile) => task.or(profile),
            },
            max_continuations: profile.max_continuations,
            on_budget: profile.on_budget,
        }
    }
}

/// How long a task of a profile may work.
fn time(profile: &ProfileConfig, limits: &LimitsConfig) -> Duration {
    Duration::from_secs(if profile.timeout_seconds == 0 { limits.task_seconds } else { profile.timeout_seconds })
}

/// The prompt and its settings as an agent that works in the directory `cwd` gets them.
pub(super) fn turn(
    session: SessionId,
    task: TaskId,
    prompt: String,
    options: &TaskOptions,
    profile: &ProfileConfig,
    limits: &LimitsConfig,
    cwd: &str,
) -> Turn {
    let filled = |text: &String| (!text.is_empty()).then(|| text.clone());
    let allowed_tools = match (&options.allowed_tools, profile.allowed_tools.is_empty()) {
        (Some(asked), true) => Some(asked.clone()),
        (Some(asked), false) => {
            Some(asked.iter().filter(|tool| profile.allowed_tools.contains(tool)).cloned().collect())
        }
        (None, false) => Some(profile.allowed_tools.clone()),
        (None, true) => None,
    };
    Turn {
        session_id: session,
        task_id: task,
        prompt,
        system_prompt: briefing::system_prompt(profile, cwd, time(profile, limits)),
        allowed_tools,
        max_turns: match (options.max_turns, (profile.max_turns > 0).then_some(profile.max_turns)) {
            (Some(task), Some(profile)) => Some(task.min(profile)),
            (task, profile) => task.or(profile),
        },
        model: options.model.clone().or_else(|| filled(&profile.model)),
    }
}
