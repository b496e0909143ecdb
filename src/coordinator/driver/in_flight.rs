//! What a driver waits for.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{FuturesUnordered, Stream};

use crate::saga::BoxFuture;

/// Futures that are polled when they wake, not all at each wake. Made with the first of them, since the calls of
/// many runs are over when they are polled for the first time.
pub(super) struct InFlight<T>(Option<FuturesUnordered<BoxFuture<T>>>);

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        InFlight(None)
    }
}

impl<T> InFlight<T> {
    pub(super) fn push(&mut self, future: BoxFuture<T>) {
        self.0.get_or_insert_default().push(future);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(FuturesUnordered::is_empty)
    }

    /// One that is over. Nothing where none is, and the others wake whoever polls here.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Option<T> {
        match Pin::new(self.0.as_mut()?).poll_next(cx) {
            Poll::Ready(over) => over,
            Poll::Pending => None,
        }
    }
}
