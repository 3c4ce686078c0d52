//! What polish does, what it leaves alone, and that no text is too much for it.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::protocol::event::{LINK_CLOSE, LINK_OPEN};
use crate::protocol::link::fill_links_in_text;

/// Shows placeholders as `<<path>>`.
fn polished(text: &str) -> String {
    polish(text).replace(LINK_OPEN, "<<").replace(LINK_CLOSE, ">>")
}

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(polished(text), expected, "from {text:?}");
}

#[track_caller]
fn untouched(text: &str) {
    check(text, text);
}

#[test]
fn line_ends_become_lf_and_control_marks_go() {
    check("a\r\nb\rc\nd\r\r\ne", "a\nb\nc\nd\n\ne");
    check("a\0b\u{1}c\r\0\nd", "abc\nd");
    check("```\r\na \r\n```\r\n", "```\na \n```\n");
}

#[test]
fn trailing_space_goes_outside_code_only() {
    check("a  \nb\t \n \t\nc ", "a\nb\n\nc");
    check("```sh \na  \n\t\n```  \nb  ", "```sh\na  \n\t\n```\nb");
    check("> ```\n> a  \n> ```  \n> b  ", "> ```\n> a  \n> ```\n> b");
    check("a\n\n    code  \n    more\n\nb ", "a\n\n    code  \n    more\n\nb");
    untouched("some `code  \nspan`");
    untouched("a\u{a0}\nb\u{3000}");
}

#[test]
fn of_several_blank_lines_one_remains_outside_code() {
    check("a\n\n\n\nb\n \n\t\n\nc\n\n\n", "a\n\nb\n\nc\n\n");
    check("\n\n\na", "\na");
    untouched("```\n\n\n\na\n\n\n```\n");
    untouched("    a\n\n\n\n    b\n");
    check("```\na\n```\n\n\n\n```\n\n\nb\n```", "```\na\n```\n\n```\n\n\nb\n```");
}

#[test]
fn an_unclosed_fence_is_closed_by_its_own_kind() {
    check("```", "```\n```");
    check("```rust\nfn", "```rust\nfn\n```");
    check("a\n```rust\nfn\n", "a\n```rust\nfn\n```\n");
    check("~~~~\n```\n~~~\n", "~~~~\n```\n~~~\n~~~~\n");
    check("  ````\n```", "  ````\n```\n  ````");
    check("```\na\n    ```\n", "```\na\n    ```\n```\n");
    check("```\na\n``` x\n", "```\na\n``` x\n```\n");
    check("- a\n\n  ```\n  b", "- a\n\n  ```\n  b\n  ```");
    check("1. ```sh\n   b\n", "1. ```sh\n   b\n   ```\n");
    check("> - ```\n>   b\n", "> - ```\n>   b\n>   ```\n");
    check("> ```\n> b\n\nc\n", "> ```\n> b\n> ```\n\nc\n");
    check("[^1]: ```\n    b\n", "[^1]: ```\n    b\n      ```\n");
    for closed in ["```\n```", "```\n```\n", "~~~ x\n~~~~~\n", "> ```\n> ```\n", "- ```\n  a\n  ```\n", "```a```", "``"]
    {
        untouched(closed);
    }
}

#[test]
fn links_and_images_to_files_of_the_workspace_become_placeholders() {
    check("![chart](out/chart.png)", "![chart](<<out/chart.png>>)");
    check(
        "[a](/workspace/a.md) [b](file:///workspace/b) [c](sandbox:/workspace/c)",
        "[a](<<a.md>>) [b](<<b>>) [c](<<c>>)",
    );
    check("[a]( ./a.md  'the title' )", "[a]( <<a.md>>  'the title' )");
    check("[a](<my file (1).md> \"t\")", "[a](<<my%20file%20%281%29.md>> \"t\")");
    check("[a](f(1).md) [b](a\\)b.md) [c](a&amp;b.md)", "[a](<<f%281%29.md>>) [b](<<a%29b.md>>) [c](<<a%26b.md>>)");
    check("[](a.md) ![](b.png)", "[](<<a.md>>) ![](<<b.png>>)");
    check("[![alt](a.png)](b.md)", "[![alt](<<a.png>>)](<<b.md>>)");
    check("[**x** `](y)` ](a.md)", "[**x** `](y)` ](<<a.md>>)");
    check("[x\\](y)](a.md)", "[x\\](y)](<<a.md>>)");
    check("> [a](\n> a.md)\n", "> [a](\n> <<a.md>>)\n");
    check("| a |\n|---|\n| ![x](a.png) |\n", "| a |\n|---|\n| ![x](<<a.png>>) |\n");
    check("[a](a.md#x) [b](b.md?v=1#y)", "[a](<<a.md>>#x) [b](<<b.md>>&v=1#y)");
    check("[é](bild-ü.png)", "[é](<<bild-%C3%BC.png>>)");
    check("[a](./a.md  \n\"t\")", "[a](<<a.md>>\n\"t\")");
}

