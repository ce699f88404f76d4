//! Wrong passwords, counted by where they came from.
//!
//! A pure machine: five within a minute, and the peer is not listened to for the rest of that minute, whatever
//! it sends. IPv6 peers are counted by their /64, which is what one subscriber has. At most [`MOST`] peers are
//! remembered; when so many are in trouble at once, all further ones share one count, so that neither memory
//! grows nor anybody is forgotten early by a flood. Behind a proxy that shows no addresses all callers are one
//! peer, and one of them can lock the others out for a minute: such a proxy should authenticate by itself.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use selfheal_actors::clock::Tick;

/// So many failures of one peer are let through in a [`PERIOD`].
pub(crate) const ALLOWED: u32 = 5;
/// The stretch of time in which failures are counted.
pub(crate) const PERIOD: Duration = Duration::from_secs(60);
/// How often room is made at most.
const SWEEP: Duration = Duration::from_secs(1);
/// So many peers are told apart.
const MOST: usize = 1024;

/// Failures by peer.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    peers: HashMap<IpAddr, Count>,
    others: Option<Count>,
    swept: Tick,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    since: Tick,
    failures: u32,
}

impl Count {
    fn is_over(self, now: Tick) -> bool {
        now.since(self.since) >= PERIOD
    }

    fn blocked(self, now: Tick) -> Option<Duration> {
        let over = self.is_over(now) || self.failures < ALLOWED;
        (!over).then(|| PERIOD.saturating_sub(now.since(self.since)))
    }
}

impl Failures {
    /// For how long `peer` is not listened to, if it is not.
    pub(crate) fn blocked(&self, peer: IpAddr, now: Tick) -> Option<Duration> {
        let own = self.peers.get(&network(peer));
        let shared = self.others.as_ref().filter(|_| self.peers.len() >= MOST);
        own.or(shared).and_then(|count| count.blocked(now))
    }

    /// `peer` has failed once more.
    pub(crate) fn record(&mut self, peer: IpAddr, now: Tick) {
        let peer = network(peer);
        // Not at each failure of a flood: a sweep walks all of them.
        if self.peers.len() >= MOST && now.since(self.swept) >= SWEEP {
            self.peers.retain(|_, count| !count.is_over(now));
            self.swept = now;
        }
        if self.peers.len() < MOST || self.peers.contains_key(&peer) {
            let count = self.peers.entry(peer).or_insert(Count { since: now, failures: 0 });
            fail(count, now);
        } else {
            fail(self.others.get_or_insert(Count { since: now, failures: 0 }), now);
        }
    }
}

fn fail(count: &mut Count, now: Tick) {
    if count.is_over(now) {
        *count = Count { since: now, failures: 0 };
    }
    count.failures = count.failures.saturating_add(1);
}

/// The address for IPv4, the /64 for IPv6.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> Tick = |seconds| Tick::from_millis(seconds * 1_000);

    fn peer(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_fifth_failure_within_a_minute_blocks_for_the_rest_of_it() {
        let (mut failures, eve) = (Failures::default(), peer("203.0.113.7"));
        for second in 0..4 {
            failures.record(eve, AT(second));
        }
        assert_eq!(failures.blocked(eve, AT(4)), None);
        failures.record(eve, AT(4));
        assert_eq!(failures.blocked(eve, AT(10)), Some(Duration::from_secs(50)));
        assert_eq!(failures.blocked(peer("203.0.113.8"), AT(10)), None);
        assert_eq!(failures.blocked(eve, AT(60)), None);
        failures.record(eve, AT(61));
        assert_eq!(failures.blocked(eve, AT(61)), None, "a new minute");
    }

    #[test]
    fn one_subscriber_is_one_peer() {
        let mut failures = Failures::default();
        for n in 0..5 {
            failures.record(peer(&format!("2001:db8:1:2::{n}")), AT(0));
        }
        assert!(failures.blocked(peer("2001:db8:1:2:ffff::9"), AT(0)).is_some());
        assert!(failures.blocked(peer("2001:db8:1:3::1"), AT(0)).is_none());
    }

    #[test]
    fn a_flood_of_peers_neither_grows_nor_frees_anybody() {
        let (mut failures, eve) = (Failures::default(), peer("203.0.113.7"));
        for _ in 0..5 {
            failures.record(eve, AT(0));
        }
        for n in 0..100_000_u32 {
            failures.record(IpAddr::from(n.to_be_bytes()), AT(1));
        }
        assert_eq!(failures.peers.len(), MOST);
        assert!(failures.blocked(eve, AT(2)).is_some());
        assert!(failures.blocked(peer("198.51.100.1"), AT(2)).is_some(), "all further ones share a count");
        failures.record(eve, AT(120));
        failures.record(peer("198.51.100.1"), AT(120));
        assert!(failures.peers.len() < MOST, "who is over is forgotten when there is need");
    }
}
