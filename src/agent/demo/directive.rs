//! What a prompt tells the demo agent to do.
//!
//! A prompt is read line by line. A line that starts with a directive's word is that directive;
//! neighbouring lines that are none are one text, which is said back.

use std::collections::VecDeque;
use std::time::Duration;

use super::wire::Usage;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Directive {
    /// `/say TEXT`, and any line that is no directive: TEXT, a word with its following space a token.
    Say(String),
    /// `/tokens N [INTERVAL_MS]`: N tokens `t1 `, `t2 `, …
    Tokens { count: u64, interval: Duration },
    /// `/tool COMMAND`: tool `Bash`.
    Tool(String),
    /// `/parallel A && B`: two at once, results in reverse order.
    Parallel(String, String),
    /// `/ask QUESTION | A | B`, several questions separated by `||`: waits for the answer, says it.
    /// `/ask-several`: the same, but several options may be chosen.
    Ask(Vec<Question>),
    /// `/image NAME`: writes a PNG to the workspace and shows it.
    Image(String),
    /// `/continue N`: stops at the turn limit N times.
    Continue(u64),
    /// `/usage IN OUT [COST]`: what the next stop reports; a turn that has one reports nothing else, so
    /// that its sum is what it says. Without COST the cost is not told.
    Usage(Usage),
    /// `/big BYTES`: a tool result of that many bytes.
    Big(usize),
    /// `/sleep MS`: silence.
    Sleep(Duration),
    /// `/remember TEXT`: keeps TEXT in the workspace.
    Remember(String),
    /// `/recall`: says what was kept.
    Recall,
    /// `/env NAME`: says an environment variable.
    Env(String),
    /// `/id`: says uid, pid and host name.
    Id,
    /// `/fail MESSAGE`: reports an error, which ends the turn.
    Fail(String),
    /// `/crash CODE`: exits.
    Crash(i32),
    /// `/hang`: stops responding.
    Hang,
    /// `/orphan`: a tool use without a result, which ends the turn.
    Orphan,
    /// `/twice`: a tool use with two results.
    Twice,
    /// `/garbage`: three lines that are none.
    Garbage,
}

/// A question with its choices.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Question {
    pub(super) text: String,
    pub(super) options: Vec<String>,
    /// Whether more than one may be chosen.
    pub(super) several: bool,
}

/// The most bytes that `/big` puts out: well over the gateway's line limit, well under the memory of
/// small containers.
const BIG_BYTES: usize = 64 << 20;

/// What `prompt` tells, in order.
pub(super) fn read_prompt(prompt: &str) -> VecDeque<Directive> {
    let mut directives = VecDeque::new();
    let mut text: Vec<&str> = Vec::new();
    for line in prompt.split('\n') {
        if let Some(directive) = read_line(line) {
            say_back(&mut text, &mut directives);
            directives.push_back(directive);
        } else {
            text.push(line);
        }
    }
    say_back(&mut text, &mut directives);
    directives
}

fn say_back(text: &mut Vec<&str>, directives: &mut VecDeque<Directive>) {
    // As it came, so that prompts can test what is done to line ends, blank lines and code fences.
    let text = std::mem::take(text).join("\n");
    if !text.trim().is_empty() {
        directives.push_back(Directive::Say(format!("You said: {text}")));
    }
}

/// The directive of a line; `None` for text. One that lacks something says how it is used.
fn read_line(line: &str) -> Option<Directive> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let rest_or_none = (!rest.trim().is_empty()).then_some(rest);
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (usage, directive) = match word {
        "/say" => ("/say TEXT", Some(Directive::Say(rest.to_owned()))),
        "/tokens" => ("/tokens N [INTERVAL_MS]", tokens(&words)),
        "/tool" => ("/tool COMMAND", rest_or_none.map(|command| Directive::Tool(command.to_owned()))),
        "/parallel" => ("/parallel A && B", parallel(rest)),
        "/ask" => ("/ask QUESTION | A | B", ask(rest, false)),
        "/ask-several" => ("/ask-several QUESTION | A | B", ask(rest, true)),
        "/image" => ("/image NAME", rest_or_none.map(|name| Directive::Image(name.trim().to_owned()))),
        "/continue" => ("/continue N", number(&words).map(Directive::Continue)),
        "/usage" => ("/usage IN OUT COST", usage_of(&words)),
        "/big" => ("/big BYTES, at most 67108864", number(&words).filter(|n| *n <= BIG_BYTES).map(Directive::Big)),
        "/sleep" => ("/sleep MS", number(&words).map(|ms| Directive::Sleep(Duration::from_millis(ms)))),
        "/remember" => ("/remember TEXT", rest_or_none.map(|text| Directive::Remember(text.to_owned()))),
        "/recall" => ("/recall", Some(Directive::Recall)),
        "/env" => ("/env NAME", rest_or_none.map(|name| Directive::Env(name.trim().to_owned()))),
        "/id" => ("/id", Some(Directive::Id)),
        "/fail" => ("/fail MESSAGE", Some(Directive::Fail(rest_or_none.unwrap_or("told to fail").trim().to_owned()))),
        "/crash" => ("/crash CODE", if words.is_empty() { Some(1) } else { number(&words) }.map(Directive::Crash)),
        "/hang" => ("/hang", Some(Directive::Hang)),
        "/orphan" => ("/orphan", Some(Directive::Orphan)),
        "/twice" => ("/twice", Some(Directive::Twice)),
        "/garbage" => ("/garbage", Some(Directive::Garbage)),
        _ => return None,
    };
    Some(directive.unwrap_or_else(|| Directive::Say(format!("Usage: {usage}"))))
}

