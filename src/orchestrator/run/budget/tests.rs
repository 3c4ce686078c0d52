use std::time::Duration;

use super::super::super::allowance::Allowance;
use super::super::super::users::Users;
use super::super::{AfterStop, Due, Share};
use super::*;
use crate::agent::StopReason;
use crate::domain::{Mode, TaskId, TaskState, Usage, UserId};
use crate::metrics::Metrics;

/// A run that may cost a dollar before its user is asked, and work for an hour.
fn run() -> Run {
    let share = Share {
        _slot: Users::new(1, 1).run_again(&UserId("alice".to_owned())),
        counted: Metrics::new().task(TaskState::Running),
    };
    let allowance = Allowance {
        timeout: Duration::from_hours(1),
        ask_timeout: Duration::from_mins(1),
        max_budget_usd: Some(1.0),
        max_continuations: 2,
        on_budget: OnBudget::Ask,
    };
    Run::new(TaskId::generate(), Mode::Session, allowance, 1 << 20, share)
}

fn call(cost_usd: Option<f64>) -> Metered {
    let model = "model".to_owned();
    Metered { model, input_tokens: 1, output_tokens: 1, cache_read_tokens: 0, cache_write_tokens: 0, cost_usd }
}

fn stop(run: &mut Run, reason: StopReason) -> AfterStop {
    run.after_stop(reason, Usage::default(), false, 1)
}

/// A run whose user is asked: it has cost `usd`.
fn asking(usd: f64) -> (Run, OpenAsk) {
    let mut run = run();
    let end = run.meter(&call(Some(usd))).expect("it has cost too much");
    assert!(run.pause(end));
    assert!(matches!(stop(&mut run, StopReason::Interrupted), AfterStop::AskForMore));
    let mut events = Vec::new();
    assert_eq!(run.ask_for_more(&mut events), None);
    assert!(matches!(events.as_slice(), [Event::ToolUse { .. }, Event::AskUser { .. }]), "{events:?}");
    assert!(run.follow_questions().is_none());
    let open = run.take_ask(None).unwrap();
    (run, open)
}

fn settle(run: &mut Run, open: &OpenAsk, answer: &str) -> (Verdict, Vec<Event>) {
    let mut events = Vec::new();
    let verdict = run.settle(open, &Answer::Text(answer.to_owned()), &mut events);
    (verdict, events)
}

#[test]
fn what_is_granted_counts_from_what_has_been_spent() {
    let (mut run, open) = asking(10.0);
    assert!(open.questions[0].question.starts_with("The task has cost 10 USD and was to cost 1 USD."), "{open:?}");
    let (verdict, events) = settle(&mut run, &open, "go on");
    assert!(matches!(verdict, Verdict::GoOn));
    assert!(matches!(events.as_slice(), [Event::ToolResult { .. }]), "{events:?}");
    assert_eq!((run.meter(&call(Some(0.9))), run.is_paused()), (None, false));
    assert!(run.meter(&call(Some(0.2))).is_some());
}

#[test]
fn any_other_answer_ends_the_task_whatever_it_has_cost_by_then() {
    for answer in ["Stop", "no", "go", ""] {
        let (mut run, open) = asking(1.5);
        assert!(matches!(settle(&mut run, &open, answer).0, Verdict::End(End::Failed { .. })), "{answer}");
        assert!(run.stopping().is_some(), "a crash does not make it go on");
    }
    // Its budget was raised between the question and the answer.
    let (mut run, open) = asking(1.5);
    run.allowance.max_budget_usd = Some(100.0);
    assert!(matches!(settle(&mut run, &open, "Stop").0, Verdict::End(_)));
}

#[test]
fn a_call_without_a_price_hides_nothing_of_what_others_cost() {
    let mut run = run();
    assert_eq!(run.meter(&call(None)), None);
    assert_eq!(run.meter(&call(Some(0.9))), None);
    assert!(run.meter(&call(Some(0.2))).is_some());
}

#[test]
fn the_time_that_was_worked_counts_over_a_question_however_it_came_about() {
    let mut run = run();
    run.phase = Phase::Working { since: Instant::now().checked_sub(Duration::from_mins(10)).unwrap() };
    run.meter(&call(Some(1.5)));
    assert!(matches!(stop(&mut run, StopReason::MaxTurns), AfterStop::AskForMore));
    assert_eq!(run.ask_for_more(&mut Vec::new()), None);
    run.follow_questions();
    assert!(run.worked >= Duration::from_mins(10));

    let mut paused = self::run();
    paused.phase = Phase::Working { since: Instant::now().checked_sub(Duration::from_mins(10)).unwrap() };
    let end = paused.meter(&call(Some(1.5))).unwrap();
    paused.pause(end);
    assert!(paused.worked >= Duration::from_mins(10));
}

#[test]
fn an_agent_that_comes_to_its_end_while_it_is_stopped_has_completed() {
    let mut run = run();
    let end = run.meter(&call(Some(1.5))).unwrap();
    run.pause(end);
    let AfterStop::End { end, agent_is_idle } = stop(&mut run, StopReason::EndTurn) else { panic!("it has ended") };
    assert_eq!((end, agent_is_idle), (End::Completed { at_limit: false }, true));
}

#[test]
fn a_cancel_goes_before_the_question() {
    let mut run = run();
    let end = run.meter(&call(Some(1.5))).unwrap();
    assert!(run.pause(end));
    assert!(run.stop(End::Cancelled));
    let AfterStop::End { end, .. } = stop(&mut run, StopReason::Interrupted) else { panic!("nobody is asked") };
    assert_eq!(end, End::Cancelled);
    assert!(!run.stop(End::failed("timeout", false)), "the first reason stays");
}

#[test]
fn silence_ends_the_task_for_its_cost() {
    let mut run = run();
    let end = run.meter(&call(Some(1.5))).unwrap();
    run.pause(end);
    stop(&mut run, StopReason::Interrupted);
    run.ask_for_more(&mut Vec::new());
    run.follow_questions();
    let Due::Stop(End::Failed { error, .. }) = run.due() else { panic!("it ends") };
    assert!(error.starts_with("budget: "), "{error}");
}

#[test]
fn a_run_that_can_ask_no_more_ends() {
    let mut run = run();
    // More tool calls than one task may make.
    for number in 0..100_000 {
        let input = raw_json(&json!({}));
        let (id, tool) = (number.to_string(), "t".to_owned());
        run.shape.take(AgentEvent::ToolUse { id: id.clone(), tool, input }, &mut Vec::new());
        run.shape.take(AgentEvent::ToolResult { id, output: String::new(), is_error: false }, &mut Vec::new());
    }
    let end = run.meter(&call(Some(1.5))).unwrap();
    run.pause(end.clone());
    stop(&mut run, StopReason::Interrupted);
    assert_eq!(run.ask_for_more(&mut Vec::new()), Some(end));
}
