//! What tools were called for and what came of it: a line each. What a line leaves out is kept for who wants
//! to see it.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use super::screen::{brief, one_line};

/// The longest line about a tool, and the longest name of a call in front of its result, in characters.
const LINE: usize = 100;
const NAME: usize = 40;
/// How many results are kept to be shown in full: they are no larger than the gateway lets them be.
const KEPT: usize = 20;

/// The calls of a session.
pub(super) struct Tools {
    /// Calls whose results have not come: id and words.
    open: Vec<(String, String)>,
    /// The call whose line was the last one about tools.
    last: Option<String>,
    /// Results of which a line showed a part, newest last.
    folded: VecDeque<Folded>,
    /// How many there have been.
    count: usize,
    /// Whether the user can ask for all of one.
    unfolds: bool,
}

/// A result of which a line showed a part.
struct Folded {
    call: String,
    output: String,
}

/// Which result the user wants to see in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Last,
    Numbered(usize),
}

impl Tools {
    pub(super) fn new(unfolds: bool) -> Self {
        Self { open: Vec::new(), last: None, folded: VecDeque::new(), count: 0, unfolds }
    }

    /// A tool was called: its line.
    pub(super) fn called(&mut self, event: &Map<String, Value>) -> String {
        let input = event.get("input").map(Value::to_string).unwrap_or_default();
        let call = format!("{} {input}", text(event, "tool"));
        let id = text(event, "tool_use_id");
        self.open.push((id.to_owned(), call.clone()));
        self.last = Some(id.to_owned());
        brief(&format!("⚙ {call}"), LINE)
    }

    /// What came of a call: its line. It names the call where that is not plain to see.
    pub(super) fn returned(&mut self, event: &Map<String, Value>) -> String {
        let id = text(event, "tool_use_id");
        let is_plain = self.open.len() <= 1 && self.last.take().is_some_and(|last| last == id);
        self.last = None;
        let open = self.open.iter().position(|(open, _)| open == id);
        let call = open.map_or_else(|| text(event, "tool").to_owned(), |open| self.open.remove(open).1);
        let mark = if event.get("is_error") == Some(&Value::Bool(true)) { "✗" } else { "→" };
        let name = if is_plain { String::new() } else { format!("{}: ", brief(&call, NAME)) };
        let result = self.fold(call, text(event, "output"));
        format!("  {mark} {name}{result}")
    }

    /// The task is over, and its calls with it.
    pub(super) fn ended(&mut self) {
        self.open.clear();
        self.last = None;
    }

    /// As much of `output` as a line holds, and how much more there is.
    fn fold(&mut self, call: String, output: &str) -> String {
        let whole = one_line(output);
        if brief(&whole, LINE) == whole {
            return whole;
        }
        let mut lines = output.lines().filter(|line| !line.trim().is_empty());
        let first = brief(lines.next().unwrap_or_default(), LINE);
        let more = match lines.count() {
            0 => String::new(),
            1 => "… 1 more line".to_owned(),
            more => format!("… {more} more lines"),
        };
        if !self.unfolds {
            return if more.is_empty() { first } else { format!("{first} ({more})") };
        }
        self.count += 1;
        self.folded.push_back(Folded { call, output: output.to_owned() });
        if self.folded.len() > KEPT {
            self.folded.pop_front();
        }
        let and = if more.is_empty() { "" } else { "; " };
        format!("{first} ({more}{and}/show {} for all)", self.count)
    }

    /// Which result a line of the user's asks for, if it asks for one and they are kept.
    pub(super) fn asked_for(&self, line: &str) -> Option<Wanted> {
        show_command(line).filter(|_| self.unfolds)
    }

    /// The call and all of a result that was folded, if it is still kept.
    pub(super) fn unfolded(&self, wanted: Wanted) -> Option<(String, &str)> {
        let newer = match wanted {
            Wanted::Last => 0,
            Wanted::Numbered(number) => self.count.checked_sub(number)?,
        };
        let folded = self.folded.iter().rev().nth(newer)?;
        Some((brief(&format!("⚙ {}", folded.call), LINE), folded.output.trim_end()))
    }
}

