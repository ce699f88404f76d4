//! How long a request, and the call at hand, may take.
//!
//! The deadline holds up to the end of the reply's head, and of its body where that is read before it leaves.
//! A stream that has begun is not cut: its head promised nothing about its end. The same moment stands on the
//! ticket, so that the gate never parks a request for longer, and the database is told to give up by then.
//!
//! One timer serves both, set to whichever comes first, and only once something is waited for: a request that is
//! answered at once never had one.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

/// Whose time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// The request's.
    Request,
    /// That of the call at hand.
    Call,
}

/// How much time is left; `None` is as much as it takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Left {
    pub(crate) request: Option<Duration>,
    pub(crate) call: Option<Duration>,
}

impl Left {
    fn first(self) -> Option<(Duration, Late)> {
        match (self.request, self.call) {
            (Some(request), Some(call)) if call < request => Some((call, Late::Call)),
            (Some(request), _) => Some((request, Late::Request)),
            (None, call) => call.map(|call| (call, Late::Call)),
        }
    }
}

pin_project! {
    /// Tells that time is up.
    #[derive(Debug)]
    pub(crate) struct Timer {
        #[pin]
        sleep: Option<Sleep>,
        rings_for: Late,
    }
}

impl Timer {
    /// It is not set.
    pub(crate) const fn new() -> Self {
        Self { sleep: None, rings_for: Late::Request }
    }

    /// Waits for the first time that is up: `left` is asked if the timer is not set. Rung, it is not set any more.
    pub(crate) fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        left: impl FnOnce() -> Left,
    ) -> Poll<Late> {
        let mut this = self.project();
        if this.sleep.is_none() {
            let Some((first, rings_for)) = left().first() else { return Poll::Pending };
            *this.rings_for = rings_for;
            this.sleep.set(Some(sleep(first)));
        }
        if let Some(sleep) = this.sleep.as_mut().as_pin_mut() {
            ready!(sleep.poll(cx));
        }
        this.sleep.set(None);
        Poll::Ready(*this.rings_for)
    }

    /// The call that it was set for has ended, or another one begins.
    pub(crate) fn unset(self: Pin<&mut Self>) {
        self.project().sleep.set(None);
    }
}
