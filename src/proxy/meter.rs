//! What a response tells of the tokens that were used, read while it passes, in pieces of any size.
//!
//! Nothing is kept of a response but the numbers: `scan` reads JSON by its paths, `events` finds it in an event
//! stream. What an agent or a model writes is in texts, and no text can pass for a number beside it.
//!
//! Sources: Anthropic "Streaming Messages" (`message_start` has what went in, `message_delta` the sums so far),
//! `OpenAI` "Chat completions" (`usage` in the last chunk, if it was asked for) and "Responses" (in the last event),
//! Google "`GenerateContentResponse`" (`usageMetadata` in each chunk, the last one counts).

mod events;
mod scan;

use self::events::Events;
pub(super) use self::scan::{Scalar, Scanner};
use super::Metered;
use crate::config::{ModelApiKind, ProfileConfig};

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
struct Told {
    kind: ModelApiKind,
    model: Option<String>,
    /// Whether any number was told.
    any: bool,
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
            Format::Json(scanner) => scanner.feed(piece, &mut |path, value| told.hear(path, value)),
            Format::Events(events) => events.feed(piece, &mut |path, value| told.hear(path, value)) && told.last,
        }
    }

    /// What is known by now; `None`: nothing.
    pub(super) fn told(&self, profile: &ProfileConfig) -> Option<Metered> {
        let told = &self.told;
        if !told.any {
            return None;
        }
        let model = told.model.clone().unwrap_or_default();
        // Anthropic counts the cache apart, the others within what went in.
        let input = match told.kind {
            ModelApiKind::Anthropic => told.input,
            _ => (told.input + told.tool_input).saturating_sub(told.cache_read),
        };
        let mut metered = Metered {
            input_tokens: input,
            output_tokens: told.output + told.thought,
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

impl Told {
    fn hear(&mut self, path: &str, value: Scalar<'_>) {
        let path = path.strip_prefix("message.").or_else(|| path.strip_prefix("response.")).unwrap_or(path);
        match value {
            Scalar::Text(text) => match (self.kind, path) {
                (ModelApiKind::Gemini, "modelVersion") | (_, "model") => {
                    self.model = Some(text.to_owned());
                    self.any |= self.kind != ModelApiKind::Gemini;
                }
                (_, "type") => {
                    let ends = ["message_stop", "response.completed", "response.incomplete", "response.failed"];
                    self.last |= ends.contains(&text);
                }
                _ => (),
            },
            Scalar::Other("DONE") if path.is_empty() => self.last = true,
            Scalar::Other(number) => {
                let Ok(number) = number.parse::<u64>() else { return };
                if let Some(place) = self.place(path) {
                    *place = number;
                    self.any = true;
                }
            }
            Scalar::Object => (),
        }
    }

    /// Where a number belongs.
    fn place(&mut self, path: &str) -> Option<&mut u64> {
        use ModelApiKind::{Anthropic, Gemini, Openai};
        let (section, name) = path.split_once('.')?;
        let place = match (self.kind, section, name) {
            (Anthropic, "usage", "input_tokens") | (Openai, "usage", "input_tokens" | "prompt_tokens") => {
                &mut self.input
            }
            (Anthropic, "usage", "output_tokens") | (Openai, "usage", "output_tokens" | "completion_tokens") => {
                &mut self.output
            }
            (Anthropic, "usage", "cache_read_input_tokens")
            | (Openai, "usage", "input_tokens_details.cached_tokens" | "prompt_tokens_details.cached_tokens") => {
                &mut self.cache_read
            }
            (Anthropic, "usage", "cache_creation_input_tokens") => &mut self.cache_write,
            (Gemini, "usageMetadata", name) => match name {
                "promptTokenCount" => &mut self.input,
                "toolUsePromptTokenCount" => &mut self.tool_input,
                "candidatesTokenCount" => &mut self.output,
                "thoughtsTokenCount" => &mut self.thought,
                "cachedContentTokenCount" => &mut self.cache_read,
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
