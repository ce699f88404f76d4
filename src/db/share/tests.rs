//! Gates on a modelled server, in virtual time.

use super::*;

const MS: fn(u64) -> Tick = Tick::from_millis;
/// How often a gate looks that is not alone.
const LOOK: u64 = 250;
/// Slots of a normal role on a server with 100.
const SLOTS: u32 = 97;

#[test]
fn alone_a_gate_has_what_the_server_has_left_whatever_it_wants() {
    let scope = |used, others| Scope { of: SLOTS, used, others, peers: Vec::new() };
    assert_eq!(scope(41, 0).part(100, 40), Part { limit: 95, share: 95 });
    assert_eq!(scope(41, 0).part(0, 40), Part { limit: 95, share: 95 });
    assert_eq!(scope(71, 30).part(40, 40), Part { limit: 65, share: 65 }, "others hold 30");
}

#[test]
fn nobody_is_left_with_nothing_and_no_number_wraps() {
    let full = Scope { of: SLOTS, used: SLOTS, others: 200, peers: vec![u32::MAX; 200] };
    assert_eq!(full.part(u32::MAX, 0), Part { limit: 1, share: 1 });
    let unseen = Scope { of: SLOTS, used: 1, others: 0, peers: Vec::new() };
    assert_eq!(unseen.part(60, 60).limit, 95, "sessions that are still dialling are not seen yet");
}

#[test]
fn who_wants_less_than_an_equal_part_gets_it_and_the_rest_is_divided_equally() {
    let among =
        |peers: &[u32], want| Scope { of: SLOTS, used: 0, others: 0, peers: peers.to_vec() }.share(want);
    assert_eq!(among(&[100], 100), 46);
    assert_eq!(among(&[100], 12), 12);
    assert_eq!(among(&[12], 100), 81);
    assert_eq!(among(&[0], 100), 89, "an idle one keeps a tenth of an equal part");
    assert_eq!(among(&[20], 20), 46, "what nobody asks for is divided equally");
    assert_eq!(among(&[8, 100], 100), 41, "91, less 8, by two");
}

#[test]
fn a_want_is_remembered_and_falls_by_half_in_two_seconds() {
    let mut want = Want::newcomer(100, MS(0));
    assert_eq!(want.hear(0, 100, MS(0)), 100, "at first all that it may");
    let mut want = Want::newcomer(0, MS(0));
    assert_eq!(want.hear(64, 100, MS(0)), 64);
    assert_eq!(want.hear(3, 100, MS(2_000)), 32);
    assert_eq!(want.hear(61, 100, MS(2_001)), 64, "rounded up to a multiple of four");
    assert_eq!(want.hear(500, 100, MS(2_002)), 100, "no more than there can be");
    assert_eq!(want.hear(0, 100, MS(60_000)), 4);
}

/// A process: what it is asked for, and what it has.
#[derive(Clone, Copy)]
struct Process {
    demand: u32,
    open: u32,
    want: Want,
    announced: u32,
    part: Option<Part>,
}

impl Process {
    fn new(demand: u32, now: u64) -> Self {
        Self { demand, open: 0, want: Want::newcomer(100, MS(now)), announced: 0, part: None }
    }

    /// All of its requests are long: what is open is in use as far as it is asked for.
    fn in_use(&self) -> u32 {
        self.demand.min(self.open)
    }
}

/// A server, and processes that look at it one after the other.
struct Server {
    now: u64,
    /// Sessions of programs that know nothing of gates.
    others: u32,
    processes: Vec<Process>,
    /// Dials that found no slot.
    refused: u32,
}

impl Server {
    fn with(demands: &[u32]) -> Self {
        let processes = demands.iter().map(|&demand| Process::new(demand, 0)).collect();
        Self { now: 0, others: 0, processes, refused: 0 }
    }

    fn used(&self) -> u32 {
        self.others + self.processes.iter().map(|process| process.open + 1).sum::<u32>()
    }