/// Which result `/show` or `/show N` asks for. Nothing but exactly these: all else is for the agent.
fn show_command(line: &str) -> Option<Wanted> {
    match line.trim_end().strip_prefix("/show")? {
        "" => Some(Wanted::Last),
        rest => rest.strip_prefix(' ')?.parse().ok().map(Wanted::Numbered),
    }
}

fn text<'a>(event: &'a Map<String, Value>, field: &str) -> &'a str {
    event.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(tools: &mut Tools, id: &str, command: &str) -> String {
        let event = json!({ "tool": "Bash", "input": { "command": command }, "tool_use_id": id });
        tools.called(event.as_object().unwrap())
    }

    fn result(tools: &mut Tools, id: &str, output: &str) -> String {
        let event = json!({ "tool": "Bash", "output": output, "tool_use_id": id });
        tools.returned(event.as_object().unwrap())
    }

    /// As many lines, numbered, and too long for one.
    fn lines(count: usize) -> String {
        let lines = (1..=count).map(|number| format!("{number} {}\n", "x".repeat(40)));
        lines.collect::<Vec<_>>().concat()
    }

    #[test]
    fn a_result_that_a_line_holds_is_shown_whole() {
        let mut tools = Tools::new(true);
        assert_eq!(call(&mut tools, "1", "ls"), r#"⚙ Bash {"command":"ls"}"#);
        assert_eq!(result(&mut tools, "1", "a\nb\n"), "  → a b");
        assert!(tools.unfolded(Wanted::Last).is_none());
    }

    #[test]
    fn a_long_result_is_folded_and_can_be_shown() {
        let mut tools = Tools::new(true);
        call(&mut tools, "1", "ls");
        let first = "x".repeat(40);
        let line = result(&mut tools, "1", &lines(13));
        assert_eq!(line, format!("  → 1 {first} (… 12 more lines; /show 1 for all)"));
        call(&mut tools, "2", "cat");
        let line = result(&mut tools, "2", &"y".repeat(101));
        assert_eq!(line, format!("  → {}… (/show 2 for all)", "y".repeat(100)));
        let (call, all) = tools.unfolded(Wanted::Numbered(1)).unwrap();
        assert_eq!((call.as_str(), all), (r#"⚙ Bash {"command":"ls"}"#, lines(13).trim_end()));
        assert_eq!(tools.unfolded(Wanted::Last).unwrap().1, "y".repeat(101));
        for wrong in [0, 3, 4] {
            assert!(tools.unfolded(Wanted::Numbered(wrong)).is_none(), "{wrong}");
        }
    }

    #[test]
    fn the_oldest_results_are_forgotten() {
        let mut tools = Tools::new(true);
        for number in 1..=KEPT + 1 {
            result(&mut tools, "", &format!("{number}\n{}", lines(3)));
        }
        assert!(tools.unfolded(Wanted::Numbered(1)).is_none());
        assert!(tools.unfolded(Wanted::Numbered(2)).unwrap().1.starts_with("2\n"));
    }

    #[test]
    fn where_nobody_can_ask_nothing_is_kept() {
        let mut tools = Tools::new(false);
        call(&mut tools, "1", "ls");
        assert!(result(&mut tools, "1", &lines(13)).ends_with("x (… 12 more lines)"));
        assert!(tools.folded.is_empty());
    }

    #[test]
    fn results_of_calls_side_by_side_say_whose_they_are() {
        let mut tools = Tools::new(true);
        call(&mut tools, "1", "a");
        call(&mut tools, "2", "b");
        assert_eq!(result(&mut tools, "2", "B"), r#"  → Bash {"command":"b"}: B"#);
        assert_eq!(result(&mut tools, "1", "A"), r#"  → Bash {"command":"a"}: A"#);
        call(&mut tools, "3", "c");
        assert_eq!(result(&mut tools, "3", "C"), "  → C");
    }

    #[test]
    fn only_the_exact_words_are_not_for_the_agent() {
        assert_eq!(show_command("/show"), Some(Wanted::Last));
        assert_eq!(show_command("/show 12 "), Some(Wanted::Numbered(12)));
        for prompt in [" /show", "/show me", "/shows", "/show 1 2", "/show  1", "/show -1", "/show it", "show"] {
            assert_eq!(show_command(prompt), None, "{prompt}");
        }
    }
}
