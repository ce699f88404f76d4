//! How far estimates can be trusted, over loads as services have them.

use std::sync::LazyLock;

use fastrand::Rng;

use super::*;
use crate::batch_executor::{Estimate, Reply};

const CHUNKS: usize = 1_000;

/// A load: what a chunk of so many items takes, in seconds.
type Load = fn(&mut Rng, usize, u32) -> f64;

/// What an item of 10 ms takes, when it varies as service times do: log-normally.
fn varied(random: &mut Rng, sigma: f64) -> f64 {
    let normal = (-2.0 * random.f64().max(1e-12).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos();
    0.01 * (sigma * normal - sigma * sigma / 2.0).exp()
}

const LOADS: [(&str, Load); 7] = [
    ("every item the same", |_, _, items| 0.01 * f64::from(items)),
    ("items vary", |random, _, items| (0..items).map(|_| varied(random, 0.8)).sum()),
    ("a fixed cost beside that of items", |random, _, items| {
        0.2 + (0..items).map(|_| varied(random, 0.5) / 5.0).sum::<f64>()
    }),
    ("it slowly becomes twice as slow", |random, at, items| {
        let slower = 1.0 + at as f64 / CHUNKS as f64;
        slower * (0..items).map(|_| varied(random, 0.5)).sum::<f64>()
    }),
    ("half as slow again at once, and back", |random, at, items| {
        let slower = if at / 200 % 2 == 1 { 1.5 } else { 1.0 };
        slower * (0..items).map(|_| varied(random, 0.5)).sum::<f64>()
    }),
    ("one chunk in a hundred takes three times as long", |random, _, items| {
        let slower = if random.u8(0..100) == 0 { 3.0 } else { 1.0 };
        slower * (0..items).map(|_| varied(random, 0.5)).sum::<f64>()
    }),
    ("ten times as quick as was configured", |random, _, items| {
        (0..items).map(|_| varied(random, 0.5) / 10.0).sum()
    }),
];

/// The share of chunks that took no longer than was said, and by how much what was said is too long on average.
fn calibration(load: impl Fn(&mut Rng, usize, u32) -> f64, sizes: &[u32], seed: u64) -> (f64, f64) {
    let mut random = Rng::with_seed(seed);
    let chunks = (0..CHUNKS).map(|at| {
        let items = sizes[at % sizes.len()];
        (items, Duration::from_secs_f64(load(&mut random, at, items)))
    });
    replayed(Estimate::new(MS(10), 100), chunks)
}

/// The same, of chunks with what they took.
fn replayed(mut estimate: Estimate, chunks: impl Iterator<Item = (u32, Duration)>) -> (f64, f64) {
    let (mut within, mut all, mut said, mut took) = (0, 0, 0.0, 0.0);
    for (items, real) in chunks {
        let at_most = estimate.at_most(items.into());
        (within, all) = (within + u32::from(real <= at_most), all + 1);
        (said, took) = (said + at_most.as_secs_f64(), took + real.as_secs_f64());
        estimate.learn(items, real);
    }
    (f64::from(within) / f64::from(all), said / took - 1.0)
}

/// Chunks of long operations on real databases, by the name of each.
struct Recorded {
    databases: [(&'static str, &'static str); 2],
    chunks: usize,
    /// The cost of an item that was configured, and the items of a chunk that this makes.
    planned: (Duration, u32),
}

/// Of some 15 to 30 ms, while others were busy.
const SHORT: Recorded = Recorded {
    databases: [
        ("PostgreSQL", include_str!("recorded/postgresql.txt")),
        ("SQLite", include_str!("recorded/sqlite.txt")),
    ],
    chunks: CHUNKS,
    planned: (Duration::from_millis(1), 40),
};

/// Of a second, as they are by default.
const LONG: Recorded = Recorded {
    databases: [
        ("PostgreSQL", include_str!("recorded/postgresql-long.txt")),
        ("SQLite", include_str!("recorded/sqlite-long.txt")),
    ],
    chunks: 300,
    planned: (Duration::from_millis(10), 100),
};

fn recorded(lines: &str) -> Vec<(u32, Duration)> {
    let chunk = |line: &str| {
        let (items, micros) = line.split_once(' ').expect("two numbers");
        (items.parse().expect("items"), Duration::from_micros(micros.parse().expect("microseconds")))
    };
    lines.lines().filter(|line| !line.starts_with('#')).map(chunk).collect()
}

/// How much too long it is on average to say of each chunk what 95 in 100 of the hundred chunks around it stay below:
/// what somebody would say who knew them all beforehand.
fn hindsight(chunks: &[(u32, Duration)]) -> f64 {
    let cost = |(items, took): &(u32, Duration)| took.as_secs_f64() / f64::from(*items);
    let (mut said, mut took) = (0.0, 0.0);
    for hundred in chunks.chunks(100) {
        let mut costs: Vec<_> = hundred.iter().map(cost).collect();
        costs.sort_by(f64::total_cmp);
        let most = costs[costs.len() * 95 / 100 - 1];
        said += hundred.iter().map(|(items, _)| most * f64::from(*items)).sum::<f64>();
        took += hundred.iter().map(|(_, took)| took.as_secs_f64()).sum::<f64>();
    }
    said / took - 1.0
}

/// Asserts that what is said of recorded chunks holds, and is hardly longer than what somebody would say who knew them
/// beforehand; gives by how much it is too long on average, for each database.
fn held(Recorded { databases, chunks: all, planned: (per_item, usual) }: Recorded) -> [f64; 2] {
    databases.map(|(name, lines)| {
        let chunks = recorded(lines);
        assert_eq!(chunks.len(), all);
        let (within, over) = replayed(Estimate::new(per_item, usual), chunks.iter().copied());
        let least = hindsight(&chunks);
        eprintln!(
            "{name}: {:.1} % of the chunks within, {:.1} % too long; in hindsight {:.1} %",
            within * 100.0,
            over * 100.0,
            least * 100.0
        );
        assert!(within >= 0.93, "only {within} of the chunks were within");
        assert!(
            (1.0 + over) / (1.0 + least) <= 1.1,
            "{over} too long on average, where {least} is the least"
        );
        over
    })
}

/// What short chunks take on a busy machine varies so much that even who knew it beforehand would have to say far more
/// than they take on average, to be right 95 times in 100. Nobody can be asked to be better than that; this is hardly worse.
#[test]
fn of_real_chunks_it_says_hardly_more_than_who_knew_them_beforehand() {
    held(SHORT);
}

#[test]
fn of_real_chunks_of_a_second_it_is_not_much_too_long() {
    for over in held(LONG) {
        assert!(over <= 0.30, "{over} too long on average");
    }
}

#[test]
fn the_upper_estimate_holds_for_95_in_100_chunks_and_is_not_much_too_long() {
    for (name, load) in LOADS {
        for seed in 0..5 {
            eprintln!("{name}, SEED={seed}");
            let (within, over) = calibration(load, &[100], seed);
            eprintln!("  {:.1} % of the chunks within, {:.1} % too long", within * 100.0, over * 100.0);
            assert!(within >= 0.93, "only {within} of the chunks were within");
            assert!(over <= 0.30, "{over} too long on average");
        }
    }
}

#[test]
fn it_holds_for_chunks_of_all_sizes_where_each_costs_something_by_itself() {
    let (_, load) = LOADS[2];
    for seed in 0..5 {
        let (within, over) = calibration(load, &[100, 50, 200, 400, 100, 18], seed);
        eprintln!("SEED={seed}: {within} within, {over} too long");
        assert!(within >= 0.93 && over <= 0.30, "{within} within, {over} too long");
    }
}

#[test]
fn the_fixed_cost_and_that_of_an_item_are_told_apart() {
    let mut estimate = Estimate::new(MS(1), 100);
    for at in 0..300_u32 {
        let items = [20, 100, 300][at as usize % 3];
        estimate.learn(items, MS(50 + 2 * u64::from(items)));
    }
    let (empty, thousand) = (estimate.likely(0), estimate.likely(1_000));
    assert!((MS(45)..=MS(55)).contains(&empty), "{empty:?}");
    assert!((MS(2_030)..=MS(2_070)).contains(&thousand), "{thousand:?}");
    assert!((95..=98).contains(&estimate.items_in(MS(243))), "{}", estimate.items_in(MS(243)));
}

#[test]
fn a_thousand_chunks_of_one_size_do_not_let_the_fit_run_away() {
    let mut estimate = Estimate::new(MS(10), 100);
    let mut random = Rng::with_seed(7);
    for _ in 0..10_000 {
        estimate.learn(100, Duration::from_secs_f64(1.0 + random.f64() / 10.0));
    }
    let [none, one, all] = [0, 1, 1_000].map(|items| estimate.likely(items));
    assert!(
        none < MS(60) && one < MS(80) && (MS(10_000)..MS(11_000)).contains(&all),
        "{none:?} {one:?} {all:?}"
    );
}

#[test]
fn before_the_first_chunk_the_configured_cost_is_believed_with_a_margin() {
    let estimate = Estimate::new(MS(10), 100);
    assert_eq!(estimate.likely(1_418), MS(14_180));
    assert_eq!(estimate.at_most(1_418).as_millis(), 20_521, "45 % more");
    assert_eq!(estimate.items_in(MS(1_000)), 100);
}

/// Operations of all lengths, with chunks as slow as they please, or fifty times as slow as real ones were: no caller is
/// answered after the deadline.
#[test]
fn no_answer_comes_after_the_deadline() {
    static REAL: LazyLock<Vec<f64>> = LazyLock::new(|| {
        let chunks = SHORT.databases.into_iter().flat_map(|(_, lines)| recorded(lines));
        chunks.map(|(items, took)| 50.0 * took.as_secs_f64() / f64::from(items)).collect()
    });
    let real: Load = |random, _, items| f64::from(items) * REAL[random.usize(..REAL.len())];
    for (name, load) in LOADS.into_iter().chain([("as recorded", real)]) {
        for reply in [Reply::Fill, Reply::FirstChunk] {
            let mut random = Rng::with_seed(11);
            let mut rig = Rig::new(Policy { reply, ..Policy::default() });
            let (mut answers, mut early) = (0, Duration::ZERO);
            for at in 0..300 {
                let (begun, id) = (rig.now, rig.run(random.u64(1..3_000)));
                let by = rig.machine.answer_by(id).expect("somebody waits");
                let answered = loop {
                    match rig.next(id) {
                        Next::Chunk { items, .. } => {
                            let took = Duration::from_secs_f64(load(&mut random, at, items));
                            // An answer does not wait for a chunk.
                            let waits = rig.machine.answer_by(id).is_some();
                            if waits && rig.now + took > by {
                                rig.machine.answered(id);
                                break by;
                            }
                            rig.pass(took);
                            rig.done(id, items);
                        }
                        Next::Answer | Next::Over(_) => break rig.now,
                        Next::Wait { until, .. } => rig.now = until.expect("it is tried again"),
                    }
                };
                let took = answered.since(begun);
                assert!(took <= Duration::from_secs(10), "{name}: answered after {took:?}");
                answers += 1;
                early += took;
                rig.machine.forget(id);
            }
            eprintln!("{name}, {reply}: {:?} on average", early / answers);
        }
    }
}