    /// Each process looks once, at its own moment.
    fn round(&mut self) {
        for looking in 0..self.processes.len() {
            self.now += LOOK / self.processes.len() as u64;
            self.look(looking);
            // Between two looks everybody dials for what is asked of it, within its limit.
            (0..self.processes.len()).for_each(|dialling| self.dial(dialling));
            assert!(self.used() <= SLOTS);
        }
    }

    fn look(&mut self, looking: usize) {
        let peers = self.processes.iter().enumerate().filter(|(other, _)| *other != looking);
        let peers = peers.map(|(_, peer)| peer.announced).collect();
        let scope = Scope { of: SLOTS, used: self.used(), others: self.others, peers };
        let process = &mut self.processes[looking];
        process.announced = process.want.hear(process.demand, 100, MS(self.now));
        let part = scope.part(process.announced, process.open);
        // What is idle goes at once, and a busy one is back before the next look.
        process.open = process.open.min(part.share);
        process.part = Some(part);
    }

    fn dial(&mut self, dialling: usize) {
        let limit = self.processes[dialling].part.map_or(0, |part| part.limit);
        while self.processes[dialling].open < self.processes[dialling].demand.min(limit) {
            if self.used() == SLOTS {
                self.refused += 1;
                return;
            }
            self.processes[dialling].open += 1;
        }
    }

    fn in_use(&self) -> Vec<u32> {
        self.processes.iter().map(Process::in_use).collect()
    }
}

#[test]
fn who_came_first_gives_back_until_both_have_the_same() {
    let mut server = Server::with(&[200]);
    (0..4).for_each(|_| server.round());
    assert_eq!(server.in_use(), [95], "alone it has all");
    server.processes.push(Process::new(200, server.now));
    (0..3).for_each(|_| server.round());
    assert_eq!(server.in_use(), [46, 46]);
    let refused = server.refused;
    (0..100).for_each(|_| server.round());
    assert_eq!((server.in_use(), server.refused), (vec![46, 46], refused), "and so it stays");
}

#[test]
fn who_grows_waits_for_whoever_shrinks_and_nobody_is_refused() {
    let mut server = Server::with(&[200, 8]);
    (0..40).for_each(|_| server.round());
    assert_eq!(server.in_use(), [85, 8]);
    server.processes[1].demand = 200;
    (0..3).for_each(|_| server.round());
    assert_eq!((server.in_use(), server.refused), (vec![46, 46], 0));
    server.processes[0].demand = 8;
    (0..40).for_each(|_| server.round());
    assert_eq!(
        (server.in_use(), server.refused),
        (vec![8, 85], 0),
        "its want is forgotten after some seconds"
    );
}

#[test]
fn sessions_of_nobodys_gate_are_left_alone() {
    let mut server = Server::with(&[200, 200]);
    server.others = 33;
    (0..4).for_each(|_| server.round());
    assert_eq!(server.in_use(), [30, 30]);
}

#[test]
fn whatever_the_demands_the_parts_settle_and_are_max_min() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..300 {
        let demands: Vec<_> = (0..random.usize(2..6)).map(|_| random.u32(0..120)).collect();
        let mut server = Server::with(&demands);
        server.others = random.u32(0..40);
        (0..40).for_each(|_| server.round());
        let refused = server.refused;
        (0..8).for_each(|_| server.round());
        assert_eq!(server.refused, refused, "nobody is refused once it has settled: {demands:?}");
        is_max_min(&server, &demands);
    }
}

/// Nobody lacks anything while somebody else has more than an equal part and more than it; but for what idle gates
/// keep, and for rounding.
fn is_max_min(server: &Server, demands: &[u32]) {
    let has = server.in_use();
    let most = has.iter().max().copied().unwrap_or(0);
    for (has, &demand) in has.iter().zip(demands) {
        let lacks = *has < demand;
        assert!(!lacks || has + STEP + 1 >= most, "{has} of {demand}, and another has {most}: {demands:?}");
    }
}

/// The seed of a random test: said, so that a failure can be repeated with `SEED=…`.
#[expect(clippy::disallowed_methods, reason = "a test is repeated by its seed")]
fn seed() -> u64 {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    seed
}
