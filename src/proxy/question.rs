//! An agent's request on its way to the model: bounded, watched, and weighed.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::meter::TOKEN_BYTES;
use super::rule::Rule;

/// The longest body: what Anthropic takes at most.
pub(super) const MAX_BYTES: u64 = 32 << 20;
/// How long an agent may take for the next piece.
const STALL: Duration = Duration::from_mins(1);
/// Letters and digits in a row that count. More of them are no text but an image or a file, of which nobody can
/// tell by its length how many tokens it is.
const RUN: u64 = 64;

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
    #[error(
        "the request is not one plain JSON object in which `stream`, `stream_options`, `include_usage` and \
         `background` are spelled like this, stand once at most, and are true or false"
    )]
    Unreadable,
}

/// What is known of a request from outside.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Why it was not passed on to its end.
    pub(super) fault: OnceLock<Fault>,
    /// Set when it was.
    pub(super) whole: OnceLock<Whole>,
}

/// A request that was passed on whole.
#[derive(Debug, Default)]
pub(super) struct Whole {
    /// The model that is asked, if it says so.
    pub(super) model: Option<String>,
    /// How many tokens it is, guessed from below.
    pub(super) tokens: u64,
}

/// The body.
pub(super) struct Question {
    body: Incoming,
    rule: Option<Rule>,
    left: u64,
    weight: Weight,
    stall: Pin<Box<Sleep>>,
    sent: Arc<Sent>,
    ended: bool,
}

impl Question {
    /// With it comes where more of it will be known.
    pub(super) fn new(body: Incoming, rule: Option<Rule>) -> (Self, Arc<Sent>) {
        let (sent, stall) = (Arc::new(Sent::default()), Box::pin(sleep(STALL)));
        let weight = Weight::default();
        (Self { body, rule, left: MAX_BYTES, weight, stall, sent: Arc::clone(&sent), ended: false }, sent)
    }

    fn fail<T>(&mut self, fault: Fault) -> Poll<Option<Result<T, Fault>>> {
        self.ended = true;
        let _ = self.sent.fault.set(fault); // The first one counts.
        Poll::Ready(Some(Err(fault)))
    }

    /// What is still to be sent.
    fn end(&mut self) -> Result<Bytes, Fault> {
        self.ended = true;
        let Some(mut rule) = self.rule.take() else { return Ok(Bytes::new()) };
        let rest = rule.end()?;
        let _ = self.sent.whole.set(Whole { model: rule.model(), tokens: self.weight.tokens() }); // It ends once.
        Ok(rest)
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
                    this.weight.add(&piece);
                    let passed = match &mut this.rule {
                        Some(rule) => rule.pass(&piece),
                        None => Ok(piece),
                    };
                    // Of a length that was told: nobody asks whether more comes.
                    let passed = passed.and_then(|piece| {
                        if this.body.is_end_stream() { Ok([piece, this.end()?].concat().into()) } else { Ok(piece) }
                    });
                    match passed {
                        Ok(piece) if piece.is_empty() => (),
                        Ok(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                        Err(fault) => return this.fail(fault),
                    }
                }
                Some(Err(_)) => return this.fail(Fault::BrokenOff),
                None => match this.end() {
                    Ok(rest) if rest.is_empty() => (),
                    Ok(rest) => return Poll::Ready(Some(Ok(Frame::data(rest)))),
                    Err(fault) => return this.fail(fault),
                },
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
            (Some(bytes), Some(rule)) => SizeHint::with_exact(bytes + rule.owes()),
            (Some(_), None) => hint,
            _ => SizeHint::default(),
        }
    }
}

/// How much text has come.
#[derive(Default)]
struct Weight {
    bytes: u64,
    run: u64,
}

impl Weight {
    fn add(&mut self, piece: &[u8]) {
        for byte in piece {
            let runs = byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_');
            self.run = if runs { self.run + 1 } else { 0 };
            self.bytes += u64::from(self.run <= RUN);
        }
    }

    fn tokens(&self) -> u64 {
        self.bytes / TOKEN_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_weighs_what_is_text_in_it() {
        let tokens = |text: &str| {
            let (first, second) = text.as_bytes().split_at(text.len() / 2);
            let mut weight = Weight::default();
            weight.add(first);
            weight.add(second);
            weight.tokens()
        };
        let text = "Forty characters of an honest question. ";
        assert_eq!(tokens(&text.repeat(100)), 1_000);
        let image = "iVBORw0KGgo/+a9".repeat(100_000);
        assert_eq!(tokens(&format!("{text}{image} {text}")), 20 + RUN / TOKEN_BYTES);
    }
}
