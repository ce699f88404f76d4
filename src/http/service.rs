//! The order in which a request passes, and the future that it passes in.
//!
//! Outside in: reply( ticket( fallback( user limit and admission( deadline( retry( breaker( validate( handler )))))))).
//! The reply stands outermost, so that whatever goes wrong further in leaves as a reply; the user limit and admission
//! are one question to the gate, asked when a call begins and not in `poll_ready`, which does not see the request.
//!
//! One named future, no box: the handler is polled where it lies, with the ticket in scope. Between two calls it
//! sleeps, and holds nothing but the request itself. Dropped at any point (its caller is gone) it drops the
//! handler first and then its place at the gate, so no slot is left.
//!
//! Two things outlive their caller, each as a task of its own on the host's runtime: a request with an
//! `Idempotency-Key`, whose outcome must be known to the next one with that key, and a reply that is asked for again
//! after a failure.

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
    response::{IntoResponse as _, Response},
};
use http::{Request, request::Parts};
use http_body::Body as _;
use pin_project_lite::pin_project;
use selfheal_actors::{level::Mode, retry::Repeatable};
use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Sleep, sleep},
};
use tower_service::Service;

use super::{
    answer::Answer,
    body::Reading,
    conclude::Concluded,
    deadline::{Late, Timer},
    failure::Failure,
    idempotency::Claimed,
    judge::Judged,
    problem::Code,
    registry::Registry,
    replay::{self, Collecting, Held},
    request_id::{self, RequestId},
    visit::Visit,
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
    S: Service<Request<Body>, Response = http::Response<O>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    I: http_body::Body<Data = Bytes> + Send + 'static,
    I::Error: Into<BoxError>,
    O: http_body::Body<Data = Bytes> + Send + 'static,
    O::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = HealFuture<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A service that will never be ready again is told of by the next reply.
        if let Err(error) = ready!(self.inner.poll_ready(cx)) {
            self.unready = Some(error.into());
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<I>) -> HealFuture<S> {
        let request = request.map(Body::new);
        if Visit::is_inside(&self.registry, request.extensions()) {
            return self.pass(request, None);
        }
        let mode = self.registry.mode.get();
        if mode == Mode::Off {
            return self.pass_off(request);
        }
        let (parts, body) = request.into_parts();
        let (visit, received) = Visit::receive(&self.registry, mode, &parts);
        if let Some(error) = self.unready.take() {
            let answer = visit.failed(&*error);
            return HealFuture::answered(visit, answer);
        }
        if let Err(code) = received {
            return HealFuture::answered(visit, code.into());
        }
        self.first(visit, parts, body)
    }
}

impl<S, O> HealService<S>
where
    S: Service<Request<Body>, Response = http::Response<O>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    O: http_body::Body<Data = Bytes> + Send + 'static,
    O::Error: Into<BoxError>,
{
    /// Nobody is asked and nothing is kept. Only its id is there as ever: a handler that asks for it would answer 500
    /// without, and a switch that is to make nothing worse must not do that.
    fn pass_off(&mut self, mut request: Request<Body>) -> HealFuture<S> {
        let id = self.registry.ids.of(request.headers());
        request.extensions_mut().insert(id.clone());
        if let Some(error) = self.unready.take() {
            let answer = Some(Box::new(Failure::from(error).into_response()));
            return HealFuture::of(None, None, Stage::Unready { answer });
        }
        self.pass(request, Some(id))
    }

    fn pass(&mut self, request: Request<Body>, id: Option<RequestId>) -> HealFuture<S> {
        HealFuture::of(None, None, Stage::Passing { handler: self.inner.call(request), id })
    }

    /// The first call: of the request itself if there will be no second, else of a copy of the one that is held.
    fn first(&mut self, mut visit: Box<Visit>, parts: Parts, body: Body) -> HealFuture<S> {
        let is_keyed = visit.key.is_some();
        let is_held = is_keyed || (visit.mode == Mode::Act && visit.repeatable != Repeatable::Never);
        if !is_held || !replay::is_short(&body) {
            visit.repeatable = Repeatable::Never;
            visit.key = None;
            return self.once(visit, Request::from_parts(parts, body));
        }
        let held = visit.held.insert(Held { parts, body: Bytes::new() });
        if !is_keyed && body.is_end_stream() {
            let request = held.request();
            return self.at_once(visit, request, Some(self.inner.clone()));
        }
        let others = self.inner.clone();
        // The one that is ready goes along; who is not stays.
        let service = std::mem::replace(&mut self.inner, others);
        let stage = Stage::Collecting { collecting: Collecting::new(body) };
        let future = HealFuture::of(Some(visit), Some(service), stage);
        if is_keyed && let Ok(runtime) = Handle::try_current() {
            return HealFuture::of(None, None, Stage::Detached { task: runtime.spawn(future) });
        }
        future
    }

    fn once(&mut self, mut visit: Box<Visit>, request: Request<Body>) -> HealFuture<S> {
        if visit.fallback.is_some() {
            visit.asked = Some(request.headers().clone());
        }
        self.at_once(visit, request, None)
    }

    /// There is nothing to wait for. `again` is whom to call if this call fails.
    fn at_once(
        &mut self,
        mut visit: Box<Visit>,
        mut request: Request<Body>,
        again: Option<S>,
    ) -> HealFuture<S> {
        visit.mark(request.extensions_mut());
        let stage = begun(&mut visit, || self.inner.call(request));
        HealFuture::of(Some(visit), again, stage)
    }
}

