//! A small HTTP client, for the operator's commands and for the load of the drills.

use std::{error::Error, fmt};

use axum::{
    body::Bytes,
    http::{HeaderName, HeaderValue, Method, Request, StatusCode, header},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

/// No reply that this binary asks for is longer.
const LONGEST_REPLY: usize = 16 * 1024 * 1024;

/// Sends requests; connections are kept and used again. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Web(Client<HttpConnector, Full<Bytes>>);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// No reply came back.
#[derive(Debug)]
pub(crate) struct NoReply(Box<dyn Error + Send + Sync>);

impl fmt::Display for NoReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // hyper says "client error (Connect)" and keeps the reason below it.
        let mut innermost: &dyn Error = self.0.as_ref();
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        write!(f, "{innermost}")
    }
}

impl Error for NoReply {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}

impl Web {
    /// A client without open connections.
    pub(crate) fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    /// Sends one request; a body is JSON.
    ///
    /// # Errors
    ///
    /// If there was no whole reply, whatever the reason; any status is a reply.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        json: Option<String>,
    ) -> Result<Answer, NoReply> {
        let mut request = Request::builder().method(method).uri(url);
        if json.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(json.map_or_else(Full::default, Full::from)).map_err(no_reply)?;
        let (head, body) = self.0.request(request).await.map_err(no_reply)?.into_parts();
        let body = Limited::new(body, LONGEST_REPLY).collect().await.map_err(NoReply)?.to_bytes();
        Ok(Answer { status: head.status, body })
    }
}

fn no_reply(error: impl Error + Send + Sync + 'static) -> NoReply {
    NoReply(Box::new(error))
}
