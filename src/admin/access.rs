//! Who may look, and who may act.
//!
//! Without a token only this machine may: a peer on the loopback, that no proxy stands in front of, and that
//! calls us by a loopback name. All three, because each alone is fooled: behind a reverse proxy *every* peer is
//! 127.0.0.1, so a forwarding header denies; and a page on the internet can make a browser talk to 127.0.0.1 under
//! a name of its own (DNS rebinding), so the name is looked at too.
//!
//! With a token, whoever has it, as a Bearer or as the password of HTTP Basic, from anywhere. A browser then
//! asks by itself: there is no sign-in page, no cookie and no session to steal.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::ConnectInfo;
use axum_extra::headers::{
    Authorization, HeaderMapExt as _,
    authorization::{Basic, Bearer},
};
use http::{StatusCode, header, request::Parts};
use parking_lot::Mutex;
use selfheal_actors::{
    clock::{Clock, Tick},
    signal::Name,
};

use super::{error::Refused, failures::Failures, secret::Token};

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Look,
    Act,
}

/// A caller that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) role: Role,
    /// Who it says it is, for the record.
    pub(crate) name: Name,
}

/// Who may do what on the admin surface.
#[derive(Debug)]
pub struct Access {
    token: Option<Token>,
    read_only_token: Option<Token>,
    read_only: bool,
    clock: Clock,
    failures: Mutex<Failures>,
}

impl Access {
    /// Only callers on this machine, and those without a token. Wrong tokens are counted on `clock`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { token: None, read_only_token: None, read_only: false, clock, failures: Mutex::default() }
    }

    /// Whoever has this token may look and act, from anywhere; nobody may without one.
    #[must_use]
    pub fn token(mut self, token: Option<Token>) -> Self {
        self.token = token;
        self
    }

    /// Whoever has this token may look, from anywhere; nobody may without one.
    #[must_use]
    pub fn read_only_token(mut self, token: Option<Token>) -> Self {
        self.read_only_token = token;
        self
    }

    /// Nobody may act.
    #[must_use]
    pub const fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Who this is, if it may do what it asks for.
    pub(crate) fn admit(&self, request: &Parts) -> Result<Caller, Refused> {
        let caller = if self.token.is_some() || self.read_only_token.is_some() {
            self.by_token(request)?
        } else {
            by_loopback(request)?
        };
        if request.method.is_safe() {
            return Ok(caller);
        }
        match caller.role {
            _ if self.read_only => Err(Refused::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "read_only",
                "the admin surface is read-only (admin.read_only)",
            )),
            Role::Act => Ok(caller),
            Role::Look => Err(Refused::new(
                StatusCode::FORBIDDEN,
                "read_only",
                "this token may look and not act; acting takes admin.token",
            )),
        }
    }

    fn by_token(&self, request: &Parts) -> Result<Caller, Refused> {
        let (now, peer) = (self.clock.now(), peer(request).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        if let Some(wait) = self.failures.lock().blocked(peer, now) {
            return Err(Refused {
                retry_after: Some(wait.as_secs() + 1),
                ..Refused::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", "too many wrong tokens")
            });
        }
        let Some((name, secret)) = credentials(request) else {
            return Err(unauthorized("a token is needed, as a Bearer or as the password of HTTP Basic"));
        };
        self.role(&secret).map(|role| Caller { role, name }).ok_or_else(|| self.failed(peer, now))
    }

    /// Both tokens are compared, whether or not the first is the one.
    fn role(&self, secret: &str) -> Option<Role> {
        let is = |token: &Option<Token>| token.as_ref().is_some_and(|token| token.is(secret).into());
        let (may_act, may_look) = (is(&self.token), is(&self.read_only_token));
        may_act.then_some(Role::Act).or_else(|| may_look.then_some(Role::Look))
    }

    fn failed(&self, peer: IpAddr, now: Tick) -> Refused {
        self.failures.lock().record(peer, now);
        unauthorized("this is not the token")
    }
}

fn unauthorized(error: &'static str) -> Refused {
    Refused::new(StatusCode::UNAUTHORIZED, "unauthorized", error)
}

fn peer(request: &Parts) -> Option<IpAddr> {
    request.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip().to_canonical())
}

/// A name, which proves nothing, and a secret.
fn credentials(request: &Parts) -> Option<(Name, String)> {
    if let Some(Authorization(bearer)) = request.headers.typed_get::<Authorization<Bearer>>() {
        return Some(("token".into(), bearer.token().to_owned()));
    }
    let Authorization(basic) = request.headers.typed_get::<Authorization<Basic>>()?;
    let name: String = basic.username().chars().filter(|c| !c.is_control()).take(64).collect();
    let name = if name.is_empty() { "token".to_owned() } else { name };
    Some((name.into(), basic.password().to_owned()))
}

fn by_loopback(request: &Parts) -> Result<Caller, Refused> {
    let denied = |error: &'static str| Err(Refused::new(StatusCode::FORBIDDEN, "forbidden", error));
    let Some(peer) = peer(request) else {
        return denied(
            "the peer's address is not known: serve with heal.serve(..), or with \
             into_make_service_with_connect_info::<SocketAddr>(), or set admin.token",
        );
    };
    if !peer.is_loopback() {
        return denied("without admin.token only callers on this machine are let in");
    }
    if request.headers.keys().any(|name| is_forwarding(name.as_str())) {
        return denied("a proxy forwarded this request: set admin.token to let in callers that it forwards");
    }
    if !is_called_by_loopback_name(request) {
        return denied("without admin.token call this service localhost, 127.0.0.1 or [::1]");
    }
    Ok(Caller { role: Role::Act, name: "loopback".into() })
}

fn is_forwarding(header: &str) -> bool {
    matches!(header, "forwarded" | "x-real-ip" | "via") || header.starts_with("x-forwarded")
}

/// Every name that the request calls us by: its `Host`, of which there must be one, and its target's.
fn is_called_by_loopback_name(request: &Parts) -> bool {
    let target = request.uri.authority().map(http::uri::Authority::as_str);
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        // HTTP/2 has no Host: the name is in the target.
        (None, None) => target,
        _ => None,
    };
    host.is_some_and(is_loopback_name) && target.is_none_or(is_loopback_name)
}

fn is_loopback_name(authority: &str) -> bool {
    let bracketed = authority.rfind(']').map_or(0, |end| end + 1);
    let port = authority.get(bracketed..).and_then(|rest| rest.rfind(':')).map(|at| bracketed + at);
    let (name, port) = port.map_or((authority, None), |at| (&authority[..at], Some(&authority[at + 1..])));
    let port_is_one = port.is_none_or(|port| port.parse::<u16>().is_ok() && !port.starts_with('+'));
    port_is_one && (name.eq_ignore_ascii_case("localhost") || matches!(name, "127.0.0.1" | "[::1]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_with_any_port_are_loopback_names() {
        for name in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:65535"] {
            assert!(is_loopback_name(name), "{name}");
        }
        for name in [
            "",
            ":",
            ":80",
            "evil.example",
            "localhost.evil.example",
            "localhost.",
            "127.0.0.1.evil.example",
            "127.0.0.2",
            "[::2]",
            "::1",
            "localhost:",
            "localhost:+80",
            "localhost:99999",
            "localhost:80:80",
            "evil@localhost",
            "localhost:80@evil",
            "[::1",
            "]localhost",
        ] {
            assert!(!is_loopback_name(name), "{name}");
        }
    }
}
