//! The same guard around calls that the service itself makes.
//!
//! ```
//! # use axum::body::Bytes; use http_body_util::Full; use tower_layer::Layer as _;
//! # fn wrap(heal: &selfheal::Heal) {
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//!
//! let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
//! let payments = heal.client("payments").layer(client);
//! # }
//! ```
//!
//! A call passes deadline( retry( breaker( validate( client )))): it ends with the request that it is made for, is made
//! again if that can help, is not made at all while its circuit is open, and what comes back is JSON or an error that
//! says so. Whoever passes the error on with `?` answers its own caller with the right code ([`CallError`] is known to
//! [`Failure`](super::Failure)), and the layer outside does not try again what was tried again here.
//!
//! A trace goes on: the request's `traceparent` is passed on with a span of its own, unless the call has one.
//!
//! What it does not do: it does not cap connections (the client does), and a reply's body that is not checked, because
//! it is a stream or too long, is under no deadline.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use selfheal_actors::{
    breaker::{Breaker, Outcome},
    error_class::ErrorClass,
    gate::Ticket,
    level::{Class, Level, Mode},
    retry::{Failed, Retries, Verdict},
    signal::Name,
    telemetry,
};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    body::{self, Read, Reading},
    call_error::CallError,
    policy::{Endpoint, Replies},
    registry::Registry,
    replay, request_id, retry_after,
    validate::{self, Head, Repair, Verdict as Judgement},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long one call may take unless it is said otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Guards a client: anything that is a `Service` of requests with a body that can be cloned, such as `Full<Bytes>`.
/// Layers of the same name share circuit and budget.
#[derive(Clone, Debug)]
pub struct ClientLayer(Shared);

/// A client behind a [`ClientLayer`]. Its futures are cancel safe: dropped, the call counts as cancelled.
#[derive(Clone, Debug)]
pub struct HealClient<S> {
    inner: S,
    shared: Shared,
}

#[derive(Clone, Debug)]
struct Shared {
    name: Name,
    registry: Arc<Registry>,
    retries: Retries,
    circuit: Option<Breaker>,
    timeout: Duration,
    expected: Arc<Endpoint>,
}

impl ClientLayer {
    pub(crate) fn new(name: &str, registry: &Arc<Registry>) -> Self {
        let name = Name::from(name);
        Self(Shared {
            retries: registry.retries_of(&name),
            circuit: registry.circuit_of(&name),
            registry: Arc::clone(registry),
            timeout: TIMEOUT,
            expected: Arc::new(Endpoint::new(Arc::clone(&name))),
            name,
        })
    }

    /// One call may take this long. Default 10 s; never longer than the request has that it is made for.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout = timeout;
        self
    }

    /// What is expected to come back. Default [`Replies::Json`].
    #[must_use]
    pub fn replies(mut self, replies: Replies) -> Self {
        self.0.expected = Arc::new(Endpoint { replies, ..Endpoint::new(Arc::clone(&self.0.name)) });
        self
    }
}

impl<S> Layer<S> for ClientLayer {
    type Service = HealClient<S>;

    fn layer(&self, inner: S) -> HealClient<S> {
        HealClient { inner, shared: self.0.clone() }
    }
}

impl<S, B, O> Service<Request<B>> for HealClient<S>
where
    S: Service<Request<B>, Response = Response<O>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Clone + Send + 'static,
    O: http_body::Body<Data = Bytes> + Send + 'static,
    O::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, CallError>> + Send>>;

    /// Always ready: each attempt waits for the client itself, within its own time.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let ticket = Ticket::current();
        pass_on(&mut request, ticket.as_ref(), &self.shared.registry);
        let call = Call { service: self.inner.clone(), shared: self.shared.clone(), request, ticket };
        Box::pin(call.run())
    }
}

/// One call, with all its attempts.
struct Call<S, B> {
    service: S,
    shared: Shared,
    request: Request<B>,
    ticket: Option<Ticket>,
}

/// How an attempt ended.
struct Attempt {
    result: Result<Response<Body>, CallError>,
    /// `None` if it is good.
    error: Option<ErrorClass>,
    retry_after: Option<Duration>,
}

