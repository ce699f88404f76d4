//! Futures and streams under a circuit.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use pin_project_lite::pin_project;

use super::{
    handle::Breaker,
    outcome::{Outcome, Rejection},
    permit::Permit,
};

/// Why a guarded call has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError<E> {
    /// It was not made.
    Rejected(Rejection),
    /// It was made, and failed like this.
    Failed(E),
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for CallError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Failed(error) => error.source(),
        }
    }
}

impl Outcome {
    /// How a result counts where nobody knows better.
    pub const fn of<T, E>(result: &Result<T, E>) -> Self {
        match result {
            Ok(_) => Self::Success,
            Err(_) => Self::Failure,
        }
    }
}

pin_project! {
    /// A call under a circuit; made by [`Breaker::call`].
    #[must_use = "a future does nothing until it is polled"]
    pub struct Call<'a, F, J> {
        breaker: &'a Breaker,
        #[pin]
        call: F,
        judge: Option<J>,
        // While the call waits. While it is polled its permit is on the stack, so that a panic of the call itself
        // finds it there, and one of somebody else who drops the future finds it here.
        waiting: Option<Permit<&'a Breaker>>,
    }

    impl<F, J> PinnedDrop for Call<'_, F, J> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(permit) = this.project().waiting.take() {
                permit.cancel();
            }
        }
    }
}

impl<'a, F, J> Call<'a, F, J> {
    #[inline]
    pub(super) const fn new(breaker: &'a Breaker, call: F, judge: J) -> Self {
        Self { breaker, call, judge: Some(judge), waiting: None }
    }
}

impl<T, E, F, J> Future for Call<'_, F, J>
where
    F: Future<Output = Result<T, E>>,
    J: FnOnce(&Result<T, E>) -> Outcome,
{
    type Output = Result<T, CallError<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let permit = match this.waiting.take() {
            Some(permit) => permit,
            None => match this.breaker.admit() {
                Ok(permit) => permit,
                Err(rejection) => return Poll::Ready(Err(CallError::Rejected(rejection))),
            },
        };
        // If the call or its judge panics, the permit is dropped: a failure.
        let Poll::Ready(result) = this.call.poll(cx) else {
            *this.waiting = Some(permit);
            return Poll::Pending;
        };
        let outcome = this.judge.take().map_or(Outcome::Ignored, |judge| judge(&result));
        permit.settle(outcome);
        Poll::Ready(result.map_err(CallError::Failed))
    }
}

impl<F, J> fmt::Debug for Call<'_, F, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("breaker", self.breaker)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// A stream under a circuit; made by [`Breaker::wrap`].
    #[must_use = "a stream does nothing until it is polled"]
    #[derive(Debug)]
    pub struct Guarded<S> {
        permit: Option<Permit<Breaker>>,
        #[pin]
        stream: S,
    }
}

impl<S> Guarded<S> {
    pub(super) const fn new(permit: Permit<Breaker>, stream: S) -> Self {
        Self { permit: Some(permit), stream }
    }
}

impl<T, E, S: Stream<Item = Result<T, E>>> Stream for Guarded<S> {
    type Item = Result<T, E>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        let item = ready!(this.stream.poll_next(cx));
        let outcome = match &item {
            None => Some(Outcome::Success),
            Some(Err(_)) => Some(Outcome::Failure),
            Some(Ok(_)) => None,
        };
        if let Some(outcome) = outcome
            && let Some(permit) = this.permit.take()
        {
            permit.settle(outcome);
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}
