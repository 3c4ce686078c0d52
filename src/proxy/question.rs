//! An agent's request on its way to the model: bounded, watched, and asked to tell what it used.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::meter::{Scalar, Scanner};

/// The longest body: what Anthropic takes at most.
pub(super) const MAX_BYTES: u64 = 32 << 20;
/// How long an agent may take for the next piece.
const STALL: Duration = Duration::from_mins(1);
/// What is put into a request for a stream that does not ask for usage …
const ASK: &[u8] = br#","stream_options":{"include_usage":true}"#;

/// Why a body was not passed on to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("the request is larger than 32 MiB")]
    TooLarge,
    #[error("the request did not come to its end in time")]
    Stalled,
    #[error("the request broke off")]
    BrokenOff,
    #[error("`background` responses are not let through: they don't tell what they use")]
    Background,
    #[error("`stream_options` must not say that the usage is not told")]
    Untold,
}

/// The body.
pub(super) struct Question {
    body: Incoming,
    rule: Option<Rule>,
    left: u64,
    stall: Pin<Box<Sleep>>,
    fault: Arc<OnceLock<Fault>>,
    ended: bool,
}

impl Question {
    /// With it comes where its fault will be found.
    pub(super) fn new(body: Incoming, rule: Option<Rule>) -> (Self, Arc<OnceLock<Fault>>) {
        let fault = Arc::new(OnceLock::new());
        let stall = Box::pin(sleep(STALL));
        (Self { body, rule, left: MAX_BYTES, stall, fault: Arc::clone(&fault), ended: false }, fault)
    }

    fn fail<T>(&mut self, fault: Fault) -> Poll<Option<Result<T, Fault>>> {
        self.ended = true;
        let _ = self.fault.set(fault); // The first one counts.
        Poll::Ready(Some(Err(fault)))
    }
}

impl Body for Question {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        while !this.ended {
            let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
                ready!(this.stall.as_mut().poll(context));
                return this.fail(Fault::Stalled);
            };
            this.stall.as_mut().reset(Instant::now() + STALL);
            match frame {
                Some(Ok(frame)) => {
                    // Trailers are of no use to a model.
                    let Ok(piece) = frame.into_data() else { continue };
                    let Some(left) = this.left.checked_sub(piece.len() as u64) else {
                        return this.fail(Fault::TooLarge);
                    };
                    this.left = left;
                    let passed = match &mut this.rule {
                        Some(rule) => rule.pass(&piece),
                        None => Ok(piece),
                    };
                    match passed {
                        Ok(piece) if piece.is_empty() => (),
                        Ok(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                        Err(fault) => return this.fail(fault),
                    }
                }
                Some(Err(_)) => return this.fail(Fault::BrokenOff),
                None => {
                    this.ended = true;
                    match this.rule.take().map(Rule::end) {
                        Some(Ok(rest)) if !rest.is_empty() => return Poll::Ready(Some(Ok(Frame::data(rest)))),
                        Some(Err(fault)) => return this.fail(fault),
                        _ => (),
                    }
                }
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.rule.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.size_hint();
        match (hint.exact(), &self.rule) {
            (Some(bytes), Some(rule)) => SizeHint::with_exact(bytes + rule.held.len() as u64 + rule.more()),
            (Some(_), None) => hint,
            _ => SizeHint::default(),
        }
    }
}

/// What `OpenAI`'s requests must say so that their responses tell what they used. Read as they pass; only the end
/// is kept back.
#[derive(Default)]
pub(super) struct Rule {
    chat: bool,
    scanner: Scanner,
    asked: Asked,
    complete: bool,
    /// A closing brace and what follows it, while it may be the last one.
    held: Vec<u8>,
}

/// What a request says.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the request")]
struct Asked {
    streams: bool,
    background: bool,
    has_options: bool,
    include_usage: bool,
    /// A key is written so that it may be read as another one.
    escaped: bool,
}

impl Rule {
    /// For a request to `path`, if there is one.
    pub(super) fn of(path: &str) -> Option<Self> {
        let chat = path.ends_with("/chat/completions");
        (chat || path.ends_with("/responses")).then(|| Self { chat, ..Self::default() })
    }

