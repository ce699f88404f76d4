//! A request that can be made again: its head, and a body short enough to be held.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes};
use http::{HeaderMap, Method, Request, header, request::Parts};
use http_body::Body as _;
use selfheal_actors::retry::Repeatable;

use super::idempotency;

/// A longer body is passed on as it comes, and its request is made once.
pub(crate) const LONGEST: u64 = 64 << 10;

/// A request that is held, to be made as often as it takes.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
}

impl Held {
    pub(crate) fn request(&self) -> Request<Body> {
        let body = if self.body.is_empty() { Body::empty() } else { Body::from(self.body.clone()) };
        Request::from_parts(self.parts.clone(), body)
    }
}

/// Whether a request may be made again by what it is: a safe or idempotent method, or a key.
pub(crate) fn repeatable(method: &Method, headers: &HeaderMap) -> Repeatable {
    if headers.contains_key(header::UPGRADE) {
        return Repeatable::Never;
    }
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE => {
            Repeatable::Always
        }
        _ if headers.contains_key(idempotency::HEADER) => Repeatable::UnlessDone,
        _ => Repeatable::Never,
    }
}

/// Whether `body` is known to be short enough to be held.
pub(crate) fn is_short(body: &Body) -> bool {
    body.is_end_stream() || body.size_hint().upper().is_some_and(|length| length <= LONGEST)
}

/// A body that is read to be held.
#[derive(Debug)]
pub(crate) struct Collecting {
    body: Body,
    read: Vec<u8>,
}

impl Collecting {
    pub(crate) const fn new(body: Body) -> Self {
        Self { body, read: Vec::new() }
    }

    /// Reads on.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, axum::Error>> {
        while !self.body.is_end_stream() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => break,
                Some(Err(error)) => return Poll::Ready(Err(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
            }
        }
        Poll::Ready(Ok(std::mem::take(&mut self.read).into()))
    }
}
