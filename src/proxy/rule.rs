//! What a request must say so that its response tells what was used: read as it passes; only its end is kept back.
//!
//! Agents would rather not be counted, and other readers of JSON than ours may take a key for another one, or one of
//! two that are the same. So of the keys that matter nothing passes that could be read in two ways.

use bytes::Bytes;

use super::meter::{Hear, Scalar, Scanner};
use super::question::Fault;
use crate::config::ModelApiKind;

/// What is put into a request for a stream that does not ask for usage.
const ASK: &[u8] = br#","stream_options":{"include_usage":true}"#;
/// The keys that matter.
const KEYS: [&str; 4] = ["stream", "stream_options", "include_usage", "background"];

/// Of one request that has the model write something.
pub(super) struct Rule {
    api: Api,
    scanner: Scanner,
    asked: Asked,
    complete: bool,
    /// The last byte that is no space, and what follows it.
    held: Vec<u8>,
}

/// What is to be seen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Api {
    /// Streams tell what they used if they are asked to.
    Completions,
    /// What is done in the background does not tell.
    Responses,
    /// Nothing: it always tells.
    Other,
}

/// What a request says.
#[derive(Default)]
struct Asked {
    model: Option<String>,
    stream: Option<bool>,
    background: Option<bool>,
    has_options: bool,
    include_usage: Option<bool>,
    /// Somebody else might read something else.
    unclear: bool,
}

impl Rule {
    /// For a request to `path`. `None`: that has no model write anything.
    pub(super) fn of(kind: ModelApiKind, path: &str) -> Option<Self> {
        // As servers that don't mind read it.
        let plain = path.trim_end_matches('/').to_ascii_lowercase();
        let ends = |end: &str| plain.ends_with(end);
        let api = match kind {
            ModelApiKind::Openai if ends("/completions") => Api::Completions,
            ModelApiKind::Openai if ends("/responses") => Api::Responses,
            ModelApiKind::Anthropic if ends("/messages") => Api::Other,
            ModelApiKind::Gemini if ends(":generatecontent") || ends(":streamgeneratecontent") => Api::Other,
            _ => return None,
        };
        let asked = Asked { model: model_in(path).map(str::to_owned), ..Asked::default() };
        Some(Self { api, scanner: Scanner::default(), asked, complete: false, held: Vec::new() })
    }

    /// How many bytes it will give besides those that it gets: the length of a request is told first.
    pub(super) fn owes(&self) -> u64 {
        let more = if self.api == Api::Completions { ASK.len() } else { 0 };
        (self.held.len() + more) as u64
    }

    /// The model that is asked.
    pub(super) fn model(&mut self) -> Option<String> {
        self.asked.model.take()
    }

    /// Reads the next piece; gives what may be sent of it.
    pub(super) fn pass(&mut self, piece: &[u8]) -> Result<Bytes, Fault> {
        self.complete = self.scanner.feed(piece, &mut self.asked);
        if self.api == Api::Other {
            return Ok(Bytes::copy_from_slice(piece));
        }
        if self.asked.unclear || self.scanner.is_broken() {
            return Err(Fault::Unreadable);
        }
        // What has no end is none: nothing is done before that has been sent.
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(piece);
        if let Some(end) = bytes.iter().rposition(|byte| !byte.is_ascii_whitespace()) {
            self.held = bytes.split_off(end);
        }
        Ok(Bytes::from(bytes))
    }

    /// What is still to be sent.
    pub(super) fn end(&mut self) -> Result<Bytes, Fault> {
        let asked = &self.asked;
        let streams = asked.stream == Some(true);
        let mut rest = match self.api {
            Api::Other => return Ok(Bytes::new()),
            _ if !self.complete => return Err(Fault::Unreadable),
            Api::Responses if asked.background == Some(true) => return Err(Fault::Background),
            Api::Responses => Vec::new(),
            Api::Completions if streams && !asked.has_options => ASK.to_vec(),
            Api::Completions if streams && asked.include_usage != Some(true) => return Err(Fault::Untold),
            // As long as was told.
            Api::Completions => vec![b' '; ASK.len()],
        };
        rest.append(&mut self.held);
        Ok(Bytes::from(rest))
    }
}

impl Hear for Asked {
    fn value(&mut self, path: &[&str], value: Scalar<'_>) {
        let place = match path {
            [] => {
                self.unclear |= value != Scalar::Object;
                return;
            }
            ["model"] => {
                if let Scalar::Text(model) = value {
                    self.model.get_or_insert_with(|| model.to_owned());
                }
                return;
            }
            ["stream_options"] => {
                self.unclear |= std::mem::replace(&mut self.has_options, true);
                return;
            }
            ["stream"] => &mut self.stream,
            ["background"] => &mut self.background,
            ["stream_options", "include_usage"] => &mut self.include_usage,
            [key] | ["stream_options", key] => {
                self.unclear |= is_disguised(key);
                return;
            }
            _ => return,
        };
        let said = match value {
            Scalar::Other("true") => Some(true),
            Scalar::Other("false" | "null") => Some(false),
            _ => None,
        };
        self.unclear |= said.is_none() || place.is_some();
        *place = said;
    }
}

/// The model that a path names: `/v1beta/models/gemini-2.5-pro:generateContent`.
pub(super) fn model_in(path: &str) -> Option<&str> {
    path.split_once("/models/")?.1.split(':').next()
}

/// Whether somebody could read a key as one that matters: some read escapes, some don't mind capitals (Go does
/// neither mind `\u{17f}`, a long s, nor `\u{212a}`, the Kelvin sign).
fn is_disguised(key: &str) -> bool {
    let plain = key.to_uppercase().to_lowercase();
    key.contains('\\') || KEYS.contains(&plain.as_str())
}

#[cfg(test)]
mod tests;
