//! The order in which a request passes, and the future that it passes in.
//!
//! Outside in: reply( ticket( user limit and admission( deadline( validate( handler ))))). The reply stands
//! outermost, so that whatever goes wrong further in leaves as a reply; the user limit and admission are one
//! question to the gate, decided in `call` and not in `poll_ready`, which does not see the request.
//!
//! One named future, no box: the handler is polled where it lies, with the ticket in scope. Dropped at any
//! point (its caller is gone) it drops the handler first and then its place at the gate, so no slot is left.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use http::Request;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    body::Reading,
    deadline::Expiry,
    registry::Registry,
    visit::{Fate, Visit},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A service behind the [layer](super::HealLayer). Its error type is [`Infallible`].
pub struct HealService<S> {
    inner: S,
    registry: Arc<Registry>,
    unready: Option<BoxError>,
}

impl<S> HealService<S> {
    pub(crate) const fn new(inner: S, registry: Arc<Registry>) -> Self {
        Self { inner, registry, unready: None }
    }
}

impl<S: Clone> Clone for HealService<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.registry))
    }
}

impl<S: fmt::Debug> fmt::Debug for HealService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, I, O> Service<Request<I>> for HealService<S>
where
    S: Service<Request<I>, Response = http::Response<O>>,
    S::Error: Into<BoxError>,
    O: http_body::Body<Data = Bytes> + Send + 'static,
    O::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = HealFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A service that will never be ready again is told of by the next reply.
        if let Err(error) = ready!(self.inner.poll_ready(cx)) {
            self.unready = Some(error.into());
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<I>) -> HealFuture<S::Future> {
        if Visit::is_inside(&self.registry, request.extensions()) {
            return HealFuture::of(None, Stage::Handling { handler: self.inner.call(request) });
        }
        let (mut parts, body) = request.into_parts();
        let mut visit = Visit::receive(&self.registry, &mut parts);
        let request = Request::from_parts(parts, body);
        let stage = if let Some(error) = self.unready.take() {
            Stage::Answered { reply: Some(visit.failed(&*error)) }
        } else if let Err(refusal) = visit.enter() {
            Stage::Answered { reply: Some(visit.refused(&refusal)) }
        } else {
            match visit.run(|| self.inner.call(request)) {
                Ok(handler) => Stage::Handling { handler },
                Err(panic) => Stage::Answered { reply: Some(visit.panicked(&panic)) },
            }
        };
        HealFuture::of(Some(visit), stage)
    }
}

pin_project! {
    /// One request behind the [layer](super::HealLayer).
    ///
    /// Cancel safety: it may be dropped at any point; what it held is given back.
    #[must_use = "futures do nothing unless polled"]
    pub struct HealFuture<F> {
        #[pin]
        stage: Stage<F>,
        #[pin]
        expiry: Expiry,
        // Dropped after the handler: its place at the gate is free when its work has ended, not before.
        visit: Option<Visit>,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<F> {
        Answered { reply: Option<Response> },
        Handling { #[pin] handler: F },
        Reading { reading: Reading },
        Over,
    }
}

impl<F> HealFuture<F> {
    fn of(visit: Option<Visit>, stage: Stage<F>) -> Self {
        let expiry = match (&stage, &visit) {
            (Stage::Handling { .. }, Some(visit)) => visit.expiry(),
            _ => Expiry::never(),
        };
        Self { stage, expiry, visit }
    }
}

impl<F, O, E> Future for HealFuture<F>
where
    F: Future<Output = Result<http::Response<O>, E>>,
    E: Into<BoxError>,
    O: http_body::Body<Data = Bytes> + Send + 'static,
    O::Error: Into<BoxError>,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(visit) = this.visit else {
            return pass(this.stage, cx);
        };
        let reply = loop {
            let fate = match this.stage.as_mut().project() {
                StageProjection::Answered { reply } => match reply.take() {
                    Some(reply) => break reply,
                    None => return Poll::Pending,
                },
                StageProjection::Over => return Poll::Pending,
                StageProjection::Handling { handler } => match visit.run(|| handler.poll(cx)) {
                    Err(panic) => break visit.panicked(&panic),
                    Ok(Poll::Ready(Err(error))) => break visit.failed(&*error.into()),
                    Ok(Poll::Ready(Ok(response))) => visit.judge(response.map(Body::new)),
                    Ok(Poll::Pending) => Fate::Open,
                },
                StageProjection::Reading { reading } => match visit.run(|| reading.poll(cx)) {
                    Err(panic) => break visit.panicked(&panic),
                    Ok(Poll::Ready(read)) => Fate::Reply(visit.judge_read(read)),
                    Ok(Poll::Pending) => Fate::Open,
                },
            };
            match fate {
                Fate::Reply(reply) => break reply,
                Fate::Read(reading) => this.stage.set(Stage::Reading { reading }),
                // The handler had its turn first: what is ready at the deadline is in time.
                Fate::Open => {
                    ready!(this.expiry.as_mut().poll(cx));
                    if let Some(reply) = visit.expired() {
                        break reply;
                    }
                }
            }
        };
        // A handler's future may panic when it is dropped, too.
        let _ = visit.run(|| this.stage.set(Stage::Over));
        Poll::Ready(Ok(visit.finish(reply)))
    }
}

/// The request is guarded further out already.
fn pass<F, O, E>(stage: Pin<&mut Stage<F>>, cx: &mut Context<'_>) -> Poll<Result<Response, Infallible>>
where
    F: Future<Output = Result<http::Response<O>, E>>,
    E: Into<BoxError>,
    O: http_body::Body<Data = Bytes> + Send + 'static,
    O::Error: Into<BoxError>,
{
    let StageProjection::Handling { handler } = stage.project() else { return Poll::Pending };
    let response = match ready!(handler.poll(cx)) {
        Ok(response) => response.map(Body::new),
        Err(error) => {
            axum::response::IntoResponse::into_response(super::failure::Failure::from(error.into()))
        }
    };
    Poll::Ready(Ok(response))
}

impl<F> fmt::Debug for HealFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealFuture").field("visit", &self.visit).finish_non_exhaustive()
    }
}
