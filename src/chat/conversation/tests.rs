use super::*;

fn receive(conversation: &mut Conversation, frame: &Value) {
    conversation.receive(frame.as_object().unwrap()).unwrap();
}

fn sent(conversation: &mut Conversation) -> Vec<Value> {
    std::iter::from_fn(|| conversation.next_frame()).map(|frame| serde_json::from_str(&frame).unwrap()).collect()
}

#[test]
fn what_got_no_reply_is_said_again_in_the_same_words() {
    let mut conversation = Conversation::new(None, Some("prof_demo".to_owned()), false, false);
    conversation.connected();
    conversation.say("one").unwrap();
    conversation.say("two").unwrap();
    let first = sent(&mut conversation);
    assert_eq!(first.len(), 1, "the second waits for the session that the first makes");
    assert_eq!((&first[0]["type"], &first[0]["profile_id"]), (&json!("task.submit"), &json!("prof_demo")));

    conversation.connected();
    assert_eq!(sent(&mut conversation), first);
    receive(
        &mut conversation,
        &json!({ "type": "session.ready", "session_id": "sess_1", "task_id": "task_1", "request_id": "1" }),
    );
    receive(&mut conversation, &json!({ "type": "user.message", "text": "one", "task_id": "task_1", "seq": 1 }));
    conversation.connected();
    let again = sent(&mut conversation);
    assert_eq!(
        again[0],
        json!({ "type": "session.resume", "session_id": "sess_1", "after_seq": 1, "request_id": "resume" })
    );
    assert_eq!((again.len(), &again[1]["type"], &again[1]["prompt"]), (2, &json!("session.turn"), &json!("two")));
}

#[test]
fn the_outcome_is_that_of_the_own_task_whatever_comes_first() {
    let mut conversation = Conversation::new(Some("sess_1".to_owned()), None, false, false);
    conversation.say("x").unwrap();
    receive(&mut conversation, &json!({ "type": "task:failed", "task_id": "task_0", "error": "e", "seq": 5 }));
    receive(&mut conversation, &json!({ "type": "task:done", "task_id": "task_1", "status": "completed", "seq": 6 }));
    assert_eq!(conversation.outcome(), None);
    receive(&mut conversation, &json!({ "type": "ack", "task_id": "task_1", "request_id": "1" }));
    assert_eq!(conversation.outcome(), Some(true));
}

#[test]
fn a_refused_prompt_is_a_failure() {
    let mut conversation = Conversation::new(None, None, false, false);
    conversation.say("x").unwrap();
    receive(&mut conversation, &json!({ "type": "error", "code": "CAPACITY", "message": "m", "request_id": "1" }));
    assert_eq!(conversation.outcome(), Some(false));
    assert!(conversation.is_idle());
}

#[test]
fn questions_are_answered_one_by_one_by_number_or_in_words() {
    let mut conversation = Conversation::new(Some("sess_1".to_owned()), None, false, false);
    let options = json!([{ "label": "Yes" }, { "label": "No" }]);
    let questions = json!([
        { "question": "Q1", "options": options },
        { "question": "Q2", "options": options, "multiSelect": true },
        { "question": "Q3", "options": [] },
    ]);
    receive(
        &mut conversation,
        &json!({ "type": "task:ask_user", "task_id": "task_1", "ask_id": "ask_1", "questions": questions }),
    );
    for line in ["2", "1,2", "7"] {
        assert!(conversation.is_asked());
        conversation.say(line).unwrap();
    }
    let frame = sent(&mut conversation).remove(0);
    assert_eq!((&frame["task_id"], &frame["ask_id"]), (&json!("task_1"), &json!("ask_1")));
    assert_eq!(frame["answer"], json!({ "Q1": "No", "Q2": "Yes, No", "Q3": "7" }));
}

#[test]
fn a_repeated_event_is_shown_once() {
    let mut conversation = Conversation::new(Some("sess_1".to_owned()), None, false, false);
    let prompt = json!({ "type": "user.message", "text": "x", "task_id": "task_1", "seq": 3 });
    conversation.own_prompts = vec!["x".to_owned(), "x".to_owned()];
    receive(&mut conversation, &prompt);
    receive(&mut conversation, &prompt);
    assert_eq!(conversation.own_prompts.len(), 1);
}

#[test]
fn a_journal_that_went_back_is_followed_from_its_own_end() {
    let mut conversation = Conversation::new(Some("sess_1".to_owned()), None, false, false);
    conversation.last_seq = Some(9);
    let error = json!({ "type": "error", "code": "CURSOR_AHEAD", "message": "m", "request_id": "resume" });
    receive(&mut conversation, &error);
    assert_eq!(sent(&mut conversation)[0]["tail"], json!(SHOWN_HISTORY));
    receive(&mut conversation, &error);
    assert!(conversation.refusal().is_some());
}

