//! One request of an agent to its model, and the response back.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;
use tracing::warn;

use super::answer::{Body, forbid, refuse, too_many};
use super::door::Door;
use super::exchange::Exchange;
use super::meter::Meter;
use super::question::{Fault, MAX_BYTES, Question, Rule};
use super::reply::Reply;
use super::upstream::Upstream;
use crate::metrics::ModelOutcome;

/// How long a model may think before its response begins: those that don't stream come whole.
const HEAD: Duration = Duration::from_mins(15);
/// How long a request waits for its turn while as many as may be are under way.
const TURN: Duration = Duration::from_secs(10);

/// Answers a request to the model.
pub(super) async fn forward(door: &Door, request: Request<Incoming>) -> Response<Body> {
    match check(door, &request) {
        Ok(upstream) => ask(door, upstream, request).await,
        Err(refusal) => {
            door.metrics.model_request(ModelOutcome::Refused);
            refusal
        }
    }
}

/// Whether the request may go on, and where to.
fn check<'a>(door: &'a Door, request: &Request<Incoming>) -> Result<&'a Upstream, Response<Body>> {
    let (method, uri) = (request.method(), request.uri());
    if uri.scheme().is_some() {
        return Err(forbid("other hosts are reached by CONNECT, and only those that the profile grants"));
    }
    let Some(upstream) = &door.route.upstream else {
        return Err(forbid("this agent's profile reaches no model: it has no `model_api`"));
    };
    if !upstream.paths.allow(method, uri.path()) {
        let path = uri.path().chars().take(200).collect::<String>();
        return Err(forbid(&format!("{method} {path} is not among what this agent's profile may request")));
    }
    if request.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let message = "requests are taken uncompressed only";
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", message));
    }
    if request.body().size_hint().lower() > MAX_BYTES {
        return Err(faulty(Fault::TooLarge));
    }
    Ok(upstream)
}

async fn ask(door: &Door, upstream: &Upstream, request: Request<Incoming>) -> Response<Body> {
    let Ok(Ok(place)) = timeout(TURN, Arc::clone(&door.places.requests).acquire_owned()).await else {
        door.metrics.model_request(ModelOutcome::Refused);
        return too_many("too many requests of this agent are under way");
    };
    let (route, inbox, metrics) = (Arc::clone(&door.route), Arc::clone(&door.inbox), Arc::clone(&door.metrics));
    let mut exchange = Exchange::begin(route, inbox, metrics, place);
    let (head, body) = request.into_parts();
    let Some(uri) = upstream.uri(&head.uri) else {
        exchange.end(ModelOutcome::Refused);
        return refuse(StatusCode::BAD_REQUEST, "invalid_request_error", "the request's path can't be sent on");
    };
    let model = model_in(head.uri.path()).map(str::to_owned);
    let rule = (head.method == Method::POST && upstream.kind == crate::config::ModelApiKind::Openai)
        .then(|| Rule::of(head.uri.path()))
        .flatten();
    let (question, fault) = Question::new(body, rule);
    let mut asked = Request::new(question);
    asked.method_mut().clone_from(&head.method);
    *asked.uri_mut() = uri;
    *asked.headers_mut() = upstream.headers(&head.headers);
    let answered = match timeout(HEAD, door.client.request(asked)).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(error)) => return failed(door, &mut exchange, &error, &fault),
        Err(_) => {
            exchange.end(ModelOutcome::Unreachable);
            return refuse(StatusCode::GATEWAY_TIMEOUT, "timeout_error", "the model did not answer in time");
        }
    };
    let (parts, body) = answered.into_parts();
    let meter = meter(door, upstream, &parts.headers, model.as_deref());
    exchange.answered(parts.status, meter);
    let mut response = Response::new(Reply::new(body, exchange, upstream.scrubber()).boxed_unsync());
    *response.status_mut() = parts.status;
    *response.headers_mut() = upstream.headers_back(&parts.headers);
    response
}

fn meter(door: &Door, upstream: &Upstream, headers: &HeaderMap, model: Option<&str>) -> Option<Meter> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        warn!(
            ?encoding,
            "The model of profile `{}` answers compressed though asked not to: its tokens are not counted",
            door.route.slug
        );
        return None;
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    Some(Meter::new(upstream.kind, kind.starts_with("text/event-stream"), model))
}

/// The model that a path names: `/v1beta/models/gemini-2.5-pro:generateContent`.
fn model_in(path: &str) -> Option<&str> {
    path.split_once("/models/")?.1.split(':').next()
}

/// What the agent hears when the model could not be asked. Of the error it hears nothing: it may tell of the
/// gateway's own network.
fn failed(
    door: &Door,
    exchange: &mut Exchange,
    error: &hyper_util::client::legacy::Error,
    fault: &OnceLock<Fault>,
) -> Response<Body> {
    if let Some(fault) = fault.get() {
        exchange.end(if *fault == Fault::BrokenOff { ModelOutcome::Cancelled } else { ModelOutcome::Refused });
        return faulty(*fault);
    }
    exchange.end(ModelOutcome::Unreachable);
    let cause = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ");
    warn!("The model of profile `{}` can't be reached: {cause}", door.route.slug);
    refuse(StatusCode::BAD_GATEWAY, "api_error", "the model can't be reached")
}

fn faulty(fault: Fault) -> Response<Body> {
    let message = fault.to_string();
    match fault {
        Fault::TooLarge => refuse(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", &message),
        Fault::Stalled => refuse(StatusCode::REQUEST_TIMEOUT, "timeout_error", &message),
        Fault::BrokenOff => refuse(StatusCode::BAD_REQUEST, "invalid_request_error", &message),
        Fault::Background | Fault::Untold => forbid(&message),
    }
}
