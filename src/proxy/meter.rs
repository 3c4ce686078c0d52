//! What a response tells of the tokens that were used, read while it passes, in pieces of any size.
//!
//! Nothing is kept of a response but the numbers: `scan` reads JSON by its paths, `events` finds it in an event
//! stream. What an agent or a model writes is in texts, and no text can pass for a number beside it.
//!
//! What a model has not told is guessed, from below: of a call that breaks off the provider still charges what was
//! read and written, and tells it at the end alone, which an agent need not wait for. So each four bytes of the
//! request and of the texts that came back count as a token. We don't read on for the true number: that would have
//! the model write to its end, at the user's cost, what the user has just cancelled.
//!
//! Sources: Anthropic "Streaming Messages" (`message_start` has what went in, `message_delta` the sums so far),
//! `OpenAI` "Chat completions" (`usage` in the last chunk, if it was asked for) and "Responses" (in the last event),
//! Google "`GenerateContentResponse`" (`usageMetadata` in each chunk, the last one counts).

mod events;
mod scan;

use self::events::Events;
pub(super) use self::scan::{Hear, Scalar, Scanner};
use super::Metered;
use super::question::Whole;
use crate::config::{ModelApiKind, ProfileConfig};

/// Bytes of text that are one token at least, in English and in code as a rule.
pub(super) const TOKEN_BYTES: u64 = 4;
/// The keys of what a model writes.
const WRITTEN: [&str; 8] =
    ["text", "thinking", "partial_json", "content", "reasoning_content", "reasoning", "refusal", "arguments"];
/// The key of it in the events of `OpenAI`'s responses, which later say all of it again.
const WRITTEN_FIRST: &str = "delta";

/// Reads one response.
pub(super) struct Meter {
    format: Format,
    told: Told,
}

enum Format {
    Json(Scanner),
    Events(Events),
}

/// What has been told so far.
#[expect(clippy::struct_excessive_bools, reason = "each is another thing to know")]
struct Told {
    kind: ModelApiKind,
    model: Option<String>,
    /// Whether anything was told.
    any: bool,
    /// Whether what went in was told.
    input_known: bool,
    /// Whether what was written was told, and not only how much had been by the beginning.
    output_known: bool,
    /// Bytes of what was written since that was told; and those that say it first.
    written: u64,
    written_first: u64,
    input: u64,
    /// What tools put in, which Gemini counts apart.
    tool_input: u64,
    output: u64,
    /// What was only thought, which Gemini counts apart.
    thought: u64,
    cache_read: u64,
    cache_write: u64,
    /// What is being read says that nothing follows it.
    last: bool,
}

impl Meter {
    /// For a response of that kind; `events`: it is a stream of them. `model` is what was asked for, if that is
    /// known.
    pub(super) fn new(kind: ModelApiKind, events: bool, model: Option<&str>) -> Self {
        let told = Told {
            kind,
            model: model.map(str::to_owned),
            any: false,
            input_known: false,
            output_known: false,
            written: 0,
            written_first: 0,
            input: 0,
            tool_input: 0,
            output: 0,
            thought: 0,
            cache_read: 0,
            cache_write: 0,
            last: false,
        };
        let format = if events { Format::Events(Events::default()) } else { Format::Json(Scanner::default()) };
        Self { format, told }
    }

    /// Reads the next piece; `true`: all has been told.
    pub(super) fn hear(&mut self, piece: &[u8]) -> bool {
        let told = &mut self.told;
        match &mut self.format {
            Format::Json(scanner) => scanner.feed(piece, told),
            Format::Events(events) => events.feed(piece, told) && told.last,
        }
    }

