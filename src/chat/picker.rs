//! One question, being answered by keys. Pure: keys in, lines and the answer out.

use serde_json::Value;

use super::key::Key;
use super::screen::one_line;

/// The choices of a question, and what the user has made of them by now.
pub(super) struct Picker {
    choices: Vec<Choice>,
    /// Whether more than one may be chosen.
    several: bool,
    /// Where the user is: at a choice or, after the last, at words of their own.
    at: usize,
    words: String,
}

struct Choice {
    label: String,
    about: String,
    marked: bool,
}

impl Picker {
    /// The choices of `question`, as `task:ask_user` has it.
    pub(super) fn new(question: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let options = question["options"].as_array().into_iter().flatten();
        let choices = options
            .map(|option| Choice { label: text(&option["label"]), about: text(&option["description"]), marked: false })
            .collect();
        Self { choices, several: question["multiSelect"] == true, at: 0, words: String::new() }
    }

    /// Where the user is, as an index of [`Picker::lines`].
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Heeds a key. Returns the answer, once there is one.
    pub(super) fn press(&mut self, key: Key) -> Option<String> {
        match key {
            Key::Up => self.at = self.at.checked_sub(1).unwrap_or(self.choices.len()),
            Key::Down => self.at = (self.at + 1) % (self.choices.len() + 1),
            Key::Erase => drop(self.words.pop()),
            Key::EraseAll => self.words.clear(),
            Key::Character(character) => self.character(character),
            Key::Enter => return self.answer(),
            Key::Leave => (), // Not about the question.
        }
        None
    }

    fn character(&mut self, character: char) {
        if self.at == self.choices.len() {
            self.words.push(character);
            return;
        }
        let number = character.to_digit(10).and_then(|digit| (digit as usize).checked_sub(1));
        match (character, number) {
            (' ', _) if self.several => self.choices[self.at].marked ^= true,
            (_, Some(index)) if index < self.choices.len() => {
                self.at = index;
                self.choices[index].marked ^= self.several;
            }
            // Nobody's words begin with them; `1,3` is how several are said in one line.
            (' ' | ',', _) => (),
            _ => {
                self.at = self.choices.len();
                self.words.push(character);
            }
        }
    }

    /// What Enter means now; nothing, where words are to come.
    fn answer(&self) -> Option<String> {
        let words = Some(self.words.trim()).filter(|words| !words.is_empty());
        let here = self.choices.get(self.at).map(|choice| choice.label.as_str());
        if !self.several {
            return here.or(words).map(str::to_owned);
        }
        let marked = self.choices.iter().filter(|choice| choice.marked).map(|choice| choice.label.as_str());
        let mut answers: Vec<_> = marked.chain(words).collect();
        if answers.is_empty() {
            answers.extend(here);
        }
        (!answers.is_empty()).then(|| answers.join(", "))
    }

    /// What Enter would send in the user's own words.
    pub(super) fn words(&self) -> Option<&str> {
        (self.at == self.choices.len()).then_some(&self.words)
    }

    /// Forgets the words that were typed: they were no answer.
    pub(super) fn clear(&mut self) {
        self.words.clear();
        self.at = 0;
    }

