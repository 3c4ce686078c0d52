//! One task at work: what its agent said so far, which deadline comes next, how it ends.
//!
//! Holds no I/O: the worker feeds it and publishes what it returns.

mod budget;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinError;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::allowance::Allowance;
use super::bill::Bill;
use super::invariants::{OpenAsk, TurnShape};
use super::run_state::RunState;
use super::users::RunningSlot;
use super::worker::CancelReply;
use crate::agent::StopReason;
use crate::domain::{AskId, Mode, TaskId, TaskState, Usage, cut_at_character};
use crate::hub::Receipt;
use crate::journal::{Effect, TaskEnd};
use crate::metrics::CountedTask;
use crate::protocol::{Answer, Event};
use crate::store::TaskRecord;

pub(super) use budget::{Budget, Verdict};

/// How long an agent has to acknowledge an interrupt (docs/protocol.md, G8).
const INTERRUPT_GRACE: Duration = Duration::from_secs(3);
/// How long it has to end after SIGINT.
const SIGINT_GRACE: Duration = Duration::from_secs(2);
/// How long a killed agent may take to be reported gone.
const KILL_GRACE: Duration = Duration::from_secs(10);

/// The longest error text, in bytes.
const ERROR_BYTES: usize = 16 << 10;
/// How much of it goes into the log.
const LOGGED_BYTES: usize = 500;

/// How a task ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum End {
    /// The agent is done.
    Completed {
        /// Whether it could go on, but has been continued often enough.
        at_limit: bool,
    },
    /// The user stopped it.
    Cancelled,
    /// Something went wrong.
    Failed {
        /// What, in words for people.
        error: String,
        /// Whether the same may succeed later.
        retryable: bool,
    },
}

impl End {
    /// A failure in words that any database takes and any client can show.
    pub(super) fn failed(error: impl Into<String>, retryable: bool) -> Self {
        let mut error = error.into().replace('\0', "");
        cut_at_character(&mut error, ERROR_BYTES);
        Self::Failed { error, retryable }
    }

    /// The task's state from then on.
    pub(super) const fn state(&self) -> TaskState {
        match self {
            Self::Completed { .. } => TaskState::Completed,
            Self::Cancelled => TaskState::Cancelled,
            Self::Failed { .. } => TaskState::Failed,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // An agent's words: no lines of their own, and not many.
            Self::Failed { error, .. } => {
                let mut error = error.clone();
                cut_at_character(&mut error, LOGGED_BYTES);
                write!(to, "failed: {error:?}")
            }
            Self::Completed { .. } | Self::Cancelled => to.write_str(self.state().as_str()),
        }
    }
}

/// What a run does at the moment.
enum Phase {
    /// The agent works; the task's clock runs since then.
    Working { since: Instant },
    /// The agent waits for an answer; the task's clock stands still.
    Asking { since: Instant },
    /// The agent is being stopped.
    Stopping { step: Step, until: Instant, end: End },
}

impl Phase {
    fn stopping(end: End) -> Self {
        Self::Stopping { step: Step::Interrupt, until: Instant::now() + INTERRUPT_GRACE, end }
    }
}

/// How hard an agent is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// In its own way.
    Interrupt,
    /// By SIGINT.
    Sigint,
    /// By SIGKILL.
    Kill,
}

/// What a deadline asks the worker to do.
pub(super) enum Due {
    /// Begin to stop the agent; the run will end like this.
    Stop(End),
    /// Stop it harder.
    Harder(Step),
    /// It is gone as far as anybody can tell: end the run like this.
    GiveUp(End),
}

/// What to do after an agent stopped.
pub(super) enum AfterStop {
    /// Tell it to go on, after publishing this.
    Continue(Event),
    /// It waits: ask whether it may cost more.
    AskForMore,
    /// End the run.
    End {
        /// How.
        end: End,
        /// Whether the agent is idle and well.
        agent_is_idle: bool,
    },
}

/// What a task at work has of others; given back on drop.
pub(super) struct Share {
    /// Its place among its user's tasks at work.
    pub(super) _slot: RunningSlot,
    /// Tells operators that it is at work.
    pub(super) counted: CountedTask,
}