/// A session in which a task asks.
fn asked() -> Conversation {
    let mut conversation = Conversation::new(Some("sess_1".to_owned()), None, false, false);
    let questions = json!([{ "question": "Q", "options": [] }]);
    receive(
        &mut conversation,
        &json!({ "type": "task:ask_user", "task_id": "task_1", "ask_id": "ask_1", "questions": questions }),
    );
    conversation
}

#[test]
fn only_what_is_at_work_is_cancelled_and_only_once() {
    let mut conversation = asked();
    assert!(conversation.cancel());
    assert!(!conversation.is_asked(), "what is being cancelled needs no answer");
    assert!(!conversation.cancel());
    let frames = sent(&mut conversation);
    assert_eq!((frames.len(), &frames[0]["type"], &frames[0]["task_id"]), (1, &json!("task.cancel"), &json!("task_1")));

    receive(&mut conversation, &json!({ "type": "task:queued", "task_id": "task_2", "position": 1, "seq": 2 }));
    receive(&mut conversation, &json!({ "type": "task:done", "task_id": "task_1", "status": "cancelled", "seq": 3 }));
    assert!(conversation.cancel(), "the next task is another one");
    assert_eq!(sent(&mut conversation)[0]["task_id"], "task_2");
    receive(&mut conversation, &json!({ "type": "task:done", "task_id": "task_2", "status": "cancelled", "seq": 4 }));
    assert!(!conversation.cancel(), "nothing is at work");
}

#[test]
fn a_prompt_that_is_no_task_yet_is_cancelled_when_it_is_one() {
    let mut conversation = Conversation::new(Some("sess_1".to_owned()), None, false, false);
    conversation.say("x").unwrap();
    assert!(conversation.cancel());
    assert_eq!(sent(&mut conversation).len(), 1);
    receive(&mut conversation, &json!({ "type": "user.message", "text": "x", "task_id": "task_1", "seq": 1 }));
    assert_eq!(sent(&mut conversation)[0]["task_id"], "task_1");
}

#[test]
fn a_cancel_that_was_refused_can_be_asked_for_again() {
    let mut conversation = asked();
    conversation.cancel();
    let request = sent(&mut conversation)[0]["request_id"].clone();
    receive(
        &mut conversation,
        &json!({ "type": "error", "code": "RATE_LIMITED", "message": "m", "request_id": request }),
    );
    assert!(conversation.is_asked());
    assert!(conversation.cancel());
}

#[test]
fn a_cancel_outlasts_the_connection() {
    let mut conversation = asked();
    conversation.cancel();
    conversation.connected();
    let frames = sent(&mut conversation);
    assert_eq!((&frames[0]["type"], &frames[1]["type"]), (&json!("session.resume"), &json!("task.cancel")));
    let pending = json!({ "task_id": "task_1", "ask_id": "ask_1", "questions": [{ "question": "Q" }] });
    receive(
        &mut conversation,
        &json!({ "type": "session.state", "task": { "task_id": "task_1" }, "queue": [], "pending_ask": pending }),
    );
    assert!(!conversation.is_asked());
}

#[test]
fn what_was_answered_is_not_asked_again_when_the_connection_broke_meanwhile() {
    let mut conversation = asked();
    conversation.say("so").unwrap();
    conversation.connected();
    let pending = json!({ "task_id": "task_1", "ask_id": "ask_1", "questions": [{ "question": "Q" }] });
    let state =
        json!({ "type": "session.state", "task": { "task_id": "task_1" }, "queue": [], "pending_ask": pending });
    receive(&mut conversation, &state);
    assert!(!conversation.is_asked());
    assert_eq!(sent(&mut conversation)[1]["answer"], "so");
}

#[test]
fn an_answer_that_is_typed_while_catching_up_is_no_prompt() {
    let mut conversation = asked();
    conversation.connected();
    conversation.say("so").unwrap();
    assert_eq!(sent(&mut conversation)[1]["type"], "task.answer");
}

#[test]
fn a_cost_that_nobody_knows_is_not_nothing() {
    for (turn, said) in [
        (json!({ "cost_usd": 0.5, "cost_known": true }), "$0.5000"),
        (json!({ "cost_usd": 0.0, "cost_known": true }), "$0.0000"),
        (json!({ "cost_usd": 0.0, "cost_known": false }), "cost unknown"),
    ] {
        assert_eq!(cost(turn.as_object().unwrap()), said);
    }
}
