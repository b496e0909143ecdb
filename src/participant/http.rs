//! A service, and what all calls of it have in common.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};

use crate::participant::{HttpAction, HttpProbe, SetUpError};
use crate::step::{Payload, StepContext};

/// How long a connection may take. A connect that is given up in time is known to have sent nothing; one
/// that is cut off by the time-out of the call may have.
const CONNECT: Duration = Duration::from_secs(5);
/// The end of a call is left to the step: so much of its time at most.
const MARGIN: Duration = Duration::from_secs(1);

/// Headers that are made for each call, or that would change what a call is.
const RESERVED: [&str; 14] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "idempotency-key",
    "te",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
];

/// A service that takes part in sagas over HTTP.
///
/// Cheap to clone. All calls that are made of one participant share its connections.
///
/// * A **redirect is not followed**, since the effect must not be made elsewhere: it is a failure, and in doubt.
/// * **No proxy** is used, whatever the environment says.
/// * Nothing is sent again by the client: the step's [`Retry`](crate::Retry) decides, and journals it.
/// * A call ends **before the step's time-out**: after nine tenths of it, or a second before it where
///   that is later. A connection has to be there within 5 s.
/// * `https` works where some dependency of your program turns a TLS feature of reqwest on
///   (`reqwest = { version = "0.13", features = ["rustls"] }`); otherwise each call fails, not done.
#[derive(Clone)]
pub struct HttpParticipant {
    shared: Arc<Settings>,
}

#[derive(Clone)]
struct Settings {
    base: Url,
    client: Client,
    headers: HeaderMap,
    timeout: Option<Duration>,
    limit: usize,
}

impl HttpParticipant {
    /// How long an answer may be unless the participant says otherwise: 1 MiB.
    pub const DEFAULT_ANSWER_LIMIT: usize = 1 << 20;

    /// The service whose URLs begin so: `http://payments:8080`, `https://example.com/payments/v1`.
    ///
    /// # Errors
    ///
    /// [`SetUpError::Url`] where that is no `http` or `https` URL, or has a user, a password, a query or a
    /// fragment: a secret belongs into a [`header`](Self::header). [`SetUpError::Client`] where no client can be made.
    pub fn new(base: &str) -> Result<Self, SetUpError> {
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .user_agent(concat!("amends/", env!("CARGO_PKG_VERSION")))
            .build();
        let client = client.map_err(|error| SetUpError::Client {
            source: error.into(),
        })?;
        HttpParticipant::with_client(base, client)
    }

    /// The same with a client of yours: for a proxy, a client certificate, roots of your own, HTTP/2.
    ///
    /// Build it with `redirect(Policy::none())`. A client that follows redirects may make the effect
    /// elsewhere; an answer that comes from another URL than was called is a failure, and in doubt.
    ///
    /// This is the one place where a type of a crate below 1.0 stands in a signature: client certificates
    /// and proxies are a matter of dozens of settings that reqwest has, and a copy of its builder would always lack the one that is
    /// needed. A new reqwest may so be a breaking change of this one function; who does not call it never meets
    /// the type.
    ///
    /// # Errors
    ///
    /// [`SetUpError::Url`], as [`new`](Self::new).
    pub fn with_client(base: &str, client: Client) -> Result<Self, SetUpError> {
        let url = |why: &str| SetUpError::Url {
            why: why.to_owned(),
        };
        let base: Url = base
            .parse()
            .map_err(|error| url(&format!("is none: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(url("has to begin with `http://` or `https://`"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(url(
                "holds a user or a password: send them as a header `authorization`",
            ));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(url("has a query or a fragment, and paths are to follow"));
        }
        Ok(HttpParticipant {
            shared: Arc::new(Settings {
                base,
                client,
                headers: HeaderMap::new(),
                timeout: None,
                limit: HttpParticipant::DEFAULT_ANSWER_LIMIT,
            }),
        })
    }

    fn change(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }

    /// Sends this header with each call, authorisation for example. Its value is not shown by `Debug`, in
    /// no error and in no log. A second one of the same name replaces the first.
    ///
    /// Applies to what is [called](Self::call) of the participant that is returned.
    ///
    /// # Errors
    ///
    /// [`SetUpError::Header`] where that is no header, or one that each call has of its own: the keys, the
    /// fence, the trace, what tells the body.
    pub fn header(self, name: &str, value: &str) -> Result<Self, SetUpError> {
        let refused = |why| SetUpError::Header {
            name: name.to_owned(),
            why,
        };
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| refused("has a name that no header can have"))?;
        if parsed.as_str().starts_with("amends-") || RESERVED.contains(&parsed.as_str()) {
            return Err(refused("is made for each call"));
        }
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| refused("has a value that no header can have"))?;
        value.set_sensitive(true);
        Ok(self.change(|settings| {
            settings.headers.insert(parsed, value);
        }))
    }

    /// How long a call may take at most, where that is less than the step's time-out allows.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.change(|settings| settings.timeout = Some(timeout))
    }

    /// How many bytes an answer may have; 1 MiB by default. A longer one is a failure that is in doubt and
    /// not tried again: the effect is there, and the answer would be as long again.
    #[must_use]
    pub fn answer_limit(self, bytes: usize) -> Self {
        self.change(|settings| settings.limit = bytes)
    }

    /// The call of a URL of this service with an `I`, answered with an `O`: an [`Action`](crate::Action), or a
    /// step once it can be undone ([`HttpAction::compensate`]).
    ///
    /// `path` goes behind the base URL, and may have a query. No part of the input gets into it.
    #[must_use]
    pub fn call<I: Payload, O: Payload>(&self, path: &str) -> HttpAction<I, O> {
        HttpAction::new(self.clone(), self.url(path))
    }

    /// Asks a URL of this service what became of a call: for [`StepSpec::probe`](crate::StepSpec::probe).
    #[must_use]
    pub fn probe<I: Payload, O: Payload>(&self, path: &str) -> HttpProbe<I, O> {
        HttpProbe::new(self.clone(), self.url(path))
    }

    /// Whatever the path is, the URL is one of this service.
    pub(super) fn url(&self, path: &str) -> Url {
        let path = path.split('#').next().unwrap_or_default();
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        let mut url = self.shared.base.clone();
        if !path.is_empty() {
            let whole = format!(
                "{}/{}",
                url.path().trim_end_matches('/'),
                path.trim_start_matches('/')
            );
            url.set_path(&whole);
        }
        url.set_query(query);
        url
    }

    pub(super) fn client(&self) -> &Client {
        &self.shared.client
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.shared.headers
    }

    pub(super) fn limit(&self) -> usize {
        self.shared.limit
    }

    /// How long this call may take. It ends before the step's time-out does, which would drop it without
    /// a word on how far it had come.
    pub(super) fn time(&self, cx: &StepContext) -> Duration {
        let most = cx.timeout().saturating_sub((cx.timeout() / 10).min(MARGIN));
        self.shared.timeout.map_or(most, |own| own.min(most))
    }
}

impl fmt::Debug for HttpParticipant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &*self.shared;
        let headers: Vec<&str> = settings.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("HttpParticipant")
            .field("base", &settings.base.as_str())
            .field("headers", &headers)
            .field("timeout", &settings.timeout)
            .field("answer_limit", &settings.limit)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_behind_the_base_and_stays_at_the_service() {
        let service = HttpParticipant::new("http://shop:8080/v1/").unwrap();
        let url = |path| service.url(path).to_string();
        assert_eq!(url("/charges"), "http://shop:8080/v1/charges");
        assert_eq!(url("charges?a=b c"), "http://shop:8080/v1/charges?a=b%20c");
        assert_eq!(
            url("//evil.example/x"),
            "http://shop:8080/v1/evil.example/x"
        );
        assert_eq!(
            url("http://evil.example/"),
            "http://shop:8080/v1/http://evil.example/"
        );
        assert_eq!(url("@evil.example"), "http://shop:8080/v1/@evil.example");
        assert_eq!(url("/a b#c"), "http://shop:8080/v1/a%20b");
        assert_eq!(url(""), "http://shop:8080/v1/");
    }
}