/// What a task's agent said before a restart: it may be long. Dropped, it is read no further.
pub(super) struct Past {
    said: AbortOnDropHandle<TurnShape>,
    wanted: oneshot::Sender<()>,
}

impl Past {
    /// Begins to `read` when it is wanted, or `later`: to hear all agents again comes first.
    pub(super) fn of(read: impl Future<Output = TurnShape> + Send + 'static, later: Duration) -> Self {
        let (wanted, is_wanted) = oneshot::channel();
        let said = tokio::spawn(async move {
            let _ = timeout(later, is_wanted).await;
            read.await
        });
        Self { said: AbortOnDropHandle::new(said), wanted }
    }

    /// Waits for it. Fails when its reading panicked.
    pub(super) async fn get(self) -> Result<TurnShape, JoinError> {
        drop(self.wanted);
        self.said.await
    }
}

/// A task at work.
pub(super) struct Run {
    pub(super) task: TaskId,
    pub(super) shape: TurnShape,
    /// What was said before a restart, until it is needed.
    pub(super) past: Option<Past>,
    pub(super) cancelling: Vec<CancelReply>,
    /// Questions that the agent took back, to be told with what it says next.
    pub(super) withdrawn: Vec<AskId>,
    /// What was answered in this run last.
    answered: Vec<(AskId, Answer, Receipt)>,
    mode: Mode,
    allowance: Allowance,
    phase: Phase,
    worked: Duration,
    started: Instant,
    continuation: u32,
    bill: Bill,
    budget: Budget,
    num_turns: u32,
    /// The tool calls of the questions that have been answered.
    answered_tools: Vec<(AskId, String)>,
    share: Share,
}

/// How many answered questions a run's state tells of: their answers may not have been told yet.
const ANSWERED: usize = 64;

impl Run {
    /// A task whose prompt the agent gets now.
    pub(super) fn new(task: TaskId, mode: Mode, allowance: Allowance, event_bytes: usize, mut share: Share) -> Self {
        share.counted.becomes(TaskState::Running);
        let now = Instant::now();
        Self {
            task,
            shape: TurnShape::new(event_bytes),
            past: None,
            cancelling: Vec::new(),
            withdrawn: Vec::new(),
            answered: Vec::new(),
            mode,
            allowance,
            phase: Phase::Working { since: now },
            worked: Duration::ZERO,
            started: now,
            continuation: 0,
            bill: Bill::default(),
            budget: Budget::default(),
            num_turns: 0,
            answered_tools: Vec::new(),
            share,
        }
    }

    /// A task that was at work before: what it said is read from its events meanwhile, the rest is in its state.
    pub(super) fn restore(
        task: &TaskRecord,
        allowance: Allowance,
        share: Share,
        state: &RunState,
        past: Past,
        open: Vec<OpenAsk>,
        event_bytes: usize,
    ) -> Self {
        let asking = !open.is_empty();
        let mut run = Self::new(task.id, task.mode, allowance, event_bytes, share);
        run.past = Some(past);
        run.shape.restore_open(&state.tools, open);
        run.worked = Duration::from_millis(state.worked_ms);
        let now = Instant::now();
        run.started = now.checked_sub(Duration::from_millis(state.age_ms)).unwrap_or(now);
        run.continuation = state.continuation;
        run.bill = state.bill;
        run.budget = state.budget;
        run.num_turns = state.num_turns;
        run.answered_tools.clone_from(&state.asks);
        run.answered_tools.retain(|(ask, _)| !run.shape.open_asks().iter().any(|open| open.ask_id == *ask));
        if asking {
            run.share.counted.becomes(TaskState::AwaitingAnswer);
            run.phase = Phase::Asking { since: now };
        }
        if let Some(end) = &state.stopping {
            run.phase = Phase::stopping(end.clone());
        }
        run
    }

    /// Its open question has been waiting for an answer for that long already.
    pub(super) fn has_asked_for(&mut self, waiting: Duration) {
        if let Phase::Asking { since } = &mut self.phase {
            *since = since.checked_sub(waiting).unwrap_or(*since);
        }
    }

