//! The text of a turn as it is journalled: normalized Markdown whose links to workspace files are
//! placeholders (docs/protocol.md §2, "Polish").
//!
//! Used by `invariants` when a turn ends; `protocol::link` turns the placeholders into addresses on
//! delivery. A Markdown parser only says where things are: the agent's own bytes are edited in
//! place and never rendered anew, so what needs no polish comes out as it went in.

mod hostile;
mod html;
mod target;

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, CowStr, Event, LinkType, Options, Parser, Tag, TagEnd};

use target::placeholder_for;

/// Tables change what a code span is, and without footnotes `[^1]: word` would be a link.
const DIALECT: Options = Options::ENABLE_TABLES.union(Options::ENABLE_FOOTNOTES);

/// Polishes a turn's text:
///
/// * U+0000 and U+0001 are removed; every line ends by LF.
/// * Outside code, trailing spaces and tabs go (so a hard break by two spaces does too) and at most
///   one blank line remains of several. Code spans and code blocks keep theirs.
/// * A fence that its block leaves open is closed by its own kind, at its own indentation.
/// * Links and images that name a file of the workspace point to a placeholder: inline ones, the
///   definitions that references use, autolinks (which keep their text), and `<img src>` and
///   `<a href>` in HTML. Text, titles and what is in code are left alone, as are other addresses.
///
/// Polished text without such links is its own polish; placeholders don't survive a second one.
/// Text that is made to keep a Markdown parser busy for minutes gets only the first of these rules.
pub fn polish(text: &str) -> String {
    let text = normalize_characters(text);
    if hostile::is_hostile(&text) {
        return text.into_owned();
    }
    let mut survey = Survey::of(&text);
    tidy_lines(&text, &survey.code, &mut survey.edits);
    apply(&text, survey.edits)
}

/// U+0001 marks our placeholders, so nobody else's may be left; U+0000 is no text.
fn normalize_characters(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', '\u{1}', '\r']) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(['\0', '\u{1}'], "").replace("\r\n", "\n").replace('\r', "\n"))
}

/// Bytes of the text, and what takes their place.
struct Edit {
    range: Range<usize>,
    with: String,
}

fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    // An insertion goes before what is removed at the same place.
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let mut edited = String::with_capacity(text.len());
    let mut done = 0;
    for Edit { range, with } in edits {
        if range.start >= done {
            edited.push_str(&text[done..range.start]);
            edited.push_str(&with);
            done = range.end;
        }
    }
    edited.push_str(&text[done..]);
    edited
}

/// Removes trailing space and surplus blank lines outside `code`, which is in order.
fn tidy_lines(text: &str, code: &[Range<usize>], edits: &mut Vec<Edit>) {
    let mut code = code.iter().peekable();
    let mut blank_before = false;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let next = start + line.len();
        let end = start + line.strip_suffix('\n').unwrap_or(line).len();
        let kept = start + text[start..end].trim_end_matches([' ', '\t']).len();
        while code.next_if(|range| range.end < end || range.end == start).is_some() {}
        let is_code = code.peek().is_some_and(|range| range.start <= kept && end <= range.end);
        let blank = kept == start && !is_code;
        if blank && blank_before {
            edits.push(Edit { range: start..next, with: String::new() });
        } else if kept < end && !is_code {
            edits.push(Edit { range: kept..end, with: String::new() });
        }
        blank_before = blank;
        start = next;
    }
}

/// What the parser finds: where code is, and the edits of links and fences.
#[derive(Default)]
struct Survey {
    code: Vec<Range<usize>>,
    edits: Vec<Edit>,
    /// Where the reference definitions begin that have been looked at: each is used any number of times.
    definitions: HashSet<usize>,
}

/// A link or image whose end has not come yet.
struct OpenLink<'a> {
    kind: LinkType,
    destination: CowStr<'a>,
    /// Where the last thing in its text ends.
    text_end: usize,
}

/// A code block whose end has not come yet.
struct OpenCode {
    fenced: bool,
    /// Where the last thing in it ends.
    content_end: usize,
}

impl Survey {
    fn of(text: &str) -> Self {
        let mut survey = Self::default();
        let mut links: Vec<OpenLink<'_>> = Vec::new();
        let mut code: Option<OpenCode> = None;
        let mut events = Parser::new_ext(text, DIALECT).into_offset_iter();
        while let Some((event, range)) = events.next() {
            let end = range.end;
            match event {
                Event::Start(
                    Tag::Link { link_type, dest_url, id, .. } | Tag::Image { link_type, dest_url, id, .. },
                ) => {
                    let marker = if text[range.start..].starts_with('!') { 2 } else { 1 };
                    let definition = events.reference_definitions().get(&id);
                    let is_reference =
                        matches!(link_type, LinkType::Reference | LinkType::Collapsed | LinkType::Shortcut);
                    if let Some(definition) = definition.filter(|_| is_reference) {
                        survey.definition(text, &definition.span, &dest_url);
                    }
                    links.push(OpenLink { kind: link_type, destination: dest_url, text_end: range.start + marker });
                    continue; // Its range ends behind its text.
                }
                Event::End(TagEnd::Link | TagEnd::Image) => {
                    if let Some(link) = links.pop() {
                        survey.link(text, &link, range);
                    }
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let fenced = matches!(kind, CodeBlockKind::Fenced(_));
                    code = Some(OpenCode { fenced, content_end: range.start });
                }
                Event::Text(_) => {
                    if let Some(code) = &mut code {
                        code.content_end = end;
                    }
                }
                Event::End(TagEnd::CodeBlock) => {
                    if let Some(code) = code.take() {
                        survey.code_block(text, &code, range);
                    }
                }
                Event::Code(_) => survey.code.push(range),
                Event::Start(Tag::HtmlBlock) | Event::InlineHtml(_) => survey.html(text, range),
                _ => {}
            }
            if let Some(link) = links.last_mut() {
                link.text_end = link.text_end.max(end);
            }
        }
        survey.code.sort_by_key(|range| range.start);
        survey
    }