/// A call begins: the handler is at work, unless somebody says no or it panics at once.
fn begun<F>(visit: &mut Visit, call: impl FnOnce() -> F) -> Stage<F> {
    if let Err(problem) = visit.begin() {
        return Stage::answered(Answer::problem(*problem, None));
    }
    match visit.run(call) {
        Ok(handler) => Stage::Handling { handler },
        Err(panic) => {
            let answer = visit.panicked(&panic);
            visit.settle(&answer);
            Stage::answered(answer)
        }
    }
}

pin_project! {
    /// One request behind the [layer](super::HealLayer).
    ///
    /// Cancel safety: it may be dropped at any point; what it held is given back.
    #[must_use = "futures do nothing unless polled"]
    pub struct HealFuture<S>
    where
        S: Service<Request<Body>>,
    {
        #[pin]
        stage: Stage<S::Future>,
        #[pin]
        timer: Timer,
        // Whom to call, and to call again.
        service: Option<S>,
        // Dropped after the handler: its place at the gate is free when its work has ended, not before.
        visit: Option<Box<Visit>>,
    }
}

pin_project! {
    // What is rare is in a box, so that a future has little more than the size of its handler.
    #[project = StageProjection]
    enum Stage<F> {
        Answered { answer: Option<Box<Answer>> },
        Collecting { collecting: Collecting },
        Sleeping { asleep: Pin<Box<Sleep>> },
        Readying,
        Handling { #[pin] handler: F },
        Passing { #[pin] handler: F, id: Option<RequestId> },
        Unready { answer: Option<Box<Response>> },
        Reading { reading: Box<Reading> },
        Detached { task: JoinHandle<Result<Response, Infallible>> },
        Over,
    }
}

impl<F> Stage<F> {
    fn answered(answer: Answer) -> Self {
        Self::Answered { answer: Some(Box::new(answer)) }
    }
}

/// What is done next.
enum Step {
    /// The handler is called.
    Call,
    /// A call has ended.
    Ended(Answer),
    /// There is nothing more to try.
    Final(Answer),
    /// Its reply is read on.
    Read(Box<Reading>),
    /// Something else has its turn.
    Wait,
}

impl<S: Service<Request<Body>>> HealFuture<S> {
    const fn of(visit: Option<Box<Visit>>, service: Option<S>, stage: Stage<S::Future>) -> Self {
        Self { stage, timer: Timer::new(), service, visit }
    }

    fn answered(visit: Box<Visit>, answer: Answer) -> Self {
        Self::of(Some(visit), None, Stage::answered(answer))
    }
}

impl<S, O> Future for HealFuture<S>
where
    S: Service<Request<Body>, Response = http::Response<O>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    O: http_body::Body<Data = Bytes> + Send + 'static,
    O::Error: Into<BoxError>,
{
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.visit.is_none() {
            return pass(self.project().stage, cx);
        }
        loop {
            let step = match self.as_mut().step(cx) {
                Step::Wait => ready!(self.as_mut().late(cx)),
                step @ (Step::Call | Step::Read(_) | Step::Ended(_) | Step::Final(_)) => step,
            };
            let answer = match step {
                Step::Call => {
                    self.as_mut().call();
                    continue;
                }
                Step::Read(reading) => {
                    self.as_mut().project().stage.set(Stage::Reading { reading });
                    continue;
                }
                // Late, and only observed: it goes on.
                Step::Wait => continue,
                Step::Ended(answer) if self.as_mut().is_made_again(&answer) => continue,
                Step::Ended(answer) => answer,
                Step::Final(answer) => answer,
            };
            return self.finish(answer);
        }
    }
}

impl<S, O> HealFuture<S>
where
    S: Service<Request<Body>, Response = http::Response<O>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    O: http_body::Body<Data = Bytes> + Send + 'static,
    O::Error: Into<BoxError>,
{
    /// Goes on with what is at hand.
    fn step(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Step {
        let mut this = self.project();
        let Some(visit) = this.visit else { return Step::Wait };
        match this.stage.as_mut().project() {
            StageProjection::Answered { answer } => {
                answer.take().map_or(Step::Wait, |answer| Step::Final(*answer))
            }
            StageProjection::Over
            | StageProjection::Detached { .. }
            | StageProjection::Passing { .. }
            | StageProjection::Unready { .. } => Step::Wait,
            StageProjection::Collecting { collecting } => match collecting.poll(cx) {
                Poll::Pending => Step::Wait,
                // Its caller has gone, or sends what cannot be read.
                Poll::Ready(Err(_)) => Step::Final(Code::Rejected.into()),
                Poll::Ready(Ok(body)) => collected(visit, body),
            },
            StageProjection::Sleeping { asleep } => match asleep.as_mut().poll(cx) {
                Poll::Pending => Step::Wait,
                Poll::Ready(()) => {
                    this.stage.set(Stage::Readying);
                    readied(visit, this.service, cx)
                }
            },
            StageProjection::Readying => readied(visit, this.service, cx),
            StageProjection::Handling { handler } => match visit.run(|| handler.poll(cx)) {
                Err(panic) => Step::Ended(visit.panicked(&panic)),
                Ok(Poll::Ready(Err(error))) => Step::Ended(visit.failed(&*error.into())),
                Ok(Poll::Ready(Ok(response))) => match visit.judge(response.map(Body::new)) {
                    Judged::Answer(answer) => Step::Ended(answer),
                    Judged::Read(mut reading) => {
                        read(visit, &mut reading, cx).unwrap_or_else(|| Step::Read(Box::new(reading)))
                    }
                },
                Ok(Poll::Pending) => Step::Wait,
            },
            StageProjection::Reading { reading } => read(visit, reading, cx).unwrap_or(Step::Wait),
        }
    }

    /// Calls the handler, unless somebody says no.
    fn call(self: Pin<&mut Self>) {
        let mut this = self.project();
        let (Some(visit), Some(service)) = (this.visit, this.service) else { return };
        let Some(mut request) = visit.held.as_ref().map(Held::request) else { return };
        visit.mark(request.extensions_mut());
        visit.begun = visit.registry.clock.now();
        if visit.has_attempt_timeout() {
            this.timer.unset();
        }
        let stage = begun(visit, || service.call(request));
        this.stage.set(stage);
    }

    /// A call has ended: it is made again, or its answer is the last.
    fn is_made_again(self: Pin<&mut Self>, answer: &Answer) -> bool {
        let mut this = self.project();
        let Some(visit) = this.visit else { return false };
        visit.settle(answer);
        let after = visit.again(answer).filter(|_| this.service.is_some());
        let Some(after) = after else { return false };
        // A handler's future may panic when it is dropped, too.
        let _ = visit.run(|| this.stage.set(Stage::Over));
        visit.leave();
        if visit.has_attempt_timeout() {
            this.timer.unset();
        }
        this.stage.set(Stage::Sleeping { asleep: Box::pin(sleep(after)) });
        true
    }

    /// The handler had its turn first: what is ready at the deadline is in time.
    fn late(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Step> {
        let this = self.project();
        let Some(visit) = this.visit else { return Poll::Pending };
        match ready!(this.timer.poll(cx, || visit.left())) {
            Late::Call => Poll::Ready(Step::Ended(Code::Deadline.into())),
            Late::Request => Poll::Ready(visit.expired().map_or(Step::Wait, |answer| {
                visit.settle(&answer);
                Step::Final(answer)
            })),
        }
    }

    fn finish(self: Pin<&mut Self>, answer: Answer) -> Poll<Result<Response, Infallible>> {
        let mut this = self.project();
        let Some(visit) = this.visit else { return Poll::Pending };
        let Concluded { reply, refresh } = visit.conclude(answer);
        // A handler's future may panic when it is dropped, too.
        let _ = visit.run(|| this.stage.set(Stage::Over));
        if let Some((visit, after)) = refresh
            && let (Some(service), Ok(runtime)) = (this.service.take(), Handle::try_current())
        {
            let asleep = Box::pin(sleep(after));
            drop(runtime.spawn(Self::of(Some(visit), Some(service), Stage::Sleeping { asleep })));
        }
        Poll::Ready(Ok(visit.finish(reply)))
    }
}

/// The request is whole: is it the first with its key?
fn collected(visit: &mut Visit, body: Bytes) -> Step {
    if let Some(key) = visit.key.take() {
        match visit.registry.keys.claim(key, &body, visit.registry.clock.now()) {
            Claimed::First(claim) => visit.claim = Some(claim),
            Claimed::Answered(reply) => return Step::Final(Answer::reply(reply, None)),
            Claimed::No(code) => return Step::Final(code.into()),
        }
    }
    if let Some(held) = &mut visit.held {
        held.body = body;
    }
    Step::Call
}

/// A reply's body is read on: most come in one piece, with their head. `None` if there is more to come.
fn read(visit: &mut Visit, reading: &mut Reading, cx: &mut Context<'_>) -> Option<Step> {
    match visit.run(|| reading.poll(cx)) {
        Err(panic) => Some(Step::Ended(visit.panicked(&panic))),
        Ok(Poll::Ready(read)) => Some(Step::Ended(visit.judge_read(read))),
        Ok(Poll::Pending) => None,
    }
}

/// A service is asked whether it is ready before each call but the first, which its caller has asked for.
fn readied<S, O>(visit: &Visit, service: &mut Option<S>, cx: &mut Context<'_>) -> Step
where
    S: Service<Request<Body>, Response = http::Response<O>>,
    S::Error: Into<BoxError>,
{
    let Some(service) = service else { return Step::Wait };
    match service.poll_ready(cx) {
        Poll::Pending => Step::Wait,
        Poll::Ready(Ok(())) => Step::Call,
        Poll::Ready(Err(error)) => Step::Final(visit.failed(&*error.into())),
    }
}

/// The request is guarded further out already, or by a task of its own, or by nobody.
fn pass<F, O, E>(stage: Pin<&mut Stage<F>>, cx: &mut Context<'_>) -> Poll<Result<Response, Infallible>>
where
    F: Future<Output = Result<http::Response<O>, E>>,
    E: Into<BoxError>,
    O: http_body::Body<Data = Bytes> + Send + 'static,
    O::Error: Into<BoxError>,
{
    let response = match stage.project() {
        StageProjection::Passing { handler, id } => {
            let mut response = match ready!(handler.poll(cx)) {
                Ok(response) => response.map(Body::new),
                Err(error) => Failure::from(error.into()).into_response(),
            };
            if let Some(id) = id {
                request_id::put(id, response.headers_mut());
            }
            response
        }
        StageProjection::Unready { answer } => match answer.take() {
            Some(answer) => *answer,
            None => return Poll::Pending,
        },
        StageProjection::Detached { task } => match ready!(Pin::new(task).poll(cx)) {
            Ok(Ok(response)) => response,
            Err(error) => Failure::from(error).into_response(),
        },
        StageProjection::Answered { .. }
        | StageProjection::Collecting { .. }
        | StageProjection::Sleeping { .. }
        | StageProjection::Readying
        | StageProjection::Handling { .. }
        | StageProjection::Reading { .. }
        | StageProjection::Over => return Poll::Pending,
    };
    Poll::Ready(Ok(response))
}

impl<S: Service<Request<Body>>> fmt::Debug for HealFuture<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealFuture").field("visit", &self.visit).finish_non_exhaustive()
    }
}
