//! How long a request may take.
//!
//! The deadline holds up to the end of the reply's head, and of its body where that is read before it leaves.
//! A stream that has begun is not cut: its head promised nothing about its end. The same moment stands on the
//! ticket, so that the gate never parks a request for longer, and the database is told to give up by then.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

pin_project! {
    /// Completes once, when the time is up; after that, or if there is no deadline, never.
    #[derive(Debug)]
    pub(crate) struct Expiry {
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl Expiry {
    /// The time is up in `after`.
    pub(crate) fn after(after: Duration) -> Self {
        Self { sleep: Some(tokio::time::sleep(after)) }
    }

    /// The time is never up.
    pub(crate) const fn never() -> Self {
        Self { sleep: None }
    }
}

impl Future for Expiry {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut sleep = self.project().sleep;
        match sleep.as_mut().as_pin_mut().map(|sleep| sleep.poll(cx)) {
            Some(Poll::Ready(())) => {
                sleep.set(None);
                Poll::Ready(())
            }
            Some(Poll::Pending) | None => Poll::Pending,
        }
    }
}
