//! The name under which one request is found again: in its reply, its refusal, the log and an incident.
//!
//! A caller's own id is taken over (`x-request-id`, else the trace id of a W3C `traceparent`), so that one name
//! leads through all services; but only if it is short and of harmless letters, because it is written into
//! logs and replies. Else one is made. Ids need not be secret, only distinct.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use selfheal_actors::signal::Name;

/// The header that carries the id, in and out.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The header that carries a W3C trace.
pub(crate) const TRACE: HeaderName = HeaderName::from_static("traceparent");

/// No caller's id is longer than this; a longer one is not taken over.
const LONGEST: usize = 128;

/// The id of the request at hand, as a handler finds it in the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub Name);

/// Makes ids that no other process makes either.
#[derive(Debug)]
pub struct RequestIds {
    process: RandomState,
    /// The half of an id that tells this process from others.
    own: u64,
    made: AtomicU64,
}

impl RequestIds {
    /// The caller's id if it is sane, else a new one.
    #[must_use]
    pub fn of(&self, headers: &HeaderMap) -> RequestId {
        self.with_trace(headers).0
    }

    /// The same, and the trace that the request belongs to, as it came.
    pub(crate) fn with_trace(&self, headers: &HeaderMap) -> (RequestId, Option<Name>) {
        let trace = trace(headers);
        let theirs = own(headers).or_else(|| trace_id(trace.as_deref()?));
        (RequestId(theirs.map_or_else(|| self.make(), Into::into)), trace)
    }

    /// The `traceparent` of a call that is made on behalf of `trace`, with a span of its own.
    pub(crate) fn child_of(&self, trace: &str) -> String {
        let n = self.made.fetch_add(1, Ordering::Relaxed);
        let (id, flags) = parsed(trace).unwrap_or((trace, "00"));
        format!("00-{id}-{:016x}-{flags}", self.process.hash_one((n, "span")).max(1))
    }

    /// 128 bits that no two requests share: a count, scattered by what can be undone and so stays distinct
    /// (splitmix64), and the process's own 64.
    fn make(&self) -> Name {
        let n = self.made.fetch_add(1, Ordering::Relaxed);
        let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let digits = digits(u128::from(z) << 64 | u128::from(self.own));
        // Digits are ASCII.
        std::str::from_utf8(&digits).unwrap_or_default().into()
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        let process = RandomState::new();
        let (own, first) = (process.hash_one("own"), process.hash_one("first"));
        Self { process, own, made: AtomicU64::new(first) }
    }
}

/// `number` in 32 hexadecimal digits.
fn digits(number: u128) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 32];
    for (two, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        two[0] = DIGITS[usize::from(byte >> 4)];
        two[1] = DIGITS[usize::from(byte & 15)];
    }
    digits
}

/// The caller's trace, if it is one.
pub(crate) fn trace(headers: &HeaderMap) -> Option<Name> {
    let traceparent = headers.get(TRACE)?.to_str().ok()?;
    parsed(traceparent).map(|_| traceparent.into())
}

/// Writes the id on a reply, unless the handler has put its own there.
pub(crate) fn put(id: &RequestId, headers: &mut HeaderMap) {
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.entry(HEADER).or_insert(value);
    }
}

/// The id that the caller gave it, if it is sane.
fn own(headers: &HeaderMap) -> Option<&str> {
    headers.get(HEADER)?.to_str().ok().filter(|id| is_sane(id))
}

fn is_sane(id: &str) -> bool {
    let harmless = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&b);
    (1..=LONGEST).contains(&id.len()) && id.bytes().all(harmless)
}

/// The trace id of a `traceparent`.
fn trace_id(traceparent: &str) -> Option<&str> {
    Some(parsed(traceparent)?.0)
}

/// Trace id and flags of `version-traceid-parentid-flags`: lower-case hexadecimal digits, the id not all zero.
pub(crate) fn parsed(traceparent: &str) -> Option<(&str, &str)> {
    let mut parts = traceparent.split('-');
    let (version, trace, parent) = (parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, digits| {
        text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let valid = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(parent, 16);
    let flags = parts.next().filter(|flags| hex(flags, 2)).unwrap_or("00");
    (valid && trace.bytes().any(|b| b != b'0')).then_some((trace, flags))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn id(name: &'static str, value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header"));
        let theirs = own(&headers).map(str::to_owned);
        theirs.or_else(|| trace_id(&trace(&headers)?).map(str::to_owned))
    }

    #[test]
    fn a_sane_id_is_taken_over_and_a_trace_id_stands_in_for_it() {
        assert_eq!(id("x-request-id", "req-7.a/b").as_deref(), Some("req-7.a/b"));
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(id("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01")).as_deref(), Some(trace));
    }

    #[test]
    fn an_id_that_could_harm_a_log_or_a_page_is_not() {
        for bad in ["", "a b", "<script>", "a\tb", "ü", &"x".repeat(129), "a\"b"] {
            assert_eq!(id("x-request-id", bad), None, "{bad:?}");
        }
        for bad in ["", "00-0-0-0", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "zz"] {
            assert_eq!(id("traceparent", bad), None, "{bad:?}");
        }
    }

    #[test]
    fn digits_are_those_of_the_number() {
        let number = 0x0123_4567_89ab_cdef_0000_0000_0000_00ff;
        assert_eq!(std::str::from_utf8(&digits(number)), Ok(&*format!("{number:032x}")));
    }

    #[test]
    fn made_ids_are_distinct_within_and_across_processes() {
        let (one, other) = (RequestIds::default(), RequestIds::default());
        let ids: HashSet<_> = (0..10_000).flat_map(|_| [one.make(), other.make()]).collect();
        assert_eq!(ids.len(), 20_000);
        assert!(ids.iter().all(|id| id.len() == 32 && is_sane(id)));
    }
}
