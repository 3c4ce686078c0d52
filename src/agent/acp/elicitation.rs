//! Forms that the agent wants filled in (`elicitation/create`): one question per property, the user's words back as
//! the schema types them.
//!
//! claude-agent-acp puts `AskUserQuestion` this way: `question_0` has the choices, `question_0_custom` takes what the
//! user says instead.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::wire::Elicitation;
use crate::protocol::client::Answer;
use crate::protocol::event::{Question, QuestionOption};

/// What a property is called that takes free text beside another one's choices.
const CUSTOM: &str = "_custom";

/// A property that the user is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Field {
    name: String,
    /// The property for what is none of the choices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    custom: Option<String>,
    kind: FieldKind,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    choices: Vec<String>,
    #[serde(default)]
    required: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FieldKind {
    Text,
    Boolean,
    Integer,
    Number,
    Choice,
    Choices,
}

/// Nobody answers any more.
pub(super) fn cancelled() -> Value {
    json!({"action": "cancel"})
}

/// Nobody can or will answer.
pub(super) fn declined() -> Value {
    json!({"action": "decline"})
}

/// What the user is asked, and what becomes of each answer. Nothing for what is not a form.
pub(super) fn questions(request: &Elicitation) -> (Vec<Field>, Vec<Question>) {
    let form = request.requested_schema.as_ref().filter(|_| request.mode.as_deref().unwrap_or("form") == "form");
    let Some(form) = form else { return (Vec::new(), Vec::new()) };
    let properties = &form.properties.0;
    let is_property = |name: &str| properties.iter().any(|(property, _)| property == name);
    let of_another = |name: &str| name.strip_suffix(CUSTOM).is_some_and(is_property);
    let asked: Vec<_> = properties.iter().filter(|(name, _)| !of_another(name)).collect();
    let message = request.message.as_deref().filter(|message| !message.trim().is_empty());
    let alone = asked.len() == 1;
    asked
        .into_iter()
        .map(|(name, schema)| {
            let custom = Some(format!("{name}{CUSTOM}")).filter(|custom| is_property(custom));
            let (kind, options) = choices(schema);
            let required = form.required.as_ref().is_some_and(|required| required.contains(name));
            let text = |field: &str| schema[field].as_str().filter(|text| !text.trim().is_empty());
            let (title, description) = (text("title"), text("description"));
            // One question is the message's; several stand with their properties.
            let words = if alone { message.or(description) } else { description };
            let words = words.or(title).unwrap_or(name).to_owned();
            let header = title.filter(|title| *title != words).map(ToOwned::to_owned);
            let field = Field {
                name: name.clone(),
                custom,
                kind,
                choices: options.iter().map(|option| option.label.clone()).collect(),
                required,
            };
            (field, Question { question: words, header, options, multi_select: kind == FieldKind::Choices })
        })
        .unzip()
}

/// What kind of property it is, and its choices.
fn choices(schema: &Value) -> (FieldKind, Vec<QuestionOption>) {
    let listed = |schema: &Value| -> Vec<QuestionOption> {
        let list = ["oneOf", "anyOf", "enum"].iter().find_map(|name| schema[*name].as_array());
        list.into_iter().flatten().filter_map(option).collect()
    };
    match schema["type"].as_str() {
        Some("array") => (FieldKind::Choices, listed(&schema["items"])),
        Some("boolean") => (FieldKind::Boolean, Vec::new()),
        Some("integer") => (FieldKind::Integer, Vec::new()),
        Some("number") => (FieldKind::Number, Vec::new()),
        _ => match listed(schema) {
            options if options.is_empty() => (FieldKind::Text, options),
            options => (FieldKind::Choice, options),
        },
    }
}

fn option(choice: &Value) -> Option<QuestionOption> {
    let label = choice.as_str().or_else(|| choice["const"].as_str())?;
    let said = choice["_meta"]["_claude/askUserQuestionOption"]["description"].as_str();
    let description = said.or_else(|| choice["title"].as_str()).or_else(|| choice["description"].as_str());
    let description = description.filter(|text| *text != label).map(ToOwned::to_owned);
    Some(QuestionOption { label: label.to_owned(), description })
}

/// The filled-in form; declined if the user left out what must be there.
pub(super) fn answered(fields: &[Field], questions: &[Question], answer: &Answer) -> Value {
    let mut content = Map::new();
    for (index, field) in fields.iter().enumerate() {
        let text = match answer {
            Answer::Text(text) if index == 0 => text,
            Answer::Text(_) => "",
            Answer::PerQuestion(given) => {
                questions.get(index).and_then(|question| given.get(&question.question)).map_or("", String::as_str)
            }
        };
        let text = text.trim();
        match (field.value(text), &field.custom) {
            (Some(value), _) => content.insert(field.name.clone(), value),
            (None, Some(custom)) if !text.is_empty() => content.insert(custom.clone(), Value::from(text)),
            _ if field.required => return declined(),
            _ => None,
        };
    }
    json!({"action": "accept", "content": content})
}

