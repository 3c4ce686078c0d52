//! Query parameters, read with the same care as the fields of a body: one answer names every problem.
//! Parameters that nobody asks for are ignored.

use std::ops::RangeInclusive;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{ApiError, Gateway};
use crate::protocol::{Detail, ErrorFrame};

/// How many entries a page of a list may have.
pub(super) const PAGE: RangeInclusive<u64> = 1..=200;
/// How many it has when the client doesn't say.
pub(super) const DEFAULT_PAGE: u32 = 50;

/// The parameters of a request.
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    problems: Vec<Detail>,
}

/// Which page of a list is wanted.
#[derive(Clone, Copy)]
pub(super) struct Page<T> {
    /// At most so many entries.
    pub(super) limit: u32,
    /// Those that follow this one.
    pub(super) after: Option<T>,
}

impl FromRequestParts<Gateway> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Gateway) -> Result<Self, ApiError> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|_| ErrorFrame::invalid_field("query", "must be `name=value` pairs joined by `&`"))?;
        Ok(Self { pairs: pairs.0, problems: Vec::new() })
    }
}

impl Query {
    /// A parameter's text, if present. Twice is a problem: nobody can say which is meant.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let mut found = self.pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone());
        let first = found.next()?;
        if found.next().is_none() {
            return Some(first);
        }
        self.problem(name, "must be given once".to_owned());
        None
    }

    /// A whole number in `range`, if present.
    pub(super) fn integer(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let text = self.text(name)?;
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && range.contains(number));
        if number.is_none() {
            self.problem(name, format!("must be a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// `true` or `false`; the latter if absent.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        match self.text(name).as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                self.problem(name, "must be `true` or `false`".to_owned());
                false
            }
        }
    }

    /// One of the words of an enum, if present.
    pub(super) fn word<T: Copy>(&mut self, name: &str, all: &[T], spell: fn(T) -> &'static str) -> Option<T> {
        let text = self.text(name)?;
        let word = all.iter().copied().find(|candidate| spell(*candidate) == text);
        if word.is_none() {
            let words: Vec<&str> = all.iter().map(|candidate| spell(*candidate)).collect();
            self.problem(name, format!("must be one of: {}", words.join(", ")));
        }
        word
    }

    /// `limit` and `cursor`, whose entries have ids that `parse` reads.
    pub(super) fn page<T>(&mut self, parse: fn(&str) -> Option<T>) -> Page<T> {
        let limit = self.integer("limit", PAGE).and_then(|limit| u32::try_from(limit).ok()).unwrap_or(DEFAULT_PAGE);
        let cursor = self.text("cursor");
        let after = cursor.as_deref().and_then(read_cursor).as_deref().and_then(parse);
        if cursor.is_some() && after.is_none() {
            self.problem("cursor", "must be a `next_cursor` of this list".to_owned());
        }
        Page { limit, after }
    }

    /// Whether all parameters were what they must be.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ErrorFrame::invalid(self.problems).into()) }
    }

    fn problem(&mut self, field: &str, problem: String) {
        self.problems.push(Detail { field: field.to_owned(), problem });
    }
}

impl<T: Copy> Page<T> {
    /// How many entries to look up: one more than are shown tells whether there is a next page.
    pub(super) fn look_up(&self) -> u32 {
        self.limit + 1
    }

    /// The entries of the page, and the cursor of the next one, none on the last page. Entries come
    /// newest first and a cursor is a place between them: what is made or erased meanwhile neither
    /// repeats nor hides one of the others.
    pub(super) fn cut<R>(&self, mut found: Vec<R>, id: fn(&R) -> String) -> (Vec<R>, Option<String>) {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|last| URL_SAFE_NO_PAD.encode(id(last)));
        (found, next)
    }
}

fn read_cursor(cursor: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()
}
