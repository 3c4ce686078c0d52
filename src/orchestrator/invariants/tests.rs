//! What comes out for what agents say, well-behaved and not.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::agent::StopReason;
use crate::domain::{Seq, SessionId, TaskId, Timestamp, Usage};
use crate::protocol::event::QuestionOption;

const LIMIT: usize = 64;

fn text(text: &str) -> AgentEvent {
    AgentEvent::Text(text.to_owned())
}

fn tool_use(id: &str) -> AgentEvent {
    let input = RawValue::from_string("{\"x\":1}".to_owned()).unwrap();
    AgentEvent::ToolUse { id: id.to_owned(), tool: format!("tool of {id}"), input }
}

fn tool_result(id: &str) -> AgentEvent {
    AgentEvent::ToolResult { id: id.to_owned(), output: format!("output of {id}"), is_error: false }
}

fn ask(id: &str) -> AgentEvent {
    let questions =
        vec![Question { question: "Which?".to_owned(), header: None, options: vec![], multi_select: false }];
    AgentEvent::Ask { id: id.to_owned(), questions }
}

fn stopped() -> AgentEvent {
    AgentEvent::Stopped { reason: StopReason::MaxTurns, usage: Usage::default(), cost_known: true, num_turns: 1 }
}

/// The frames of `events`, without what every frame has.
fn frames(events: &[Event]) -> Vec<Value> {
    let (session, task) = (SessionId::generate(), TaskId::generate());
    let frame = |event: &Event| {
        let stored = event.encode(Seq(1), Timestamp(1), session, Some(task));
        let mut frame: Value = serde_json::from_str(&stored.frame).unwrap();
        for field in ["seq", "ts", "session_id", "task_id"] {
            frame.as_object_mut().unwrap().remove(field);
        }
        frame
    };
    events.iter().map(frame).collect()
}

/// Takes all `said`; returns the frames and the notes.
fn take_all(shape: &mut TurnShape, said: impl IntoIterator<Item = AgentEvent>) -> (Vec<Value>, Vec<Note>) {
    let mut out = Vec::new();
    let notes = said.into_iter().filter_map(|event| shape.take(event, &mut out)).collect();
    (frames(&out), notes)
}

fn result(id: &str, tool_use_id: &str) -> Value {
    json!({"type": "task:tool_result", "tool": format!("tool of {id}"), "output": format!("output of {id}"),
           "tool_use_id": tool_use_id, "is_error": false})
}

fn is_dropped(note: &Note) -> bool {
    matches!(note, Note::Dropped(_))
}

#[test]
fn text_is_published_as_it_comes_and_gathered_with_a_blank_line_where_a_tool_intervened() {
    let mut shape = TurnShape::new(LIMIT);
    let said = [text("Look"), text(""), text("ing.  "), tool_use("a"), tool_result("a"), text("Found"), text(" it.\n")];
    let (out, notes) = take_all(&mut shape, said);

    assert_eq!(notes, []);
    assert_eq!(out[0], json!({"type": "task:token", "text": "Look"}));
    assert_eq!(out[1], json!({"type": "task:token", "text": "ing.  "}));
    assert_eq!(out.len(), 6);
    assert_eq!(shape.result_text(), ("Looking.\n\nFound it.\n".to_owned(), false));

    take_all(&mut shape, [tool_use("b"), text("More"), tool_result("b"), stopped()]);
    assert_eq!(shape.result_text().0, "Looking.\n\nFound it.\n\nMore");
}

#[test]
fn a_turn_that_begins_with_a_tool_has_no_blank_line_before_its_text() {
    let mut shape = TurnShape::new(LIMIT);
    take_all(&mut shape, [tool_use("a"), tool_result("a"), text("Done.")]);
    assert_eq!(shape.result_text().0, "Done.");
}

#[test]
fn g5_a_second_result_and_one_for_an_unknown_call_are_dropped() {
    let mut shape = TurnShape::new(LIMIT);
    let said = [tool_result("a"), tool_use("a"), tool_result("a"), tool_result("a"), tool_result("b")];
    let (out, notes) = take_all(&mut shape, said);

    let call = json!({"type": "task:tool_use", "tool": "tool of a", "input": {"x": 1}, "tool_use_id": "a"});
    assert_eq!(out, [call, result("a", "a")]);
    assert!(notes.len() == 3 && notes.iter().all(is_dropped));
}