impl<S, B, O> Call<S, B>
where
    S: Service<Request<B>, Response = Response<O>>,
    S::Error: Into<BoxError>,
    B: Clone,
    O: http_body::Body<Data = Bytes> + Send + 'static,
    O::Error: Into<BoxError>,
{
    async fn run(mut self) -> Result<Response<Body>, CallError> {
        let mode = self.shared.registry.mode.get();
        self.shared.retries.called(self.shared.registry.clock.now());
        for attempt in 1.. {
            let Attempt { result, error, retry_after } = self.attempt(mode).await?;
            let Some(error) = error.filter(|_| mode == Mode::Act) else {
                self.count(attempt, error.is_none());
                return result;
            };
            self.count(attempt, false);
            match self.again(attempt, error, retry_after) {
                Some(after) => tokio::time::sleep(after).await,
                None => return result.map_err(|error| error.after(attempt)),
            }
        }
        // Attempts are bounded by the policy, long before the numbers end.
        Err(CallError::Timeout { name: self.shared.name, retried: true })
    }

    /// One attempt, behind the circuit.
    async fn attempt(&mut self, mode: Mode) -> Result<Attempt, CallError> {
        let circuit = self.shared.circuit.as_ref().filter(|_| mode != Mode::Off);
        let permit = circuit.map(Breaker::admit_owned).transpose();
        let permit =
            permit.map_err(|rejection| CallError::Rejected { name: self.shared.name.clone(), rejection })?;
        let begun = self.shared.registry.clock.now();
        let attempt = match mode {
            Mode::Act => match tokio::time::timeout(self.time(), self.once(mode)).await {
                Ok(attempt) => attempt,
                Err(_) => Attempt::failed(
                    CallError::Timeout { name: self.shared.name.clone(), retried: false },
                    ErrorClass::Timeout,
                ),
            },
            Mode::Observe | Mode::Off => self.once(mode).await,
        };
        if let Some(permit) = permit {
            permit.settle_after(attempt.outcome(), self.shared.registry.clock.now().since(begun));
        }
        Ok(attempt)
    }

    async fn once(&mut self, mode: Mode) -> Attempt {
        let ready: Result<(), BoxError> =
            std::future::poll_fn(|cx| self.service.poll_ready(cx).map_err(Into::into)).await;
        let sent = match ready {
            Ok(()) => self.service.call(self.request.clone()).await.map_err(Into::into),
            Err(error) => Err(error),
        };
        match sent {
            Ok(response) if mode == Mode::Act => {
                let (response, method) = (response.map(Body::new), self.request.method().clone());
                self.shared.judge(&method, response).await
            }
            Ok(response) => self.shared.good(response.map(Body::new)),
            Err(source) => {
                let name = self.shared.name.clone();
                // Whether it got there nobody knows.
                Attempt::failed(
                    CallError::Unreachable { name, source, retried: false },
                    ErrorClass::Interrupted,
                )
            }
        }
    }

    fn again(&self, attempt: u32, error: ErrorClass, retry_after: Option<Duration>) -> Option<Duration> {
        let registry = &self.shared.registry;
        let level = registry.gate(&self.shared.expected).map_or(Level::Normal, |gate| gate.params().level());
        let failed = Failed {
            attempt,
            error,
            repeatable: replay::repeatable(self.request.method(), self.request.headers()),
            inline: true,
            class: self.ticket.as_ref().map_or(Class::Normal, Ticket::class),
            level,
            left: self.left(),
            retry_after,
        };
        match self.shared.retries.failed(&failed, registry.clock.now()) {
            Verdict::Again { after } => Some(after),
            Verdict::GiveUp(_) => None,
        }
    }

    /// How long the request has that this is for.
    fn left(&self) -> Option<Duration> {
        let deadline = self.ticket.as_ref().and_then(Ticket::deadline)?;
        Some(deadline.since(self.shared.registry.clock.now()))
    }

    fn time(&self) -> Duration {
        self.left().map_or(self.shared.timeout, |left| left.min(self.shared.timeout))
    }

    fn count(&self, attempt: u32, succeeded: bool) {
        if attempt > 1 {
            let outcome = if succeeded { "success" } else { "failure" };
            let metric = telemetry::RETRIES_TOTAL.name;
            metrics::counter!(metric, "endpoint" => self.shared.name.clone(), "outcome" => outcome)
                .increment(1);
        }
    }
}

