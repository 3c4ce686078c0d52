//! One request of an agent to its model, and the response back.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;
use tracing::warn;

use super::answer::{Body, forbid, refuse, too_many};
use super::door::Door;
use super::exchange::Exchange;
use super::meter::Meter;
use super::question::{Fault, MAX_BYTES, Question, Sent};
use super::reply::Reply;
use super::rule::{Rule, model_in};
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
    let is_paid = Rule::of(upstream.kind, uri.path()).is_some();
    if let Some(message) = unreadable(request.headers(), is_paid) {
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", message));
    }
    if request.body().size_hint().lower() > MAX_BYTES {
        return Err(faulty(Fault::TooLarge));
    }
    Ok(upstream)
}

/// Why a request's body could be something else than it looks like. `is_paid`: that matters.
fn unreadable(headers: &HeaderMap, is_paid: bool) -> Option<&'static str> {
    if headers.get_all(header::CONTENT_ENCODING).iter().any(|encoding| encoding != "identity") {
        return Some("requests are taken uncompressed only");
    }
    let is_json = |kind: &HeaderValue| {
        let kind = kind.to_str().unwrap_or_default().to_ascii_lowercase().replace([' ', '\t', '"'], "");
        matches!(kind.trim_end_matches(';'), "application/json" | "application/json;charset=utf-8")
    };
    let all_json = headers.get_all(header::CONTENT_TYPE).iter().all(is_json);
    (is_paid && !all_json).then_some("requests are taken as `application/json` only, in UTF-8")
}

async fn ask(door: &Door, upstream: &Upstream, request: Request<Incoming>) -> Response<Body> {
    let Ok(Ok(place)) = timeout(TURN, Arc::clone(&door.places.requests).acquire_owned()).await else {
        door.metrics.model_request(ModelOutcome::Refused);
        return too_many("too many requests of this agent are under way");
    };
    let (route, inbox, metrics) = (Arc::clone(&door.route), Arc::clone(&door.inbox), Arc::clone(&door.metrics));
    let rule = Rule::of(upstream.kind, request.uri().path());
    let Some(mut exchange) = Exchange::begin(route, inbox, metrics, place, rule.is_some()) else {
        door.metrics.model_request(ModelOutcome::Refused);
        return forbid("no task is at work, or it is to stop: an agent reaches its model for its tasks");
    };
    let (head, body) = request.into_parts();
    let Some(uri) = upstream.uri(&head.uri) else {
        exchange.end(ModelOutcome::Refused);
        return refuse(StatusCode::BAD_REQUEST, "invalid_request_error", "the request's path can't be sent on");
    };
    let model = model_in(head.uri.path()).map(str::to_owned);
    // Whatever the method: some servers hear of another one by a header.
    let asks = head.method == Method::POST || !body.is_end_stream();
    let rule = rule.filter(|_| asks);
    let is_paid = rule.is_some();
    let (question, sent) = Question::new(body, rule);
    if is_paid {
        exchange.asks(Arc::clone(&sent));
    }
    let mut asked = Request::new(question);
    asked.method_mut().clone_from(&head.method);
    *asked.uri_mut() = uri;
    *asked.headers_mut() = upstream.headers(&head.headers);
    let answered = match timeout(HEAD, upstream.client.request(asked)).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(error)) => return failed(door, &mut exchange, &error, &sent),
        Err(_) => {
            exchange.end(ModelOutcome::Unreachable);
            return refuse(StatusCode::GATEWAY_TIMEOUT, "timeout_error", "the model did not answer in time");
        }
    };
    let (parts, body) = answered.into_parts();
    let meter = meter(door, upstream, &parts.headers, model.as_deref());
    exchange.answered(parts.status, meter);
    if is_paid && (parts.status.is_client_error() || parts.status.is_server_error()) {
        door.route.note_refusal(parts.status);
    }
    let mut response = Response::new(Reply::new(body, exchange, upstream.scrubber()).boxed_unsync());
    *response.status_mut() = parts.status;
    *response.headers_mut() = upstream.headers_back(&parts.headers);
    response
}

fn meter(door: &Door, upstream: &Upstream, headers: &HeaderMap, model: Option<&str>) -> Option<Meter> {
    if let Some(encoding) = headers.get_all(header::CONTENT_ENCODING).iter().find(|encoding| *encoding != "identity") {
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

/// What the agent hears when the model could not be asked. Of the error it hears nothing: it may tell of the
/// gateway's own network.
fn failed(
    door: &Door,
    exchange: &mut Exchange,
    error: &hyper_util::client::legacy::Error,
    sent: &Sent,
) -> Response<Body> {
    if let Some(fault) = sent.fault.get() {
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
        Fault::BrokenOff | Fault::Unreadable => refuse(StatusCode::BAD_REQUEST, "invalid_request_error", &message),
        Fault::Background | Fault::Untold => forbid(&message),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    #[test]
    fn a_body_is_plain_json_by_all_that_its_headers_say() {
        let is_refused = |headers: &[(HeaderName, &str)]| {
            let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
            unreadable(&headers.collect(), true).is_some()
        };
        let (encoding, kind) = (header::CONTENT_ENCODING, header::CONTENT_TYPE);
        assert!(!is_refused(&[]));
        for fine in ["application/json", "Application/JSON; charset=UTF-8", "application/json; charset=\"utf-8\""] {
            assert!(!is_refused(&[(encoding.clone(), "identity"), (kind.clone(), fine)]), "{fine}");
        }
        assert!(is_refused(&[(encoding.clone(), "gzip")]));
        assert!(is_refused(&[(encoding.clone(), "identity"), (encoding, "gzip")]));
        for wrong in [
            "",
            "text/plain",
            "multipart/form-data; boundary=a",
            "application/x-www-form-urlencoded",
            "application/json; charset=utf-16",
            "application/json; charset=utf-8; charset=utf-7",
        ] {
            assert!(is_refused(&[(kind.clone(), "application/json"), (kind.clone(), wrong)]), "{wrong}");
        }
        let upload = HeaderMap::from_iter([(kind, "multipart/form-data; boundary=a".parse().unwrap())]);
        assert_eq!(unreadable(&upload, false), None);
    }
}
