//! A model's response on its way to the agent: piece by piece, metered, without the key.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::answer::BoxError;
use super::exchange::Exchange;
use super::scrub::Scrubber;
use crate::metrics::ModelOutcome;

/// How long a model may be silent in the middle of a response.
const SILENCE: Duration = Duration::from_mins(5);

/// The body.
pub(super) struct Reply {
    body: Incoming,
    exchange: Exchange,
    scrubber: Scrubber,
    silence: Pin<Box<Sleep>>,
    ended: bool,
}

impl Reply {
    pub(super) fn new(body: Incoming, mut exchange: Exchange, scrubber: Scrubber) -> Self {
        let ended = body.is_end_stream();
        if ended {
            exchange.complete();
        }
        Self { body, exchange, scrubber, silence: Box::pin(sleep(SILENCE)), ended }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        while !this.ended {
            let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
                ready!(this.silence.as_mut().poll(context));
                this.ended = true;
                this.exchange.end(ModelOutcome::CutOff);
                return Poll::Ready(Some(Err("the model fell silent".into())));
            };
            this.silence.as_mut().reset(Instant::now() + SILENCE);
            match frame {
                Some(Ok(frame)) => {
                    let Ok(piece) = frame.into_data() else { continue };
                    this.exchange.hear(&piece);
                    let mut piece = this.scrubber.pass(piece);
                    // Of a length that was told: nobody asks whether more comes.
                    if this.body.is_end_stream() {
                        this.ended = true;
                        piece = [piece, this.scrubber.rest()].concat().into();
                        this.exchange.complete();
                    }
                    if !piece.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                }
                Some(Err(error)) => {
                    this.ended = true;
                    this.exchange.end(ModelOutcome::CutOff);
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => {
                    this.ended = true;
                    this.exchange.complete();
                    let rest = this.scrubber.rest();
                    if !rest.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(rest))));
                    }
                }
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default() // The length that was told is among the headers.
    }
}