impl Shared {
    /// What came back is read, as far as it can be judged.
    async fn judge(&self, method: &Method, response: Response<Body>) -> Attempt {
        let (parts, body) = response.into_parts();
        let expected = &self.expected;
        let length = http_body::Body::size_hint(&body).exact();
        match validate::head(expected, method, parts.status, &parts.headers, length) {
            Head::Pass => return self.good(Response::from_parts(parts, body)),
            Head::Replace(repair) => return self.invalid(&Response::from_parts(parts, ()), repair),
            Head::Read => {}
        }
        let mut reading = Reading::new(parts, body);
        match std::future::poll_fn(|cx| reading.poll(cx)).await {
            Read::Whole(parts, data, trailers) => {
                match validate::body(expected, parts.status, &parts.headers, &data) {
                    Judgement::Pass | Judgement::CallItJson => {
                        self.good(Response::from_parts(parts, body::whole(data, trailers)))
                    }
                    Judgement::Replace(repair) => self.invalid(&Response::from_parts(parts, ()), repair),
                }
            }
            Read::TooLong(parts, body) => match validate::oversize(parts.status, &parts.headers) {
                None => self.good(Response::from_parts(parts, body)),
                Some(repair) => self.invalid(&Response::from_parts(parts, ()), repair),
            },
            Read::Broken(parts, error) => {
                let repair = validate::broken(parts.status, &error);
                self.invalid(&Response::from_parts(parts, ()), repair)
            }
        }
    }

    /// What came back is what it should be, whatever its status.
    fn good(&self, response: Response<Body>) -> Attempt {
        let error = ErrorClass::of_status(response.status().as_u16());
        let retry_after = error.and_then(|_| self.retry_after(response.headers()));
        Attempt { result: Ok(response), error, retry_after }
    }

    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        retry_after::of(headers, || self.registry.clock.wall())
    }

    fn invalid(&self, head: &Response<()>, repair: Repair) -> Attempt {
        let (status, retry_after) = (head.status(), self.retry_after(head.headers()));
        let class = ErrorClass::of_status(status.as_u16()).unwrap_or(ErrorClass::Unknown);
        let (name, fault, said) = (self.name.clone(), repair.fault.name(), repair.said);
        let error = CallError::Invalid { name, status, fault, said, retry_after, retried: false };
        Attempt { retry_after, ..Attempt::failed(error, class) }
    }
}

impl Attempt {
    const fn failed(error: CallError, class: ErrorClass) -> Self {
        Self { result: Err(error), error: Some(class), retry_after: None }
    }

    /// A 4xx is our own mistake, and says nothing about whom we called.
    fn outcome(&self) -> Outcome {
        let status = match &self.result {
            Ok(response) => Some(response.status()),
            Err(CallError::Invalid { status, .. }) => Some(*status),
            Err(_) => None,
        };
        match self.error {
            None => Outcome::Success,
            Some(_) if status.is_some_and(|status| status.is_client_error()) => Outcome::Ignored,
            Some(_) => Outcome::Failure,
        }
    }
}

/// The trace and the request's id go along.
fn pass_on<B>(request: &mut Request<B>, ticket: Option<&Ticket>, registry: &Registry) {
    let Some(ticket) = ticket else { return };
    let headers = request.headers_mut();
    let trace = ticket.trace().map(|trace| registry.ids.child_of(trace));
    let id = ticket.request_id().map(|id| id.to_string());
    for (name, value) in [(request_id::TRACE, trace), (request_id::HEADER, id)] {
        if let Some(Ok(value)) = value.as_deref().map(HeaderValue::from_str) {
            headers.entry(name).or_insert(value);
        }
    }
}

impl<S, B> fmt::Debug for Call<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("name", &self.shared.name).finish_non_exhaustive()
    }
}
