//! One call: what is sent, and what of the answer is the same whatever is called.

use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use reqwest::{Response, Url};
use serde::de::DeserializeOwned;

use crate::failure::{FailedEffect, HttpFailure, Stale, retry_after};
use crate::participant::{HttpError, HttpParticipant};
use crate::step::{CallKind, StepContext};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What the header `Amends-Barrier` says of an answer that alone could mean many things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Barrier {
    /// The fence is stale.
    Stale,
    /// The key is closed: an undo, or a probe, was there before.
    Closed,
    /// Another request has come under the key.
    OtherRequest,
    /// A call under the key was begun, and what came of it never recorded.
    Unrecorded,
    /// The result could not be stored, and the work was rolled back.
    BadResult,
    /// It did not happen, and will be refused.
    Never,
}

impl Barrier {
    /// A word counts only together with its status, so that a header that somebody copies along says nothing.
    fn of(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        match (status, headers.get("amends-barrier")?.to_str().ok()?) {
            (StatusCode::CONFLICT, "stale") => Some(Barrier::Stale),
            (StatusCode::CONFLICT, "closed") => Some(Barrier::Closed),
            (StatusCode::CONFLICT, "unrecorded") => Some(Barrier::Unrecorded),
            (StatusCode::UNPROCESSABLE_ENTITY, "other-request") => Some(Barrier::OtherRequest),
            (StatusCode::INTERNAL_SERVER_ERROR, "bad-result") => Some(Barrier::BadResult),
            (StatusCode::GONE, "never") => Some(Barrier::Never),
            _ => None,
        }
    }
}

/// A URL for people: without the query, which may be a secret.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.into()
}

/// A call that is about to be made.
pub(super) struct Call<'a> {
    participant: &'a HttpParticipant,
    url: &'a Url,
    cx: &'a StepContext,
}

impl<'a> Call<'a> {
    pub(super) fn new(participant: &'a HttpParticipant, url: &'a Url, cx: &'a StepContext) -> Self {
        Call {
            participant,
            url,
            cx,
        }
    }

    pub(super) fn shown(&self) -> String {
        shown(self.url)
    }

    fn headers(&self) -> HeaderMap {
        let cx = self.cx;
        let mut headers = self.participant.headers().clone();
        headers.insert(ACCEPT, JSON);
        headers.insert(CONTENT_TYPE, JSON);
        let mut set = |name, value: &str| {
            // Keys are printable ASCII. Of a trace that somebody handed in, nothing is better than half.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        set("idempotency-key", cx.idempotency_key());
        set("amends-effect-key", cx.effect_key());
        set("amends-fence", &cx.fence().to_string());
        set("amends-call", cx.kind().as_str());
        if cx.kind() != CallKind::Compensate {
            // An undo counts its own attempts, which say nothing about those of the effect.
            set("amends-attempt", &cx.attempt().to_string());
        }
        set("traceparent", &cx.traceparent());
        if let Some(state) = cx.tracestate() {
            set("tracestate", state);
        }
        headers
    }

    /// Makes the call. A stale fence is an error whatever was called.
    pub(super) async fn send(
        &self,
        body: Result<String, serde_json::Error>,
    ) -> Result<Answer<'a>, HttpError> {
        let body = body.map_err(|source| HttpError::Unwritable {
            url: self.shown(),
            source,
        })?;
        let request = self
            .participant
            .client()
            .request(Method::POST, self.url.clone())
            .headers(self.headers())
            .timeout(self.participant.time(self.cx))
            .body(body);
        let response = request.send().await.map_err(|error| self.lost(error))?;
        if response.url() != self.url {
            return Err(HttpError::Redirected { url: self.shown() });
        }
        let barrier = Barrier::of(response.status(), response.headers());
        if barrier == Some(Barrier::Stale) {
            let mut source = Stale::new(self.cx.fence());
            if let Some(seen) = number(response.headers(), "amends-fence") {
                source = source.seen(seen);
            }
            return Err(HttpError::Stale {
                url: self.shown(),
                source,
            });
        }
        Ok(Answer {
            call: Call { ..*self },
            response,
            barrier,
        })
    }

    /// The client's error shows the URL with its query.
    fn lost(&self, error: reqwest::Error) -> HttpError {
        HttpError::NoAnswer {
            url: self.shown(),
            source: error.without_url().into(),
        }
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// An answer whose body is not read yet.
pub(super) struct Answer<'a> {
    call: Call<'a>,
    response: Response,
    pub(super) barrier: Option<Barrier>,
}

impl Answer<'_> {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The answer if it says that the call is done: any 2xx but 202.
    pub(super) fn success(self) -> Result<Self, HttpError> {
        let headers = self.response.headers();
        let (word, effect) = match self.barrier {
            Some(Barrier::Closed) => ("closed", FailedEffect::NotDone),
            Some(Barrier::OtherRequest) => ("other-request", FailedEffect::NotDone),
            Some(Barrier::BadResult) => ("bad-result", FailedEffect::NotDone),
            // An earlier call may have done its work.
            Some(Barrier::Unrecorded) => ("unrecorded", FailedEffect::InDoubt),
            Some(Barrier::Stale | Barrier::Never) | None => ("", FailedEffect::InDoubt),
        };
        if !word.is_empty() {
            return Err(HttpError::Barrier {
                url: self.call.shown(),
                word,
                effect,
            });
        }
        if self.status() == StatusCode::ACCEPTED {
            return Err(HttpError::NotEnded {
                url: self.call.shown(),
                retry_after: retry_after(headers, std::time::SystemTime::now()),
            });
        }
        match HttpFailure::check(self.status(), headers) {
            Ok(()) => Ok(self),
            Err(source) => Err(HttpError::Refused {
                url: self.call.shown(),
                source,
            }),
        }
    }

    /// The body, as far as the limit goes.
    pub(super) async fn read<T: DeserializeOwned>(mut self) -> Result<T, HttpError> {
        let limit = self.call.participant.limit();
        let too_long = || HttpError::TooLong {
            url: self.call.shown(),
            limit,
        };
        let announced = number(self.response.headers(), CONTENT_LENGTH.as_str());
        let mut text = Vec::new();
        while let Some(chunk) =
            (self.response.chunk().await).map_err(|error| self.call.lost(error))?
        {
            if text.len() + chunk.len() > limit {
                return Err(too_long());
            }
            text.extend_from_slice(&chunk);
        }
        // Only an answer that is said to be empty is `null`: one that ends with its connection may have been cut off.
        let nothing = self.status() == StatusCode::NO_CONTENT || announced == Some(0);
        let text = if text.is_empty() && nothing {
            b"null"
        } else {
            text.as_slice()
        };
        serde_json::from_slice(text).map_err(|source| HttpError::Unreadable {
            url: self.call.shown(),
            source,
        })
    }
}