#[test]
fn g5_a_missing_result_is_given_as_an_error_result() {
    let mut shape = TurnShape::new(LIMIT);
    take_all(&mut shape, [tool_use("a"), tool_use("b"), ask("b"), tool_use("c"), tool_result("a")]);
    let mut out = Vec::new();
    shape.close_open_tools("The turn ended.", &mut out);

    let error = |id: &str| {
        json!({"type": "task:tool_result", "tool": format!("tool of {id}"), "output": "The turn ended.",
               "tool_use_id": id, "is_error": true})
    };
    assert_eq!(frames(&out), [error("b"), error("c")]);
    assert_eq!(shape.open_asks(), []);

    shape.close_open_tools("Again.", &mut out);
    assert_eq!(out.len(), 2);
    let (late, notes) = take_all(&mut shape, [tool_result("b")]);
    assert!(late.is_empty() && is_dropped(&notes[0]));
}

#[test]
fn g5_a_call_under_an_open_id_is_dropped_and_one_under_a_closed_id_is_renamed_with_its_result() {
    let mut shape = TurnShape::new(LIMIT);
    let mut ids = Vec::new();
    for agent_id in ["a", "a#2", "a", "a", "a#2"] {
        let (out, notes) = take_all(&mut shape, [tool_use(agent_id), tool_use(agent_id), tool_result(agent_id)]);
        assert!(out.len() == 2 && is_dropped(&notes[0]));
        assert_eq!(out[0]["tool_use_id"], out[1]["tool_use_id"]);
        ids.push(out[0]["tool_use_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids, ["a", "a#2", "a#3", "a#4", "a#2#2"]);
}

#[test]
fn too_long_texts_inputs_and_outputs_are_cut_at_a_character() {
    let mut shape = TurnShape::new(8);
    let input = RawValue::from_string("{\"a\":\"éé\"}".to_owned()).unwrap();
    let (id, tool) = ("i".repeat(300), "é".repeat(300));
    let said = [
        text("1234567é"),
        AgentEvent::ToolUse { id: id.clone(), tool, input },
        AgentEvent::ToolResult { id, output: "12345678\0".to_owned(), is_error: true },
        text("more"),
    ];
    let (out, notes) = take_all(&mut shape, said);

    assert_eq!(notes, []);
    assert_eq!(out[0], json!({"type": "task:token", "text": "1234567", "truncated": true}));
    assert_eq!(out[1]["input"], json!({"truncated": "{\"a\":\"é"}));
    assert_eq!(out[1]["truncated"], true);
    assert_eq!(out[1]["tool_use_id"], "i".repeat(NAME_BYTES));
    assert_eq!(out[1]["tool"], "é".repeat(NAME_BYTES / 2));
    assert_eq!((&out[2]["output"], &out[2]["truncated"]), (&json!("12345678"), &json!(true)));
    assert_eq!(out[2]["tool_use_id"], out[1]["tool_use_id"]);
    assert_eq!(out[3], json!({"type": "task:token", "text": "more"}));
    assert_eq!(shape.result_text(), ("1234567".to_owned(), true));
}

#[test]
fn what_fits_exactly_is_not_cut() {
    let mut shape = TurnShape::new(7);
    let output = AgentEvent::ToolResult { id: "a".to_owned(), output: "7 bytes".to_owned(), is_error: false };
    let (out, _) = take_all(&mut shape, [text("7 bytes"), tool_use("a"), output]);
    assert!(out.iter().all(|frame| frame.get("truncated").is_none()));
    assert_eq!(shape.result_text(), ("7 bytes".to_owned(), false));
}

#[test]
fn a_result_is_never_cut_inside_a_placeholder() {
    let whole = format!("12 [a]({LINK_OPEN}a.png{LINK_CLOSE}) é");
    let (open, close) = (whole.find(LINK_OPEN).unwrap(), whole.rfind(LINK_CLOSE).unwrap() + 1);
    for limit in 0..whole.len() {
        let mut text = whole.clone();
        assert!(cut_outside_placeholders(&mut text, limit));
        let expected = if (open..close).contains(&limit) { open } else { whole.floor_char_boundary(limit) };
        assert_eq!(text, whole[..expected], "{limit}");
    }
    let mut shape = TurnShape::new(20);
    take_all(&mut shape, [text("see [a](a.png)")]);
    assert_eq!(shape.result_text(), ("see [a](".to_owned(), true));
}

#[test]
fn a_question_is_open_until_it_is_answered() {
    let mut shape = TurnShape::new(LIMIT);
    let (out, notes) = take_all(&mut shape, [tool_use("a"), ask("a"), tool_use("b"), ask("b")]);
    let [first, second] = shape.open_asks() else { panic!("{:?}", shape.open_asks()) };
    let (first, second) = (first.clone(), second.clone());

    assert_eq!(notes, [Note::Asked(first.ask_id), Note::Asked(second.ask_id)]);
    assert_eq!(
        out[1],
        json!({"type": "task:ask_user", "ask_id": first.ask_id,
                              "questions": [{"question": "Which?", "options": []}]})
    );
    assert_eq!(first.tool_id, "a");
    assert_eq!(shape.answer(second.ask_id), Some(second.clone()));
    assert_eq!(shape.answer(second.ask_id), None);
    assert_eq!(shape.open_asks(), [first]);

    // Answered: its result withdraws nothing.
    assert_eq!(take_all(&mut shape, [tool_result("b")]).1, []);
}

#[test]
fn a_tool_that_comes_back_unanswered_withdraws_its_question() {
    let mut shape = TurnShape::new(LIMIT);
    let (_, notes) = take_all(&mut shape, [tool_use("a"), ask("a"), tool_result("a")]);
    let [Note::Asked(asked), Note::Withdrawn(withdrawn)] = notes[..] else { panic!("{notes:?}") };
    assert_eq!(asked, withdrawn);
    assert_eq!(shape.answer(asked), None);
}

#[test]
fn a_question_without_an_open_call_or_without_words_or_before_the_answer_is_dropped() {
    let mut shape = TurnShape::new(LIMIT);
    let empty = AgentEvent::Ask { id: "a".to_owned(), questions: vec![] };
    let (out, notes) =
        take_all(&mut shape, [ask("a"), tool_use("a"), empty, ask("a"), ask("a"), tool_result("a"), ask("a")]);
    assert_eq!(out.len(), 3);
    assert_eq!(notes.iter().filter(|note| is_dropped(note)).count(), 4);
}

#[test]
fn too_many_questions_are_cut_to_the_event_limit() {
    let option = QuestionOption { label: "l".repeat(9), description: Some("d".repeat(9)) };
    let question = Question {
        question: "é".repeat(40),
        header: Some("h".to_owned()),
        options: vec![option; 500],
        multi_select: true,
    };
    let mut questions = vec![question; 500];
    let whole = questions[..1].to_vec();
    cut_questions(&mut questions, 1000);
    assert_eq!(questions.len(), 1);
    assert!(serde_json::to_string(&questions).unwrap().len() < 1200);

    let mut fits = whole.clone();
    cut_questions(&mut fits, 1 << 20);
    assert_eq!(fits, whole);

    cut_questions(&mut fits, 1);
    assert_eq!((fits.len(), fits[0].question.len(), fits[0].options.len()), (1, 0, 0));
}

fn any_event() -> impl Strategy<Value = AgentEvent> {
    let id = prop_oneof![Just("a"), Just("b"), Just("a#2"), Just("")];
    (0..5_u8, id, "[a`\n \u{0}é\\[\\]().]{0,90}").prop_map(|(kind, id, words)| match kind {
        0 => AgentEvent::Text(words),
        1 => tool_use(id),
        2 => AgentEvent::ToolResult { id: id.to_owned(), output: words, is_error: false },
        3 => ask(id),
        _ => stopped(),
    })
}

proptest! {
    #[test]
    fn g5_whatever_an_agent_says_every_tool_use_is_followed_by_exactly_one_result(
        said in proptest::collection::vec(any_event(), 0..60)
    ) {
        let mut shape = TurnShape::new(LIMIT);
        let mut out = Vec::new();
        let mut asks = Vec::new();
        for event in said {
            match shape.take(event, &mut out) {
                Some(Note::Asked(ask_id)) => asks.push(ask_id),
                Some(Note::Withdrawn(ask_id)) => {
                    prop_assert!(asks.contains(&ask_id));
                    asks.retain(|open| *open != ask_id);
                }
                Some(Note::Dropped(_)) | None => {}
            }
            prop_assert_eq!(shape.open_asks().iter().map(|ask| ask.ask_id).collect::<Vec<_>>(), asks.clone());
        }
        shape.close_open_tools("ended", &mut out);

        let mut seen = std::collections::HashSet::new();
        let mut open = std::collections::HashMap::new();
        for event in &out {
            match event {
                Event::ToolUse { tool, tool_use_id, .. } => {
                    prop_assert!(seen.insert(tool_use_id.clone()), "{} twice", tool_use_id);
                    open.insert(tool_use_id.clone(), tool.clone());
                }
                Event::ToolResult { tool, tool_use_id, output, .. } => {
                    prop_assert_eq!(open.remove(tool_use_id), Some(tool.clone()));
                    prop_assert!(output.len() <= LIMIT);
                }
                Event::Token { text, .. } => prop_assert!((1..=LIMIT).contains(&text.len())),
                Event::AskUser { .. } => prop_assert!(!open.is_empty()),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert!(open.is_empty());
        prop_assert!(shape.result_text().0.len() <= LIMIT);
    }

    #[test]
    fn the_result_loses_no_word_of_the_stream(
        words in proptest::collection::vec(("[a-z]{1,5}[ \n]?", any::<bool>()), 0..40)
    ) {
        let mut shape = TurnShape::new(1 << 20);
        let mut streamed = String::new();
        for (index, (word, tool)) in words.into_iter().enumerate() {
            streamed.push_str(&word);
            take_all(&mut shape, [text(&word)]);
            if tool {
                streamed.push(' ');
                let id = index.to_string();
                take_all(&mut shape, [tool_use(&id), tool_result(&id)]);
            }
        }
        let (result, truncated) = shape.result_text();
        prop_assert!(!truncated);
        prop_assert_eq!(
            result.split_whitespace().collect::<Vec<_>>(),
            streamed.split_whitespace().collect::<Vec<_>>()
        );
    }
}

/// The gateway ends after each event in turn; the next one reads what was said only when a tool is heard of, or at
/// the end.
#[test]
fn a_restart_at_any_place_changes_nothing_of_what_follows() {
    let said = || {
        let words = ["one ", "two ", "three ", "four "].map(text);
        let [one, two, three, four] = words;
        vec![one, tool_use("a"), tool_use("b"), tool_result("a"), two, three, tool_use("a"), tool_result("b"), four]
    };
    let (session, task) = (SessionId::generate(), TaskId::generate());
    for event_bytes in [LIMIT, 10] {
        let mut whole = TurnShape::new(event_bytes);
        let (expected, _) = take_all(&mut whole, said());
        for restart_after in 0..=said().len() {
            let (mut before, mut events) = (TurnShape::new(event_bytes), Vec::new());
            let mut said = said().into_iter();
            for event in said.by_ref().take(restart_after) {
                before.take(event, &mut events);
            }
            let stored: Vec<_> = (1..)
                .zip(&events)
                .map(|(seq, event)| event.encode(Seq(seq), Timestamp(1), session, Some(task)))
                .collect();
            let mut past = TurnShape::new(event_bytes);
            past.restore(task, &stored, &before.open_tools());

            let mut shape = TurnShape::new(event_bytes);
            shape.restore_open(&before.open_tools(), Vec::new());
            assert_eq!(shape.open_tools(), before.open_tools());
            let mut past = Some(past);
            for event in said {
                if !matches!(event, AgentEvent::Text(_))
                    && let Some(past) = past.take()
                {
                    shape.precede(past);
                }
                shape.take(event, &mut events);
            }
            if let Some(past) = past.take() {
                shape.precede(past);
            }
            assert_eq!(frames(&events), expected, "restarted after {restart_after}");
            assert_eq!(shape.result_text(), whole.result_text(), "restarted after {restart_after}");
            assert_eq!(shape.open_tools(), whole.open_tools(), "restarted after {restart_after}");
        }
    }
}