#[test]
fn references_are_edited_where_they_are_defined() {
    check("[a][x] ![b][X] [x]\n\n[x]: a.png \"t\"\n", "[a][x] ![b][X] [x]\n\n[x]: <<a.png>> \"t\"\n");
    check("[x\\]y][]\n\n[x\\]y]: <a b.png>\n", "[x\\]y][]\n\n[x\\]y]: <<a%20b.png>>\n");
    check("> [x]\n>\n> [x]:\n> a.png\n", "> [x]\n>\n> [x]:\n> <<a.png>>\n");
    untouched("[INFO]: Starting\n");
    untouched("a[^1]\n\n[^1]: word\n");
    untouched("[a][x]\n\n[x]: https://a.test/b\n");
}

#[test]
fn autolinks_keep_their_text() {
    check("<file:///workspace/a_b.png>", "[file:///workspace/a\\_b.png](<<a_b.png>>)");
    check("<sandbox:/workspace/a.png>.", "[sandbox:/workspace/a.png](<<a.png>>).");
    untouched("<https://a.test/b> <me@a.test> <a.png>");
}

#[test]
fn images_and_links_in_html_are_links_too() {
    check("<img alt=\"x\" src=\"a.png\" width=3>\n", "<img alt=\"x\" src=\"<<a.png>>\" width=3>\n");
    check("x <IMG SRC='/workspace/a b.png'/> y", "x <IMG SRC='<<a%20b.png>>'/> y");
    check("<p>\n<a\n href=a.md?x&amp;y>t</a>\n</p>\n", "<p>\n<a\n href=\"<<a.md>>&x&y\">t</a>\n</p>\n");
    check("<img src=a.png> x", "<img src=\"<<a.png>>\"> x");
    untouched("<!-- <img src=\"a.png\"> -->\n");
    untouched("<img src=\"https://a.test/b\" data-src=\"a.png\"> <b title=\"<img src='a.png'>\">x</b>");
    untouched("<script src=\"a.js\"></script>\n");
    untouched("<img src=\"a.png\n");
}

#[test]
fn other_addresses_and_code_are_left_alone() {
    untouched(
        "[a](https://a.test/b) ![b](//a.test/b) [c](mailto:a@b.c) [d](#e) ![f](data:image/png;base64,AA==) [g]()",
    );
    untouched("[a](../a.md) [b](/etc/passwd) [c](file:///etc/passwd) [d](/workspace) [e](dir/)");
    untouched("`[a](a.md)` and ``![b](b.png)``\n\n```md\n[a](a.md)\n![b](b.png)\n```\n\n    [a](a.md)\n");
    untouched("\\[a](a.md) [a] (a.md) streamgate-file:a.png");
}

#[test]
fn deep_nesting_and_long_titles_are_polished_up_to_a_limit() {
    for (prefix, deepest) in [("> ", 66), ("- ", 66), ("1. ", 66), (">", 100)] {
        let within = prefix.repeat(deepest);
        check(&format!("{within}[a](a.md) "), &format!("{within}[a](<<a.md>>)"));
        untouched(&format!("{prefix}{within}{prefix}[a](a.md) "));
    }
    let title = "t\n".repeat(200);
    check(&format!("[a](a.md \"{title}\") "), &format!("[a](<<a.md>> \"{title}\")"));
    untouched(&format!("[a](a.md \"t\n{title}\") "));
    let depth = "(".repeat(33) + &")".repeat(33);
    untouched(&format!("[a](a{depth})"));
}

#[test]
fn an_agent_can_not_forge_a_placeholder() {
    let forged = format!("[a]({LINK_OPEN}x{LINK_CLOSE}) {LINK_OPEN}a.png{LINK_CLOSE}");
    assert_eq!(polish(&forged), "[a](streamgate-file:x) streamgate-file:a.png");
}

