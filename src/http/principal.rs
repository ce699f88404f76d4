//! Whose a kept reply is.
//!
//! A reply that was made for one caller must never reach another, and the identity that the user limit counts by
//! is no proof of anything. So the credentials that came with the request are part of the key as well: who claims
//! to be somebody else, without their `Authorization` and `Cookie`, finds nothing. They are kept as a digest, under
//! a key that this process has drawn: neither the store nor a dump of it gives a credential away.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use http::{HeaderMap, HeaderValue, header};
use selfheal_actors::signal::Name;

/// One caller, as far as kept replies are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    user: Option<Name>,
    credentials: Option<[u64; 2]>,
}

/// Draws digests that nobody outside can predict.
#[derive(Debug, Default)]
pub(crate) struct Digests(RandomState);

impl Principal {
    /// Everybody.
    pub(crate) const ANYBODY: Self = Self { user: None, credentials: None };

    /// Who `user` is, with the credentials of `headers`; `None` if there is neither.
    pub(crate) fn of(user: Option<Name>, headers: &HeaderMap, digests: &Digests) -> Option<Self> {
        let credentials = credentials(headers, digests);
        (user.is_some() || credentials.is_some()).then_some(Self { user, credentials })
    }

    /// What it takes in memory, beside itself.
    pub(crate) fn len(&self) -> usize {
        self.user.as_ref().map_or(0, |user| user.len())
    }
}

/// In few pieces: credentials are a digest already, and a name ends by itself.
impl Hash for Principal {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        if let Some([digest, _]) = self.credentials {
            hasher.write_u64(digest);
        }
        if let Some(user) = &self.user {
            user.hash(hasher);
        }
    }
}

impl Digests {
    /// 128 bits of `bytes`: the hasher's own 64, and those that it comes to with one letter more.
    pub(crate) fn of<'a>(&self, bytes: impl Iterator<Item = &'a [u8]>) -> [u64; 2] {
        let mut hasher = self.0.build_hasher();
        bytes.for_each(|part| part.hash(&mut hasher));
        let first = hasher.finish();
        hasher.write_u8(u8::MAX);
        [first, hasher.finish()]
    }
}

fn credentials(headers: &HeaderMap, digests: &Digests) -> Option<[u64; 2]> {
    let [authorization, cookies] = [header::AUTHORIZATION, header::COOKIE].map(|name| headers.get_all(name));
    let all = || authorization.iter().chain(&cookies).map(HeaderValue::as_bytes);
    all().next()?;
    Some(digests.of(all()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_claims_a_name_without_its_credentials_is_somebody_else() {
        let digests = Digests::default();
        let with = |token: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(token));
            headers
        };
        let of =
            |user: Option<&str>, headers: &HeaderMap| Principal::of(user.map(Name::from), headers, &digests);
        assert_eq!(of(Some("ann"), &with("Bearer a")), of(Some("ann"), &with("Bearer a")));
        assert_ne!(of(Some("ann"), &with("Bearer a")), of(Some("ann"), &with("Bearer b")));
        assert_ne!(of(Some("ann"), &with("Bearer a")), of(Some("ann"), &HeaderMap::new()));
        assert_ne!(of(Some("ann"), &HeaderMap::new()), of(Some("bob"), &HeaderMap::new()));
        assert_eq!(of(None, &HeaderMap::new()), None, "nobody");
        assert!(of(None, &with("Bearer a")).is_some());
    }
}
