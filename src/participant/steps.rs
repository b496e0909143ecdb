//! Calls of a participant as what a saga is made of.

use std::fmt;
use std::marker::PhantomData;

use http::StatusCode;
use reqwest::Url;

use crate::participant::call::{Answer, Barrier, Call, shown};
use crate::participant::{HttpError, HttpParticipant, body};
use crate::step::{Action, Effect, Payload, Probe, Probed, Step, StepContext, StepError};

/// The call of a URL, without an undo: add it with [`read_only`](crate::read_only) or
/// [`irreversible`](crate::irreversible), or say how it is [undone](Self::compensate).
///
/// It is [atomic](Action::is_atomic): what the classifier knows to be refused counts as not done.
pub struct HttpAction<I, O> {
    participant: HttpParticipant,
    url: Url,
    _types: PhantomData<fn(I) -> O>,
}

impl<I: Payload, O: Payload> HttpAction<I, O> {
    pub(super) fn new(participant: HttpParticipant, url: Url) -> Self {
        HttpAction {
            participant,
            url,
            _types: PhantomData,
        }
    }

    /// Says which URL of the same service undoes it.
    ///
    /// A success there promises that the effect is absent and can't appear any more under its key, also
    /// where it never was there (rule E5). Every other answer is tried again.
    #[must_use]
    pub fn compensate(self, path: &str) -> HttpStep<I, O> {
        HttpStep {
            undo: self.participant.url(path),
            action: self,
        }
    }

    async fn call(&self, cx: &StepContext, input: &I) -> Result<O, HttpError> {
        let call = Call::new(&self.participant, &self.url, cx);
        let answer = call.send(body::sorted(input)).await?;
        answer.success()?.read().await
    }
}

impl<I: Payload, O: Payload> Action for HttpAction<I, O> {
    type Input = I;
    type Output = O;

    async fn execute(&self, cx: &StepContext, input: &I) -> Result<O, StepError> {
        self.call(cx, input)
            .await
            .map_err(HttpError::into_step_error)
    }

    fn is_atomic(&self) -> bool {
        true
    }
}

/// The call of a URL that does something, with the URL that undoes it: made by [`HttpAction::compensate`],
/// added with [`step`](crate::step()).
///
/// It is [atomic](Step::is_atomic): what the classifier knows to be refused counts as not done.
pub struct HttpStep<I, O> {
    action: HttpAction<I, O>,
    undo: Url,
}

impl<I: Payload, O: Payload> Step for HttpStep<I, O> {
    type Input = I;
    type Output = O;

    async fn execute(&self, cx: &StepContext, input: &I) -> Result<O, StepError> {
        self.action.execute(cx, input).await
    }

    async fn compensate(
        &self,
        cx: &StepContext,
        input: &I,
        effect: Effect<&O>,
    ) -> Result<(), StepError> {
        let call = Call::new(&self.action.participant, &self.undo, cx);
        let answer = call.send(body::undo(input, effect)).await;
        answer
            .and_then(Answer::success)
            .map(drop)
            .map_err(HttpError::into_step_error)
    }

    fn is_atomic(&self) -> bool {
        true
    }
}

/// Asks a URL what became of a call: made by [`HttpParticipant::probe`], for
/// [`StepSpec::probe`](crate::StepSpec::probe).
///
/// Status 200 with an output is [`Probed::Done`]; 410 with `Amends-Barrier: never` is [`Probed::Never`];
/// everything else is [`Probed::Unknown`] (rule E4).
pub struct HttpProbe<I, O> {
    participant: HttpParticipant,
    url: Url,
    _types: PhantomData<fn(I) -> O>,
}

impl<I: Payload, O: Payload> HttpProbe<I, O> {
    pub(super) fn new(participant: HttpParticipant, url: Url) -> Self {
        HttpProbe {
            participant,
            url,
            _types: PhantomData,
        }
    }

    async fn ask(&self, cx: &StepContext, input: &I) -> Result<Probed<O>, HttpError> {
        let call = Call::new(&self.participant, &self.url, cx);
        let answer = call.send(body::sorted(input)).await?;
        match (answer.status(), answer.barrier) {
            (StatusCode::OK, _) => Ok(Probed::Done(answer.read().await?)),
            // A bare 410 is also what a service answers whose URL was retired.
            (StatusCode::GONE, Some(Barrier::Never)) => Ok(Probed::Never),
            _ => Ok(Probed::Unknown),
        }
    }
}

impl<I: Payload, O: Payload> Probe for HttpProbe<I, O> {
    type Input = I;
    type Output = O;

    async fn probe(&self, cx: &StepContext, input: &I) -> Result<Probed<O>, StepError> {
        self.ask(cx, input)
            .await
            .map_err(HttpError::into_step_error)
    }
}

impl<I, O> Clone for HttpAction<I, O> {
    fn clone(&self) -> Self {
        HttpAction {
            participant: self.participant.clone(),
            url: self.url.clone(),
            _types: PhantomData,
        }
    }
}

impl<I, O> Clone for HttpStep<I, O> {
    fn clone(&self) -> Self {
        HttpStep {
            action: self.action.clone(),
            undo: self.undo.clone(),
        }
    }
}

impl<I, O> Clone for HttpProbe<I, O> {
    fn clone(&self) -> Self {
        HttpProbe {
            participant: self.participant.clone(),
            url: self.url.clone(),
            _types: PhantomData,
        }
    }
}

impl<I, O> fmt::Debug for HttpAction<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpAction")
            .field("url", &shown(&self.url))
            .field("participant", &self.participant)
            .finish_non_exhaustive()
    }
}

impl<I, O> fmt::Debug for HttpStep<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpStep")
            .field("url", &shown(&self.action.url))
            .field("undo", &shown(&self.undo))
            .field("participant", &self.action.participant)
            .finish_non_exhaustive()
    }
}

impl<I, O> fmt::Debug for HttpProbe<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpProbe")
            .field("url", &shown(&self.url))
            .field("participant", &self.participant)
            .finish_non_exhaustive()
    }
}