/// What parsers are slow at when it is repeated.
#[rustfmt::skip]
const HOSTILE: &[&str] = &[
    "[", "![", "]", "[a](", "[a](b", "[](a)", "<", "<a ", "<a href=\"", "<img src='", "<!--", "`", "``` ", "```\n",
    "~~~\n", "> ", "- ", "> ```\n", "- ```\n", "\n", " \n", " ", "\t", "\\", "(", "*a", "_a_", "[a]: b\n", "[a]",
    "[^a]", "|a", "|a|\n|-|\n", "[a](<", "[a](\n", "&amp;", "<![CDATA[", "<?", "`a``b```", "1. ", "a\r", "\0",
    "[^a]: ", "![a](b.png \"", "<file:///workspace/a>", "    a\n\n\n", "[a\\](", "**", "a**b", "$", "<p>\n",
    "- a\n\n",
];

#[test]
fn hostile_text_takes_time_in_proportion_to_its_length() {
    const SIZE: usize = 1 << 17;
    let mut texts: Vec<String> = HOSTILE.iter().map(|unit| unit.repeat(SIZE / unit.len())).collect();
    for opening in ["> ", "- ", "1. ", "[a](b '", "[a](b (", "![a](b \"\\\""] {
        texts.push(format!("{}{}", opening.repeat(SIZE / 8), "a\n".repeat(SIZE / 2)));
    }
    texts.push(format!("[a]:{}b\n\n{}", " ".repeat(SIZE), "[a] ".repeat(SIZE / 4)));
    for text in texts {
        let started = Instant::now();
        polish(&text);
        // Some tenths of a second on a slow machine; many minutes if it grew with the square.
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", &text[..20]);
    }
}

/// Pieces of Markdown that make its corner cases likely.
fn markdown(with_links: bool) -> impl Strategy<Value = String> {
    let plain = prop_oneof![
        Just("```"),
        Just("~~~"),
        Just("~~~~"),
        Just("`"),
        Just("> "),
        Just("- "),
        Just("1. "),
        Just("    "),
        Just("  "),
        Just(" "),
        Just("\t"),
        Just("\n"),
        Just("\n\n"),
        Just("\r\n"),
        Just("\n\n\n"),
        Just("a"),
        Just("é"),
        Just("# "),
        Just("*"),
        Just("\\"),
        Just("|"),
        Just("---"),
        Just("<b>"),
        Just("<pre>"),
        Just("&amp;"),
    ];
    let links = prop_oneof![
        Just("["),
        Just("]"),
        Just("!["),
        Just("]("),
        Just(")"),
        Just("a.png"),
        Just("<"),
        Just(">"),
        Just("<img src=\""),
        Just("\""),
        Just("[a]: "),
        Just("[a]"),
        Just("[^a]"),
        Just("..//"),
        Just("/workspace/"),
        Just("file:///workspace/"),
        Just("#"),
        Just("?"),
        Just("\0"),
        Just("\u{1}"),
        Just("<!--"),
        Just("="),
        Just("[a](b.png)"),
        Just("[a][a]"),
    ];
    let pieces = if with_links { prop_oneof![plain, links].boxed() } else { plain.boxed() };
    proptest::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn any_text_polishes_into_the_promised_form(text in prop_oneof![markdown(true), any::<String>()]) {
        let polished = polish(&text);
        prop_assert!(!polished.contains(['\0', '\r']));
        // Every U+0001 belongs to a placeholder that delivery can fill.
        let filled = fill_links_in_text(&polished, |_| "u".to_owned());
        prop_assert!(!filled.contains(LINK_CLOSE));
    }

    #[test]
    fn text_without_links_loses_only_space_and_gains_only_fences(text in markdown(false)) {
        let polished = polish(&text);
        let lines = |text: &str| -> Vec<String> {
            let trimmed = text.replace("\r\n", "\n").replace('\r', "\n");
            trimmed.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
        };
        let (before, after) = (lines(&text), lines(&polished));
        let mut kept = after.iter();
        for line in &before {
            prop_assert!(kept.any(|other| other == line), "{line:?} of {text:?} is not in {polished:?}");
        }
    }

    #[test]
    fn polishing_again_changes_nothing(text in markdown(false)) {
        let once = polish(&text);
        prop_assert_eq!(polish(&once), once);
    }

    #[test]
    fn tidy_words_come_out_as_they_went_in(text in "([a-zé.,]{1,9}( [a-zé.,]{1,9}){0,5}\n\n?){0,9}[a-z]") {
        prop_assert_eq!(polish(&text), text);
    }
}