    /// What is to be known of it after a crash, and by its agent's adapter, as JSON.
    pub(super) fn state(&self, agent: Value) -> String {
        let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let working = match &self.phase {
            Phase::Working { since } => since.elapsed(),
            _ => Duration::ZERO,
        };
        let open = self.shape.open_asks().iter().map(|open| (open.ask_id, open.tool_id.clone()));
        let state = RunState {
            task: self.task.to_string(),
            continuation: self.continuation,
            bill: self.bill,
            budget: self.budget,
            num_turns: self.num_turns,
            worked_ms: milliseconds(self.worked + working),
            age_ms: milliseconds(self.started.elapsed()),
            tools: self.shape.open_tools(),
            asks: self.answered_tools.iter().cloned().chain(open).collect(),
            stopping: self.stopping().cloned(),
            agent,
        };
        state.text()
    }

    /// How often the agent has been told to go on.
    pub(super) fn continued(&self) -> u32 {
        self.continuation + self.budget.grants()
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether its clock runs.
    pub(super) const fn is_working(&self) -> bool {
        matches!(self.phase, Phase::Working { .. })
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Instant {
        match &self.phase {
            Phase::Working { since } => *since + self.allowance.timeout.saturating_sub(self.worked),
            Phase::Asking { since } => *since + self.allowance.ask_timeout,
            Phase::Stopping { until, .. } => *until,
        }
    }

    /// What is due at the deadline.
    pub(super) fn due(&mut self) -> Due {
        let unanswered = self.no_more();
        match &mut self.phase {
            Phase::Working { .. } => {
                let seconds = self.allowance.timeout.as_secs();
                Due::Stop(End::failed(format!("timeout: the task worked for {seconds} s, its limit"), false))
            }
            Phase::Asking { .. } => {
                let seconds = self.allowance.ask_timeout.as_secs();
                let why = || End::failed(format!("timeout: the question was not answered within {seconds} s"), false);
                Due::Stop(unanswered.unwrap_or_else(why))
            }
            Phase::Stopping { step, until, end } => {
                let now = Instant::now();
                match step {
                    Step::Interrupt => (*step, *until) = (Step::Sigint, now + SIGINT_GRACE),
                    Step::Sigint => (*step, *until) = (Step::Kill, now + KILL_GRACE),
                    Step::Kill => return Due::GiveUp(end.clone()),
                }
                Due::Harder(*step)
            }
        }
    }

    /// Begins to stop the agent, unless that has begun: the first reason stays, but for one that the user was to
    /// be asked about. `false`: it had.
    pub(super) fn stop(&mut self, end: End) -> bool {
        match &mut self.phase {
            Phase::Stopping { end: planned, .. } if self.budget.gives_way() => *planned = end,
            Phase::Stopping { .. } => return false,
            phase => *phase = Phase::stopping(end),
        }
        true
    }

    /// Keeps stopping the agent: it will end like this, once it can be known to have stopped.
    pub(super) fn stop_later(&mut self, end: End) {
        self.phase = Phase::Stopping { step: Step::Kill, until: Instant::now() + KILL_GRACE, end };
    }

    /// How the run will end, when it is being stopped.
    pub(super) fn stopping(&self) -> Option<&End> {
        match &self.phase {
            Phase::Stopping { end, .. } => Some(end),
            _ => None,
        }
    }

    /// Lets the task's clock stand still while a question is open. Returns the change of state to be
    /// committed, if any.
    pub(super) fn follow_questions(&mut self) -> Option<Effect> {
        match (&self.phase, self.shape.open_asks().is_empty()) {
            (Phase::Working { since }, false) => {
                self.worked += since.elapsed();
                self.phase = Phase::Asking { since: Instant::now() };
                self.share.counted.becomes(TaskState::AwaitingAnswer);
                None // `Effect::Ask` says so already.
            }
            (Phase::Asking { .. }, true) => {
                self.phase = Phase::Working { since: Instant::now() };
                self.share.counted.becomes(TaskState::Running);
                Some(Effect::TaskRunning(self.task))
            }
            _ => None,
        }
    }

    /// What follows when the agent says that it stopped.
    pub(super) fn after_stop(
        &mut self,
        reason: StopReason,
        usage: Usage,
        cost_known: bool,
        num_turns: u32,
    ) -> AfterStop {
        self.bill.tell(usage, cost_known);
        self.num_turns = self.num_turns.saturating_add(num_turns);
        if let Phase::Stopping { end, .. } = &self.phase {
            // Every turn is answered by exactly one stop, whatever its reason: it is idle now.
            return match reason {
                StopReason::EndTurn if self.budget.is_pausing() => {
                    AfterStop::End { end: End::Completed { at_limit: false }, agent_is_idle: true }
                }
                _ if self.budget.is_pausing() => AfterStop::AskForMore,
                _ => AfterStop::End { end: end.clone(), agent_is_idle: true },
            };
        }
        let end = match reason {
            StopReason::EndTurn => End::Completed { at_limit: false },
            StopReason::Error(message) => End::failed(message, false),
            StopReason::Interrupted => End::failed("the agent was interrupted by something else", true),
            StopReason::MaxTurns => match self.over_budget() {
                Some(_) if self.asks_for_more() => return AfterStop::AskForMore,
                Some(end) => end,
                None if self.continuation < self.allowance.max_continuations => {
                    self.continuation += 1;
                    return AfterStop::Continue(Event::TurnContinuing {
                        continuation: self.continuation,
                        max_continuations: self.allowance.max_continuations,
                    });
                }
                None => End::Completed { at_limit: true },
            },
        };
        AfterStop::End { end, agent_is_idle: true }
    }

    /// The question to be answered: the one named, or the oldest.
    pub(super) fn take_ask(&mut self, ask: Option<AskId>) -> Option<OpenAsk> {
        let id = ask.or_else(|| self.shape.open_asks().first().map(|open| open.ask_id))?;
        let open = self.shape.answer(id)?;
        if self.budget.asked() == Some(id) {
            return Some(open); // Nothing of the agent's.
        }
        self.answered_tools.push((open.ask_id, open.tool_id.clone()));
        if self.answered_tools.len() > ANSWERED {
            self.answered_tools.remove(0);
        }
        Some(open)
    }

    /// Keeps an answer, for those that give it again. Of earlier ones the database knows.
    pub(super) fn note_answer(&mut self, ask: AskId, answer: Answer, receipt: Receipt) {
        if self.answered.len() >= ANSWERED {
            self.answered.remove(0);
        }
        self.answered.push((ask, answer, receipt));
    }

    /// What was answered last, oldest first.
    pub(super) fn answered(&self) -> &[(AskId, Answer, Receipt)] {
        &self.answered
    }

    /// The last events of the task and what changes with them: exactly one terminal event (G4), no tool
    /// call left open (G5).
    pub(super) fn end(&mut self, end: &End, events: &mut Vec<Event>) -> Effect {
        let (result_text, truncated) = self.shape.result_text();
        let mut record = TaskEnd {
            id: self.task,
            state: end.state(),
            result_text: Some(result_text.clone()),
            stop_reason: None,
            error: None,
            retryable: None,
            usage: self.bill.usage(),
        };
        let stop_reason = match end {
            End::Completed { at_limit: false } => "end_turn",
            End::Completed { at_limit: true } => "max_turns",
            End::Cancelled => "cancelled",
            End::Failed { error, retryable } => {
                record.error = Some(error.clone());
                record.retryable = Some(*retryable);
                events.push(Event::TaskFailed {
                    error: error.clone(),
                    retryable: *retryable,
                    usage: self.bill.usage(),
                });
                return Effect::EndTask(Box::new(record));
            }
        };
        let why = if *end == End::Cancelled { "cancelled" } else { "the agent gave no result" };
        self.shape.close_open_tools(why, events);
        events.push(Event::TurnDone {
            result_text,
            truncated,
            usage: self.bill.usage(),
            cost_known: self.bill.cost_known(),
            num_turns: self.num_turns,
            duration_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            stop_reason,
        });
        events.push(Event::TaskDone { status: end.state().as_str() });
        record.stop_reason = Some(stop_reason);
        Effect::EndTask(Box::new(record))
    }
}
