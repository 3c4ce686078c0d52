//! Requests for permission: by the profile's policy, or as the user says. Options are chosen by their kind; their
//! ids and their order mean nothing.

use serde_json::{Value, json};

use super::wire::PermissionOption;
use crate::agent::says_yes;
use crate::domain::cut_at_character;
use crate::protocol::client::Answer;
use crate::protocol::event::{Question, QuestionOption};

/// The longest text of an option, in bytes, and how many are kept.
const OPTION_BYTES: usize = 256;
const OPTIONS: usize = 16;

/// An answer of the user as the agent hears it.
pub(super) struct Outcome {
    pub(super) reply: Value,
    pub(super) refuses: bool,
}

/// Nobody decides any more.
pub(super) fn cancelled() -> Value {
    json!({"outcome": {"outcome": "cancelled"}})
}

/// Yes, this once if that can be said.
pub(super) fn allow(options: &[PermissionOption]) -> Value {
    let kinds = ["allow_once", "allow_always"];
    let option = first_of(options, &kinds).or_else(|| options.iter().find(|option| !is_refusal(option)));
    option.map_or_else(cancelled, selected)
}

/// No, this once if that can be said.
pub(super) fn reject(options: &[PermissionOption]) -> Value {
    first_of(options, &["reject_once", "reject_always"]).map_or_else(cancelled, selected)
}

/// Options short enough to be kept until the user answers.
pub(super) fn kept(mut options: Vec<PermissionOption>) -> Vec<PermissionOption> {
    // An id that is cut is not the agent's any more.
    options.retain(|option| option.option_id.len() <= OPTION_BYTES);
    options.truncate(OPTIONS);
    for option in &mut options {
        cut_at_character(&mut option.name, OPTION_BYTES);
    }
    options
}

/// What the user is asked.
pub(super) fn question(title: Option<&str>, options: &[PermissionOption]) -> Question {
    let label = |option: &PermissionOption| QuestionOption { label: option.name.clone(), description: None };
    Question {
        question: title
            .map_or_else(|| "May the agent do this?".to_owned(), |title| format!("May the agent do this? {title}")),
        header: Some("Permission".to_owned()),
        options: options.iter().map(label).collect(),
        multi_select: false,
    }
}

/// What the user said: an option's name, or a plain yes. Anything else is a no.
pub(super) fn answered(options: &[PermissionOption], questions: &[Question], answer: &Answer) -> Outcome {
    let text = match answer {
        Answer::Text(text) => text.as_str(),
        Answer::PerQuestion(given) => {
            questions.first().and_then(|question| given.get(&question.question)).map_or("", String::as_str)
        }
    };
    let text = text.trim();
    let is = |name: &str| name.trim().eq_ignore_ascii_case(text);
    let named = options.iter().find(|option| is(&option.name) || is(&option.option_id) || is(&option.kind));
    match named {
        Some(option) => Outcome { reply: selected(option), refuses: is_refusal(option) },
        None if says_yes(text) => Outcome { reply: allow(options), refuses: false },
        None => Outcome { reply: reject(options), refuses: true },
    }
}

fn first_of<'a>(options: &'a [PermissionOption], kinds: &[&str]) -> Option<&'a PermissionOption> {
    kinds.iter().find_map(|kind| options.iter().find(|option| option.kind == *kind))
}

fn is_refusal(option: &PermissionOption) -> bool {
    option.kind.starts_with("reject")
}

fn selected(option: &PermissionOption) -> Value {
    json!({"outcome": {"outcome": "selected", "optionId": option.option_id}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(of: &[(&str, &str, &str)]) -> Vec<PermissionOption> {
        let option = |(id, name, kind): &(&str, &str, &str)| PermissionOption {
            option_id: (*id).to_owned(),
            name: (*name).to_owned(),
            kind: (*kind).to_owned(),
        };
        of.iter().map(option).collect()
    }

    fn id(reply: &Value) -> &str {
        reply["outcome"]["optionId"].as_str().unwrap_or("cancelled")
    }

    #[test]
    fn options_are_chosen_by_their_kind() {
        let all = options(&[
            ("1", "Always", "allow_always"),
            ("2", "Never", "reject_always"),
            ("3", "No", "reject_once"),
            ("4", "Yes", "allow_once"),
        ]);
        assert_eq!((id(&allow(&all)), id(&reject(&all))), ("4", "3"));
        assert_eq!((id(&allow(&all[..2])), id(&reject(&all[..2]))), ("1", "2"));
        assert_eq!((id(&allow(&all[1..3])), id(&reject(&all[..1]))), ("cancelled", "cancelled"));
        assert_eq!(id(&allow(&options(&[("n", "No", "reject_once"), ("new", "Do", "novel")]))), "new");
    }

    #[test]
    fn an_answer_is_an_options_name_or_a_yes_or_a_no() {
        let all = options(&[
            ("a", "Always Allow ls", "allow_always"),
            ("o", "Allow", "allow_once"),
            ("r", "Reject", "reject_once"),
        ]);
        let questions = [question(Some("ls"), &all)];
        let said = |text: &str| {
            let outcome = answered(&all, &questions, &Answer::Text(text.to_owned()));
            (id(&outcome.reply).to_owned(), outcome.refuses)
        };
        for (text, choice, refuses) in [
            ("always allow ls", "a", false),
            (" Allow ", "o", false),
            ("Yes", "o", false),
            ("reject", "r", true),
            ("rather not", "r", true),
            ("", "r", true),
        ] {
            assert_eq!(said(text), (choice.to_owned(), refuses), "{text:?}");
        }
        let given = Answer::PerQuestion([(questions[0].question.clone(), "Allow".to_owned())].into());
        assert_eq!(id(&answered(&all, &questions, &given).reply), "o");
    }
}