    /// One line for every choice, and one for the user's own words.
    pub(super) fn lines(&self) -> Vec<String> {
        let pointer = |index| if index == self.at { '❯' } else { ' ' };
        let mut lines: Vec<_> = self
            .choices
            .iter()
            .enumerate()
            .map(|(index, choice)| {
                let mark = match (self.several, choice.marked) {
                    (false, _) => "",
                    (true, false) => "[ ] ",
                    (true, true) => "[x] ",
                };
                let about =
                    if choice.about.is_empty() { String::new() } else { format!(": {}", one_line(&choice.about)) };
                format!("{} {}) {mark}{}{about}", pointer(index), index + 1, one_line(&choice.label))
            })
            .collect();
        let own = self.choices.len();
        lines.push(match (own, self.at == own, self.words.as_str()) {
            (0, ..) => format!("❯ {}", self.words),
            (_, false, "") => "  other…".to_owned(),
            _ => format!("{} other: {}", pointer(own), self.words),
        });
        lines
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn picker(several: bool) -> Picker {
        let options = json!([{ "label": "Red" }, { "label": "Green" }, { "label": "Blue", "description": "a sky" }]);
        Picker::new(&json!({ "question": "Which?", "options": options, "multiSelect": several }))
    }

    /// Types `keys`, where `↑`, `↓`, `⏎`, `⌫` and `⌦` stand for the keys without a letter. The answer, when the
    /// last of them gave one.
    fn typed(picker: &mut Picker, keys: &str) -> Option<String> {
        let mut answer = None;
        for key in keys.chars() {
            assert_eq!(answer, None, "answered before all was typed");
            answer = picker.press(match key {
                '↑' => Key::Up,
                '↓' => Key::Down,
                '⏎' => Key::Enter,
                '⌫' => Key::Erase,
                '⌦' => Key::EraseAll,
                other => Key::Character(other),
            });
        }
        answer
    }

    #[track_caller]
    fn check(several: bool, keys: &str, answer: &str) {
        let answer = (!answer.is_empty()).then(|| answer.to_owned());
        assert_eq!(typed(&mut picker(several), keys), answer, "{keys}");
    }

    #[test]
    fn arrows_and_numbers_choose_one() {
        check(false, "⏎", "Red");
        check(false, "↓⏎", "Green");
        check(false, "↓↓↑⏎", "Green");
        check(false, "3⏎", "Blue");
        check(false, "31⏎", "Red");
        check(false, "↑↑⏎", "Blue");
        check(false, "↓↓↓↓⏎", "Red");
    }

    #[test]
    fn space_and_numbers_mark_several() {
        check(true, " ↓↓ ⏎", "Red, Blue");
        check(true, "1,3⏎", "Red, Blue");
        check(true, "31⏎", "Red, Blue");
        check(true, "1 2⏎", "Green");
        check(true, "↓⏎", "Green");
    }

    #[test]
    fn whoever_types_answers_in_their_own_words() {
        check(false, "teal or so⏎", "teal or so");
        check(false, "↑7 reds⏎", "7 reds");
        check(false, "9 reds⏎", "9 reds");
        check(false, "tex⌫al⏎", "teal");
        check(false, "x⌦y⏎", "y");
        check(false, "teal↓⏎", "Red");
        check(true, "1teal⏎", "Red, teal");
        check(true, "↑teal⏎", "teal");
    }

    #[test]
    fn nothing_is_no_answer() {
        check(false, "↑⏎", "");
        check(false, "↑  ⏎", "");
        check(true, "↑⏎", "");
        check(true, "↑⏎↓⏎", "Red");
    }

    #[test]
    fn a_question_without_choices_is_answered_in_words() {
        let mut picker = Picker::new(&json!({ "question": "Why?", "options": [] }));
        assert_eq!(picker.lines(), ["❯ "]);
        assert_eq!(typed(&mut picker, "⏎ 42 times"), None);
        assert_eq!(picker.lines(), ["❯  42 times"]);
        assert_eq!(typed(&mut picker, "⏎"), Some("42 times".to_owned()));
    }

    #[test]
    fn the_lines_show_where_one_is_and_what_is_marked() {
        assert_eq!(picker(false).lines(), ["❯ 1) Red", "  2) Green", "  3) Blue: a sky", "  other…"]);
        let mut picker = picker(true);
        typed(&mut picker, "2teal");
        assert_eq!(picker.lines(), ["  1) [ ] Red", "  2) [x] Green", "  3) [ ] Blue: a sky", "❯ other: teal"]);
        assert_eq!(picker.at(), 3);
    }

    #[test]
    fn a_choice_can_not_steer_the_terminal_and_is_answered_as_it_is() {
        let label = "a\x1b[2J\nb\r";
        let mut picker = Picker::new(&json!({ "options": [{ "label": label, "description": "\x07c\nd" }] }));
        assert_eq!(picker.lines()[0], "❯ 1) a[2J b: c d");
        assert_eq!(typed(&mut picker, "⏎").as_deref(), Some(label));
    }
}
