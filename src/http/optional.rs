//! Work inside a request that may be left out under pressure.
//!
//! A dashboard of 160 queries is worth more with 80 of them than not at all. What is wrapped so is left out
//! while the gate says that optional work is left out; the handler gets `None`, and names what is missing.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use selfheal_actors::gate::Gate;

pin_project! {
    /// `Some` of what the work came to, or `None` if it was left out. Decided when it is first polled: work
    /// that has begun is brought to its end.
    ///
    /// Cancel safety: that of the work.
    #[must_use = "futures do nothing unless polled"]
    pub struct Optional<F> {
        #[pin]
        work: F,
        gate: Gate,
        left_out: Option<Box<dyn FnOnce() + Send>>,
        begun: bool,
    }
}

impl<F: Future> Optional<F> {
    /// `work`, unless `gate` says that optional work is left out; then `left_out` is called, to count it.
    pub fn new(work: F, gate: Gate, left_out: impl FnOnce() + Send + 'static) -> Self {
        Self { work, gate, left_out: Some(Box::new(left_out)), begun: false }
    }
}

impl<F: Future> Future for Optional<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if !*this.begun {
            if this.gate.params().omit_optional {
                if let Some(left_out) = this.left_out.take() {
                    left_out();
                }
                return Poll::Ready(None);
            }
            *this.begun = true;
        }
        this.work.poll(cx).map(Some)
    }
}

impl<F> fmt::Debug for Optional<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Optional").field("begun", &self.begun).finish_non_exhaustive()
    }
}
