//! What a session is called that nobody has given a title: the first words of its first prompt.

/// A title's length, in characters, before the `…` that says that there is more.
const LENGTH: usize = 60;
/// The least of it that is kept so that it ends with a word.
const LEAST: usize = 40;

/// The first line of a prompt that says something, without marks of Markdown before it; `None` if there is none.
pub(super) fn title_of(prompt: &str) -> Option<String> {
    let line = prompt.lines().map(words).find(|line| !line.is_empty())?;
    let unmarked = line.trim_start_matches(['#', '>', '*', '-', ' ']);
    let line = if unmarked.is_empty() { line.as_str() } else { unmarked };
    let Some((end, _)) = line.char_indices().nth(LENGTH) else { return Some(line.to_owned()) };
    let least = line.char_indices().nth(LEAST).map_or(end, |(least, _)| least);
    let is_word = line[end..].starts_with(' ');
    let space = line[..end].rfind(' ').filter(|space| !is_word && *space >= least);
    let end = space.unwrap_or(end);
    Some(format!("{}…", line[..end].trim_end()))
}

/// The words of a line, one space apart; what only controls a terminal is left out.
fn words(line: &str) -> String {
    let words = line.split_whitespace().map(|word| word.replace(char::is_control, ""));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{LENGTH, title_of};
    use crate::protocol::client::NAME_BYTES;

    #[track_caller]
    fn check(prompt: &str, title: &str) {
        assert_eq!(title_of(prompt).as_deref(), Some(title), "{prompt:?}");
    }

    #[test]
    fn a_title_is_the_first_line_that_says_something() {
        check("Plan a trip", "Plan a trip");
        check("\n \t\r\n# Plan  a\ttrip to *Lisbon* \r\n\n- trains", "Plan a trip to *Lisbon*");
        check("> - quoted", "quoted");
        check("---", "---");
        check("\u{1b}[1mbold\u{7} \u{0} words\u{7f}", "[1mbold words");
        check("早く", "早く");
        assert_eq!(title_of(" \n\u{7}\n"), None);
        assert_eq!(title_of(""), None);
    }

    #[test]
    fn a_long_title_is_cut_after_a_word() {
        let sixty = "x".repeat(LENGTH);
        check(&sixty, &sixty);
        check(&format!("{sixty} more"), &format!("{sixty}…"));
        check(&format!("{sixty}y"), &format!("{sixty}…"));
        check(&format!("{} {}", "x".repeat(50), "y".repeat(20)), &format!("{}…", "x".repeat(50)));
        check(&format!("short {}", "y".repeat(80)), &format!("short {}…", "y".repeat(54)));
        check(&"🦀".repeat(100), &format!("{}…", "🦀".repeat(LENGTH)));
    }

    #[test]
    fn a_title_is_one_that_could_have_been_given() {
        let widest = title_of(&"\u{10ffff}".repeat(1_000)).unwrap();
        assert!(widest.len() <= NAME_BYTES, "{}", widest.len());
    }
}