impl Field {
    /// An answer as the schema types it. `None`: it says nothing, or nothing that fits.
    fn value(&self, text: &str) -> Option<Value> {
        if text.is_empty() {
            return None;
        }
        match self.kind {
            FieldKind::Text => Some(Value::from(text)),
            FieldKind::Boolean => match text.to_lowercase().as_str() {
                "true" | "yes" | "y" | "on" | "1" => Some(Value::from(true)),
                "false" | "no" | "n" | "off" | "0" => Some(Value::from(false)),
                _ => None,
            },
            FieldKind::Integer => text.parse::<i64>().ok().map(Value::from),
            FieldKind::Number => text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from),
            FieldKind::Choice => self.choice(text).map(Value::from),
            FieldKind::Choices => self.chosen(text).map(Value::from),
        }
    }

    fn choice(&self, text: &str) -> Option<&str> {
        let choices = || self.choices.iter().map(String::as_str);
        let text = text.trim();
        choices().find(|choice| *choice == text).or_else(|| choices().find(|choice| choice.eq_ignore_ascii_case(text)))
    }

    /// Several choices, separated by commas; all of them, or it is free text.
    fn chosen(&self, text: &str) -> Option<Vec<&str>> {
        if let Some(choice) = self.choice(text) {
            return Some(vec![choice]);
        }
        text.split(',').filter(|part| !part.trim().is_empty()).map(|part| self.choice(part)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::acp::wire;

    fn form(json: &Value) -> (Vec<Field>, Vec<Question>) {
        questions(&wire::read(&json.to_string()))
    }

    fn per_question(given: &[(&str, &str)]) -> Answer {
        Answer::PerQuestion(given.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect())
    }

    #[test]
    fn questions_with_choices_take_free_text_in_their_custom_property() {
        let json = r#"{"mode":"form","message":"Please answer the following questions.","requestedSchema":{"type":"object","properties":{
            "question_0":{"type":"string","title":"Colour","description":"Which colour?","oneOf":[{"const":"Red","title":"Red — warm"},{"const":"Blue"}]},
            "question_0_custom":{"type":"string","title":"Other"},
            "question_1":{"type":"array","description":"Which toppings?","items":{"anyOf":[{"const":"A, B"},{"const":"C"},{"const":"D"}]}},
            "question_1_custom":{"type":"string","title":"Other"}}}}"#;
        let (fields, questions) = questions(&wire::read(json));
        let shown: Vec<_> =
            questions.iter().map(|q| (q.question.as_str(), q.header.as_deref(), q.multi_select)).collect();
        assert_eq!(shown, [("Which colour?", Some("Colour"), false), ("Which toppings?", None, true)]);
        assert_eq!(questions[0].options[0].description.as_deref(), Some("Red — warm"));

        let say = |given: &[(&str, &str)]| answered(&fields, &questions, &per_question(given))["content"].clone();
        assert_eq!(
            say(&[("Which colour?", "blue"), ("Which toppings?", "C, D")]),
            json!({"question_0": "Blue", "question_1": ["C", "D"]}),
        );
        assert_eq!(say(&[("Which toppings?", "A, B")]), json!({"question_1": ["A, B"]}));
        assert_eq!(
            say(&[("Which colour?", "Mauve"), ("Which toppings?", "C and cheese")]),
            json!({"question_0_custom": "Mauve", "question_1_custom": "C and cheese"}),
        );
        let text = answered(&fields, &questions, &Answer::Text("Red".to_owned()));
        assert_eq!(text, json!({"action": "accept", "content": {"question_0": "Red"}}));
    }

    #[test]
    fn plain_properties_are_typed_by_the_schema() {
        let schema = json!({"message": "Sign up", "requestedSchema": {"properties": {
            "a": {"type": "boolean", "title": "Agree?"},
            "b": {"type": "integer", "title": "Age"},
            "c": {"type": "number", "title": "Size"},
            "d": {"type": "string", "title": "Name", "description": "Your name"},
            "e": {"type": "string", "title": "Plan", "enum": ["free", "paid"]},
        }, "required": ["d"]}});
        let (fields, questions) = form(&schema);
        let given = [("Agree?", "Yes"), ("Age", "41"), ("Size", "1.5"), ("Your name", "Ada"), ("Plan", "PAID")];
        assert_eq!(
            answered(&fields, &questions, &per_question(&given))["content"],
            json!({"a": true, "b": 41, "c": 1.5, "d": "Ada", "e": "paid"}),
        );
        let given = [("Agree?", "perhaps"), ("Age", "old"), ("Your name", "Ada"), ("Plan", "other")];
        assert_eq!(answered(&fields, &questions, &per_question(&given))["content"], json!({"d": "Ada"}));
        assert_eq!(answered(&fields, &questions, &per_question(&[("Age", "41")])), declined());
    }

    #[test]
    fn what_is_not_a_form_has_no_questions() {
        for request in [
            json!({"mode": "url", "url": "https://example.com", "message": "Log in"}),
            json!({"message": "Go on?", "requestedSchema": {"type": "object", "properties": {}}}),
            json!({"message": "Go on?", "requestedSchema": "none"}),
            json!({}),
        ] {
            assert!(form(&request).1.is_empty(), "{request}");
        }
    }
}