    /// How many bytes more the request has in the end, whatever it says: the length is told first.
    fn more(&self) -> u64 {
        if self.chat { ASK.len() as u64 } else { 0 }
    }

    fn pass(&mut self, piece: &[u8]) -> Result<Bytes, Fault> {
        let asked = &mut self.asked;
        self.complete = self.scanner.feed(piece, &mut |path, value| asked.hear(path, value));
        if self.asked.background || self.asked.escaped {
            return Err(if self.chat { Fault::Untold } else { Fault::Background });
        }
        if !self.chat {
            return Ok(Bytes::copy_from_slice(piece));
        }
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(piece);
        let end = bytes.iter().rposition(|byte| !byte.is_ascii_whitespace());
        if let Some(end) = end.filter(|end| bytes[*end] == b'}') {
            self.held = bytes.split_off(end);
        }
        Ok(Bytes::from(bytes))
    }

    /// What is still to be sent.
    fn end(self) -> Result<Bytes, Fault> {
        if !self.chat {
            return Ok(Bytes::new());
        }
        let asked = &self.asked;
        if asked.streams && asked.has_options && !asked.include_usage {
            return Err(Fault::Untold);
        }
        let ask = self.complete && asked.streams && !asked.has_options;
        // Spaces, so that it is as long as was told.
        let mut rest = if ask { ASK.to_vec() } else { vec![b' '; ASK.len()] };
        rest.extend_from_slice(&self.held);
        Ok(Bytes::from(rest))
    }
}

impl Asked {
    fn hear(&mut self, path: &str, value: Scalar<'_>) {
        let yes = value == Scalar::Other("true");
        match path {
            "stream" => self.streams = yes,
            "background" => self.background = yes,
            "stream_options.include_usage" => self.include_usage = yes,
            "stream_options" => self.has_options = true,
            // Only where it could be one of those.
            path => self.escaped |= path.contains('\\') && path.matches('.').count() <= 1 && value != Scalar::Object,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(path: &str, text: &str) -> Result<String, Fault> {
        let mut results = (0..=text.len()).map(|cut| {
            let mut rule = Rule::of(path).unwrap();
            let length = text.len() as u64 + rule.more();
            let mut sent = rule.pass(&text.as_bytes()[..cut])?.to_vec();
            sent.extend(rule.pass(&text.as_bytes()[cut..])?);
            sent.extend(rule.end()?);
            assert_eq!(sent.len() as u64, length);
            Ok(String::from_utf8(sent).unwrap())
        });
        let first = results.next().unwrap();
        assert!(results.all(|other| other == first), "it matters where it is cut: {text}");
        first
    }

    #[test]
    fn a_stream_is_asked_to_tell_its_usage() {
        let chat = |text: &str| ask("/v1/chat/completions", text);
        let spaces = " ".repeat(ASK.len());
        assert_eq!(
            chat("{\"model\":\"m\",\"tools\":[{\"a\":{}}],\"stream\":true}\n").unwrap(),
            "{\"model\":\"m\",\"tools\":[{\"a\":{}}],\"stream\":true,\"stream_options\":{\"include_usage\":true}}\n"
        );
        assert_eq!(chat(r#"{"stream":false}"#).unwrap(), format!(r#"{{"stream":false{spaces}}}"#));
        let asks = r#"{"stream":true,"stream_options":{"include_usage":true}"#;
        assert_eq!(chat(&format!("{asks}}}")).unwrap(), format!("{asks}{spaces}}}"));
        assert_eq!(chat("no json").unwrap(), format!("no json{spaces}"));
        for hides in [
            r#"{"stream":true,"stream_options":{"include_usage":false}}"#,
            r#"{"stream":true,"stream_options":{}}"#,
            r#"{"stream":true,"stream_options":null}"#,
            r#"{"str\u0065am":true}"#,
        ] {
            assert_eq!(chat(hides), Err(Fault::Untold), "{hides}");
        }
    }

    #[test]
    fn nothing_is_done_in_the_background() {
        let fine = r#"{"model":"m","input":[{"background":true}],"background":false,"stream":true}"#;
        assert_eq!(ask("/v1/responses", fine).unwrap(), fine);
        assert_eq!(ask("/v1/responses", r#"{"background":true}"#), Err(Fault::Background));
        assert!(Rule::of("/v1/messages").is_none());
    }
}
