//! A client of the three services: turns what happened on the wire into what the coordinator has to
//! know: was it done, was it not, does nobody know, and is it worth trying again.

use std::time::Duration;

use amends::barrier::{self, Asked, Call, header};
use amends::failure::Stale;
use amends::{FailureMode, StepContext, StepError};
use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::api::Refusal;

/// A client of one service.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
}

/// Why a call gave no answer that the caller asked for.
///
/// It does not implement `std::error::Error`, and so converts into a [`StepError`] by our rule below
/// instead of the library's general one.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The service answered, and said no.
    Refused(Refusal),
    /// It can't be said in headers what is called.
    Unfit(barrier::CallError),
    /// No connection came about, so the request was never sent.
    Unreachable(reqwest::Error),
    /// The request may have arrived.
    Lost(reqwest::Error),
}

impl Client {
    /// A client of the service on this port of this machine.
    pub(crate) fn new(port: u16) -> Result<Self, Error> {
        // Proxies of the environment are for other hosts than ours. Time-outs are the steps'.
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self {
            http,
            base: format!("http://127.0.0.1:{port}"),
        })
    }

    /// One request, one answer, no retry: that is the coordinator's business.
    pub(crate) async fn call<A: DeserializeOwned>(
        &self,
        verb: &str,
        cx: &StepContext,
        body: &impl Serialize,
    ) -> Result<A, CallError> {
        let asked = Call::of(cx).map_err(CallError::Unfit)?.asked();
        let mut request = self
            .http
            .post(format!("{}/{verb}", self.base))
            .header(header::CALL, asked.as_str())
            .header(header::IDEMPOTENCY_KEY, cx.idempotency_key())
            .header(header::EFFECT_KEY, cx.effect_key())
            .header(header::FENCE, cx.fence());
        if asked != Asked::Compensate {
            // An undo counts attempts of its own.
            request = request.header(header::ATTEMPT, cx.attempt());
        }
        let response = request.json(body).send().await.map_err(|error| {
            if error.is_connect() {
                CallError::Unreachable(error)
            } else {
                CallError::Lost(error)
            }
        })?;
        if response.status() == StatusCode::OK {
            return response.json().await.map_err(CallError::Lost);
        }
        Err(CallError::Refused(
            response.json().await.map_err(CallError::Lost)?,
        ))
    }
}

impl From<CallError> for StepError {
    fn from(error: CallError) -> Self {
        let refusal = match error {
            CallError::Unfit(error) => return error.into(),
            CallError::Unreachable(error) => {
                return Self::not_done(error).with_mode(FailureMode::SystemNetwork);
            }
            CallError::Lost(error) => {
                return Self::in_doubt(error).with_mode(FailureMode::SystemNetwork);
            }
            CallError::Refused(refusal) => refusal,
        };
        match refusal {
            Refusal::Busy { retry_after_ms } => Self::not_done(refusal)
                .with_mode(FailureMode::ApiUnavailable)
                .retry_after(Duration::from_millis(retry_after_ms)),
            // Not this step has failed: the run has another owner.
            Refusal::Stale { fence, seen } => Stale::new(fence).seen(seen).into(),
            Refusal::Broken => Self::in_doubt(refusal).with_mode(FailureMode::ApiUnavailable),
            no => Self::rejected(no.to_string()),
        }
    }
}
