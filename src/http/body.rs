//! Bodies on their way out: read to be judged, or carried to the caller.
//!
//! A streamed body is part of its request: it may take connections, so it is polled with the ticket in scope;
//! and it is in flight, so the request has not left the gate before the body has ended or its caller is gone.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes};
use http::{HeaderMap, response::Parts};
use http_body::{Body as _, Frame, SizeHint};
use selfheal_actors::gate::{Entered, Ticket};

use super::validate::LONGEST;

/// A reply whose body is read before it leaves.
#[derive(Debug)]
pub(crate) struct Reading {
    parts: Option<Parts>,
    body: Body,
    /// Most bodies come in one piece.
    first: Bytes,
    more: Vec<Bytes>,
    length: usize,
    trailers: Option<HeaderMap>,
}

/// What came of the reading.
#[derive(Debug)]
pub(crate) enum Read {
    /// All of it. Trailers are part of it.
    Whole(Parts, Bytes, Option<HeaderMap>),
    /// It is longer than is read; the body begins with what was read.
    TooLong(Parts, Body),
    /// It broke off.
    Broken(Parts, axum::Error),
}

impl Reading {
    pub(crate) const fn new(parts: Parts, body: Body) -> Self {
        Self { parts: Some(parts), body, first: Bytes::new(), more: Vec::new(), length: 0, trailers: None }
    }

    /// Reads on. Pending after it was ready once.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        loop {
            let ended = self.body.is_end_stream();
            let frame = if ended { None } else { ready!(Pin::new(&mut self.body).poll_frame(cx)) };
            let Some(parts) = self.parts.take() else { return Poll::Pending };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                None => return Poll::Ready(Read::Whole(parts, self.joined(), self.trailers.take())),
                Some(Err(error)) => return Poll::Ready(Read::Broken(parts, error)),
                Some(Ok(Ok(data))) => {
                    self.length += data.len();
                    if self.first.is_empty() {
                        self.first = data;
                    } else {
                        self.more.push(data);
                    }
                }
                Some(Ok(Err(other))) => self.trailers = other.into_trailers().ok(),
            }
            if self.length > LONGEST {
                let first = Some(std::mem::take(&mut self.first));
                let more = std::mem::take(&mut self.more).into_iter();
                let rest = std::mem::take(&mut self.body);
                return Poll::Ready(Read::TooLong(parts, Body::new(Chained { first, more, rest })));
            }
            self.parts = Some(parts);
        }
    }

    /// All that was read. What came in one piece is not copied.
    fn joined(&mut self) -> Bytes {
        let first = std::mem::take(&mut self.first);
        if self.more.is_empty() {
            return first;
        }
        let mut whole = Vec::with_capacity(self.length);
        whole.extend_from_slice(&first);
        self.more.drain(..).for_each(|data| whole.extend_from_slice(&data));
        whole.into()
    }
}

/// One body out of a whole one and its trailers.
pub(crate) fn whole(data: Bytes, trailers: Option<HeaderMap>) -> Body {
    match trailers {
        None => Body::from(data),
        Some(trailers) => Body::new(Whole { data: Some(data), trailers: Some(trailers) }),
    }
}

#[derive(Debug)]
struct Whole {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let data = self.data.take().map(Frame::data);
        Poll::Ready(data.or_else(|| self.trailers.take().map(Frame::trailers)).map(Ok))
    }
}

/// What was read, and then the rest.
#[derive(Debug)]
struct Chained {
    first: Option<Bytes>,
    more: std::vec::IntoIter<Bytes>,
    rest: Body,
}

impl http_body::Body for Chained {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.first.take().or_else(|| self.more.next()) {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }
}

/// A body that passes as it is, with its request's ticket in scope and its place at the gate.
#[derive(Debug)]
pub(crate) struct Carried {
    body: Body,
    ticket: Ticket,
    entered: Option<Entered>,
    /// Whether a panic in the body ends the reply, instead of the connection's task.
    catches: bool,
}

impl Carried {
    pub(crate) const fn new(body: Body, ticket: Ticket, entered: Option<Entered>, catches: bool) -> Self {
        Self { body, ticket, entered, catches }
    }

    fn end(&mut self) {
        self.body = Body::empty();
        self.entered = None;
    }
}

impl http_body::Body for Carried {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let body = &mut this.body;
        let polled = || this.ticket.sync_scope(|| Pin::new(body).poll_frame(cx));
        let frame = if this.catches {
            // The head has left: all that can still be said is that the reply is not whole.
            let aborted = |_| Poll::Ready(Some(Err(axum::Error::new("the handler's body panicked"))));
            catch_unwind(AssertUnwindSafe(polled)).unwrap_or_else(aborted)
        } else {
            polled()
        };
        match &frame {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(_))) if !this.body.is_end_stream() => {}
            Poll::Ready(_) => this.end(),
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
