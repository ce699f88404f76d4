//! Who asks: the key of the per-user limit.
//!
//! An identity is not proof of anything: a header that a caller sets can be made up anew with each request. It
//! is enough to keep one user's dashboard from taking all connections, which is what the limit is for; a host
//! that authenticates its users gives an extractor that reads what it has verified. Who shows no identity is
//! taken by the peer's address (without its port), so that a crowd behind one proxy counts as one user: name
//! the header that the proxy sets.

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use axum::extract::ConnectInfo;
use http::{HeaderName, request::Parts};
use selfheal_actors::signal::Name;

/// Where the identity of a caller stands if nothing else was said.
pub const DEFAULT_HEADER: HeaderName = HeaderName::from_static("x-user-id");

/// A longer identity is replaced by a digest of itself, so that what is kept for a user stays small.
const LONGEST: usize = 128;

type Extractor = dyn Fn(&Parts) -> Option<Name> + Send + Sync;

/// How a caller is recognised. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Source);

#[derive(Clone)]
enum Source {
    Header(HeaderName),
    Extractor(Arc<Extractor>),
}

impl Identity {
    /// The value of a header.
    #[must_use]
    pub const fn header(name: HeaderName) -> Self {
        Self(Source::Header(name))
    }

    /// Whatever `extractor` finds. It runs once a request and must be quick; if it panics or finds nothing the
    /// peer's address stands in.
    pub fn extractor(extractor: impl Fn(&Parts) -> Option<Name> + Send + Sync + 'static) -> Self {
        Self(Source::Extractor(Arc::new(extractor)))
    }

    /// The caller of this request; `None` if there is neither an identity nor the peer's address.
    #[must_use]
    pub fn of(&self, parts: &Parts) -> Option<Name> {
        self.shown(parts).or_else(|| peer(parts))
    }

    /// The same without the peer's address, which is nobody's own.
    pub(crate) fn shown(&self, parts: &Parts) -> Option<Name> {
        self.own(parts).filter(|user| !user.is_empty()).map(shortened)
    }

    fn own(&self, parts: &Parts) -> Option<Name> {
        match &self.0 {
            Source::Header(name) => parts.headers.get(name)?.to_str().ok().map(|user| user.trim().into()),
            Source::Extractor(extractor) => {
                catch_unwind(AssertUnwindSafe(|| extractor(parts))).unwrap_or_default()
            }
        }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self::header(DEFAULT_HEADER)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Header(name) => write!(f, "Identity(header {name})"),
            Source::Extractor(_) => f.write_str("Identity(extractor)"),
        }
    }
}

/// The address that a request comes from, without its port.
pub(crate) fn peer(parts: &Parts) -> Option<Name> {
    let ConnectInfo(address) = parts.extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(address.ip().to_canonical().to_string().into())
}

fn shortened(user: Name) -> Name {
    if user.len() <= LONGEST {
        return user;
    }
    let mut digest = DefaultHasher::new();
    user.hash(&mut digest);
    format!("{:016x}", digest.finish()).into()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(user: Option<&str>, peer: Option<&str>) -> Parts {
        let mut request = Request::new(());
        if let Some(user) = user {
            request.headers_mut().insert(DEFAULT_HEADER, user.parse().expect("a header"));
        }
        if let Some(peer) = peer {
            request.extensions_mut().insert(ConnectInfo::<SocketAddr>(peer.parse().expect("an address")));
        }
        request.into_parts().0
    }

    fn user(identity: &Identity, parts: &Parts) -> Option<String> {
        identity.of(parts).map(|user| user.to_string())
    }

    #[test]
    fn a_user_is_known_by_the_header_else_by_the_address_without_its_port() {
        let identity = Identity::default();
        assert_eq!(user(&identity, &parts(Some(" u1 "), Some("10.0.0.7:4711"))).as_deref(), Some("u1"));
        assert_eq!(user(&identity, &parts(Some("  "), Some("10.0.0.7:4711"))).as_deref(), Some("10.0.0.7"));
        assert_eq!(user(&identity, &parts(None, Some("[::ffff:10.0.0.7]:9"))).as_deref(), Some("10.0.0.7"));
        assert_eq!(user(&identity, &parts(None, None)), None);
    }

    #[test]
    fn an_endless_identity_is_kept_as_a_digest() {
        let (a, b) = ("x".repeat(4_000), "x".repeat(4_001));
        let of = |text: &str| user(&Identity::default(), &parts(Some(text), None)).expect("it has one");
        assert_eq!((of(&a).len(), of(&a)), (16, of(&a)));
        assert_ne!(of(&a), of(&b));
    }

    #[test]
    fn an_extractor_that_panics_costs_only_the_identity() {
        let identity = Identity::extractor(|_| panic!("planted"));
        assert_eq!(user(&identity, &parts(Some("u1"), Some("10.0.0.7:1"))).as_deref(), Some("10.0.0.7"));
    }
}