fn number<T: std::str::FromStr>(words: &[&str]) -> Option<T> {
    words.first()?.parse().ok()
}

fn tokens(words: &[&str]) -> Option<Directive> {
    let interval_ms = if words.len() < 2 { 0 } else { number(&words[1..])? };
    Some(Directive::Tokens { count: number(words)?, interval: Duration::from_millis(interval_ms) })
}

fn parallel(rest: &str) -> Option<Directive> {
    let (first, second) = rest.split_once("&&")?;
    let (first, second) = (first.trim(), second.trim());
    (!first.is_empty() && !second.is_empty()).then(|| Directive::Parallel(first.to_owned(), second.to_owned()))
}

fn ask(rest: &str, several: bool) -> Option<Directive> {
    let questions: Option<Vec<_>> = rest
        .split("||")
        .map(|question| {
            let mut parts = question.split('|').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned);
            Some(Question { text: parts.next()?, options: parts.collect(), several })
        })
        .collect();
    questions.map(Directive::Ask)
}

fn usage_of(words: &[&str]) -> Option<Directive> {
    let [input, output, cost @ ..] = words else { return None };
    let cost_usd = match cost {
        [] => None,
        [cost, ..] => Some(cost.parse::<f64>().ok().filter(|cost| cost.is_finite() && *cost >= 0.0)?),
    };
    Some(Directive::Usage(Usage { input_tokens: input.parse().ok()?, output_tokens: output.parse().ok()?, cost_usd }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(prompt: &str, expected: &[Directive]) {
        assert_eq!(Vec::from(read_prompt(prompt)), expected, "{prompt:?}");
    }

    fn say(text: &str) -> Directive {
        Directive::Say(text.to_owned())
    }

    #[test]
    fn lines_that_are_no_directives_are_one_text_as_it_came() {
        check("hello", &[say("You said: hello")]);
        check("a  \r\n\n\n```\nb", &[say("You said: a  \r\n\n\n```\nb")]);
        check("/sayhello /id\n /id", &[say("You said: /sayhello /id\n /id")]);
        check("/unknown x", &[say("You said: /unknown x")]);
        check("a\n/id\n\n/id\r\nb\n", &[say("You said: a"), Directive::Id, Directive::Id, say("You said: b\n")]);
        check(" \n", &[]);
    }

    #[test]
    fn directives_take_what_they_need() {
        let question = |question: &str, options: &[&str]| Question {
            text: question.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            several: false,
        };
        let several = Question { several: true, ..question("Which?", &["A", "B"]) };
        check("/say  two  spaces ", &[say(" two  spaces ")]);
        check("/tokens 3", &[Directive::Tokens { count: 3, interval: Duration::ZERO }]);
        check("/tokens 3 20", &[Directive::Tokens { count: 3, interval: Duration::from_millis(20) }]);
        check("/tool ls -l | wc", &[Directive::Tool("ls -l | wc".to_owned())]);
        check("/parallel a b && c", &[Directive::Parallel("a b".to_owned(), "c".to_owned())]);
        check("/ask Which one? | A | B c", &[Directive::Ask(vec![question("Which one?", &["A", "B c"])])]);
        check("/ask Why? || When? | now", &[Directive::Ask(vec![question("Why?", &[]), question("When?", &["now"])])]);
        check("/ask-several Which? | A | B", &[Directive::Ask(vec![several])]);
        check("/usage 1 2 0.5", &[Directive::Usage(Usage { input_tokens: 1, output_tokens: 2, cost_usd: Some(0.5) })]);
        check("/usage 1 2", &[Directive::Usage(Usage { input_tokens: 1, output_tokens: 2, cost_usd: None })]);
        check("/crash 3\n/crash", &[Directive::Crash(3), Directive::Crash(1)]);
        check("/fail no luck\r", &[Directive::Fail("no luck".to_owned())]);
    }

    #[test]
    fn a_directive_that_lacks_something_says_how_it_is_used() {
        for (prompt, usage) in [
            ("/tokens", "/tokens N [INTERVAL_MS]"),
            ("/tokens 1 x", "/tokens N [INTERVAL_MS]"),
            ("/tool ", "/tool COMMAND"),
            ("/parallel a", "/parallel A && B"),
            ("/ask |", "/ask QUESTION | A | B"),
            ("/usage 1 2 -3", "/usage IN OUT COST"),
            ("/usage 1", "/usage IN OUT COST"),
            ("/big 99999999999", "/big BYTES, at most 67108864"),
            ("/sleep soon", "/sleep MS"),
            ("/crash x", "/crash CODE"),
        ] {
            check(prompt, &[say(&format!("Usage: {usage}"))]);
        }
    }
}
