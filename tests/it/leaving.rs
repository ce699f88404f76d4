//! Callers who leave at any moment, and the work that they leave behind.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use axum::{
    body::{Body, Bytes},
    http::Response,
};
use futures_util::{StreamExt as _, stream};
use http_body::Body as _;
use selfheal_actors::gate::{Gate, Hold, Ticket};

/// A reply on its way.
pub(crate) type Reply = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Polls a request and its body `polls` times in all, unless they end before, and drops them.
pub(crate) fn poll_and_drop(mut future: Reply, polls: u32) {
    let mut context = Context::from_waker(Waker::noop());
    let mut body = None;
    for _ in 0..polls {
        match &mut body {
            None => {
                if let Poll::Ready(reply) = future.as_mut().poll(&mut context) {
                    body = Some(reply.into_body());
                }
            }
            Some(body) => {
                if let Poll::Ready(None) = Pin::new(body).poll_frame(&mut context) {
                    return;
                }
            }
        }
    }
}

/// Yields, takes a connection, and yields while it holds it.
pub(crate) async fn hold(gate: &Gate, before: u32, holding: u32) {
    pause(before).await;
    let permit = gate.acquire(Ticket::current().as_ref(), Hold::here()).await;
    pause(holding).await;
    drop(permit);
}

/// A body whose every frame takes a connection.
pub(crate) fn frames(gate: Gate, count: u32) -> Body {
    Body::from_stream(stream::iter(0..count).then(move |_| {
        let gate = gate.clone();
        async move {
            let ticket = Ticket::current().expect("the body is polled in its request's scope");
            let _permit = gate.acquire(Some(&ticket), Hold::here()).await;
            tokio::task::yield_now().await;
            Ok::<_, std::io::Error>(Bytes::from_static(b"data: x\n\n"))
        }
    }))
}

async fn pause(polls: u32) {
    for _ in 0..polls {
        tokio::task::yield_now().await;
    }
}