    /// What is known by now; `None`: nothing. `complete`: there is no more to come. What was not told is guessed if
    /// `asked` says of what.
    pub(super) fn told(&self, profile: &ProfileConfig, complete: bool, asked: Option<&Whole>) -> Option<Metered> {
        let told = &self.told;
        if !told.any && asked.is_none() {
            return None;
        }
        let model = told.model.clone().or_else(|| asked?.model.clone()).unwrap_or_default();
        // Anthropic counts the cache apart, the others within what went in.
        let input = match told.kind {
            ModelApiKind::Anthropic => told.input,
            _ => told.input.saturating_add(told.tool_input).saturating_sub(told.cache_read),
        };
        let guess = |asked: &Whole| if told.input_known { 0 } else { asked.tokens };
        let (more_input, more_output) = match asked {
            Some(asked) if complete && told.output_known => (guess(asked), 0),
            Some(asked) => (guess(asked), told.unknown()),
            None => (0, 0),
        };
        let mut metered = Metered {
            input_tokens: input.saturating_add(more_input),
            output_tokens: told.output.saturating_add(told.thought).saturating_add(more_output),
            cache_read_tokens: told.cache_read,
            cache_write_tokens: told.cache_write,
            cost_usd: None,
            model,
        };
        metered.cost_usd = profile.price(&metered.model).map(|price| {
            let of = |tokens: u64, price: f64| as_f64(tokens) * price / 1e6;
            of(metered.input_tokens, price.input)
                + of(metered.output_tokens, price.output)
                + of(metered.cache_read_tokens, price.cache_read.unwrap_or(price.input))
                + of(metered.cache_write_tokens, price.cache_write.unwrap_or(price.input))
        });
        Some(metered)
    }
}

impl Hear for Told {
    fn value(&mut self, path: &[&str], value: Scalar<'_>) {
        let (begins, path) = match path {
            ["message", rest @ ..] => (true, rest),
            ["response", rest @ ..] => (false, rest),
            path => (false, path),
        };
        match value {
            Scalar::Text(text) => match (self.kind, path) {
                (ModelApiKind::Gemini, ["modelVersion"]) | (_, ["model"]) => {
                    self.model = Some(text.to_owned());
                    self.any |= self.kind != ModelApiKind::Gemini;
                }
                (_, ["type"]) => {
                    let ends = ["message_stop", "response.completed", "response.incomplete", "response.failed"];
                    self.last |= ends.contains(&text);
                }
                _ => (),
            },
            Scalar::Other("DONE") if path.is_empty() => self.last = true,
            Scalar::Other(number) => {
                let Ok(number) = number.parse::<u64>() else { return };
                if let Some((place, output)) = self.place(path) {
                    *place = number;
                    self.any = true;
                    if !output {
                        self.input_known = true;
                    } else if !begins {
                        self.output_known = true;
                        (self.written, self.written_first) = (0, 0);
                    }
                }
            }
            Scalar::Object | Scalar::Else => (),
        }
    }

    fn text(&mut self, key: &str, bytes: u64) {
        if WRITTEN.contains(&key) {
            self.written = self.written.saturating_add(bytes);
        } else if key == WRITTEN_FIRST {
            self.written_first = self.written_first.saturating_add(bytes);
        }
    }
}

impl Told {
    /// The fewest tokens that were written and not told.
    fn unknown(&self) -> u64 {
        let bytes = if self.written_first > 0 { self.written_first } else { self.written };
        bytes.div_ceil(TOKEN_BYTES)
    }

    /// Where a number belongs, and whether it is of what was written.
    fn place(&mut self, path: &[&str]) -> Option<(&mut u64, bool)> {
        use ModelApiKind::{Anthropic, Gemini, Openai};
        let place = match (self.kind, path) {
            (Anthropic, ["usage", "input_tokens"]) | (Openai, ["usage", "input_tokens" | "prompt_tokens"]) => {
                (&mut self.input, false)
            }
            (Anthropic, ["usage", "output_tokens"]) | (Openai, ["usage", "output_tokens" | "completion_tokens"]) => {
                (&mut self.output, true)
            }
            (Anthropic, ["usage", "cache_read_input_tokens"])
            | (Openai, ["usage", "input_tokens_details" | "prompt_tokens_details", "cached_tokens"]) => {
                (&mut self.cache_read, false)
            }
            (Anthropic, ["usage", "cache_creation_input_tokens"]) => (&mut self.cache_write, false),
            (Gemini, ["usageMetadata", name]) => match *name {
                "promptTokenCount" => (&mut self.input, false),
                "toolUsePromptTokenCount" => (&mut self.tool_input, false),
                "candidatesTokenCount" => (&mut self.output, true),
                "thoughtsTokenCount" => (&mut self.thought, true),
                "cachedContentTokenCount" => (&mut self.cache_read, false),
                _ => return None,
            },
            _ => return None,
        };
        Some(place)
    }
}

/// Tokens of one call: far below what a float holds exactly.
fn as_f64(tokens: u64) -> f64 {
    f64::from(u32::try_from(tokens).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