    fn link(&mut self, text: &str, link: &OpenLink<'_>, range: Range<usize>) {
        match link.kind {
            LinkType::Inline => {
                if let Some(from) = text.get(link.text_end..range.end).and_then(|rest| rest.find("](")) {
                    self.destination(text, link.text_end + from + 2..range.end, &link.destination);
                }
            }
            LinkType::Autolink => {
                if let Some(placeholder) = placeholder_for(&link.destination) {
                    let mut with = String::from("[");
                    for character in link.destination.chars() {
                        if "\\`*_[]&!|~$".contains(character) {
                            with.push('\\');
                        }
                        with.push(character);
                    }
                    with.push_str("](");
                    with.push_str(&placeholder);
                    with.push(')');
                    self.edits.push(Edit { range, with });
                }
            }
            _ => {}
        }
    }

    /// A reference definition, `[label]: destination "title"`.
    fn definition(&mut self, text: &str, span: &Range<usize>, destination: &str) {
        if !self.definitions.insert(span.start) {
            return;
        }
        let bytes = text[span.clone()].as_bytes();
        let mut at = 1;
        while at < bytes.len() && bytes[at] != b']' {
            at += if bytes[at] == b'\\' { 2 } else { 1 };
        }
        if bytes.get(at + 1) == Some(&b':') {
            self.destination(text, span.start + at + 2..span.end, destination);
        }
    }

    /// Edits what spells `destination` at the beginning of `within`, spaces aside.
    fn destination(&mut self, text: &str, within: Range<usize>, destination: &str) {
        let Some(placeholder) = placeholder_for(destination) else { return };
        let Some(raw) = raw_destination(&text[within.clone()]) else { return };
        let spelled = text[within.start + raw.start..within.start + raw.end].trim_matches(['<', '>']);
        // Should we ever look at the wrong place, the link stays as the agent wrote it.
        if spelled == destination || spelled.contains(['\\', '&']) {
            self.edits.push(Edit { range: within.start + raw.start..within.start + raw.end, with: placeholder });
        }
    }

    fn html(&mut self, text: &str, range: Range<usize>) {
        for address in html::addresses(&text[range.clone()]) {
            let address = range.start + address.start..range.start + address.end;
            if let Some(mut with) = placeholder_for(&text[address.clone()].replace("&amp;", "&")) {
                if !text[..address.start].ends_with(['"', '\'']) {
                    // What a link becomes holds `=`, which Markdown takes in quotes only.
                    with = format!("\"{with}\"");
                }
                self.edits.push(Edit { range: address, with });
            }
        }
    }

    fn code_block(&mut self, text: &str, code: &OpenCode, range: Range<usize>) {
        if !code.fenced {
            self.code.push(range.start..range.end.max(code.content_end));
            return;
        }
        let Some(fence_at) = text[range.clone()].find(['`', '~']).map(|at| range.start + at) else { return };
        let fence = &text[fence_at..];
        let opening_end = fence.find('\n').map_or(text.len(), |at| fence_at + at + 1);
        let fence = &fence[..fence.len() - fence.trim_start_matches(&fence[..1]).len()];
        let content_end = code.content_end.max(opening_end).min(range.end.max(opening_end));
        self.code.push(opening_end..content_end);
        let end = range.end.max(content_end);
        if !text[content_end..end].contains(&fence[..1]) {
            // Block quotes go on by their mark, list items by indentation.
            let line_start = text[..fence_at].rfind('\n').map_or(0, |at| at + 1);
            let mut closing: String = text[line_start..fence_at]
                .chars()
                .map(|character| if matches!(character, '>' | '\t') { character } else { ' ' })
                .collect();
            closing.push_str(fence);
            let with = if text[..end].ends_with('\n') { closing + "\n" } else { format!("\n{closing}") };
            self.edits.push(Edit { range: end..end, with });
        }
    }
}

/// How deep parentheses may nest in a destination; the parser's limit.
const MAX_PARENTHESES: usize = 32;

/// Where the destination is in what follows `](` or `]:`, angle brackets included.
fn raw_destination(source: &str) -> Option<Range<usize>> {
    let bytes = source.as_bytes();
    let mut start = 0;
    let mut new_line = false;
    while let Some(byte) = bytes.get(start) {
        match byte {
            b'\n' => new_line = true,
            b' ' | b'\t' => {}
            b'>' if new_line => {} // A block quote goes on.
            _ => break,
        }
        start += 1;
    }
    let bracketed = bytes.get(start) == Some(&b'<');
    let mut depth = 0_usize;
    let mut at = start + usize::from(bracketed);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if bytes.get(at + 1).is_some_and(u8::is_ascii_punctuation) => at += 1,
            b'\n' | b'<' if bracketed => return None,
            b'>' if bracketed => return Some(start..at + 1),
            _ if bracketed => {}
            b'(' if depth == MAX_PARENTHESES => return None,
            b'(' => depth += 1,
            b')' if depth == 0 => break,
            b')' => depth -= 1,
            byte if byte.is_ascii_whitespace() || byte.is_ascii_control() => break,
            _ => {}
        }
        at += 1;
    }
    (!bracketed && at > start).then_some(start..at)
}

#[cfg(test)]
mod tests;
