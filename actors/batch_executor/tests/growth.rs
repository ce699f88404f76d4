//! Chunks that turn out cheap are followed by larger ones, and what that must not change.

use super::*;
use crate::{
    batch_executor::{Ending, Reply},
    level::Level,
};

const US: fn(u64) -> Duration = Duration::from_micros;

/// Does all of the run, with items that cost so much; gives the sizes of its chunks.
fn sizes(rig: &mut Rig, id: RunId, each: impl Fn(u64) -> Duration) -> Vec<u32> {
    let mut sizes = vec![];
    loop {
        match rig.next(id) {
            Next::Chunk { from, items } => {
                let took = (from..from + u64::from(items)).map(&each).sum();
                rig.pass(took);
                rig.done(id, items);
                sizes.push(items);
            }
            Next::Answer => rig.machine.answered(id),
            Next::Over(Ending::Done) => return sizes,
            other @ (Next::Wait { .. } | Next::Over(_)) => panic!("{other:?}"),
        }
    }
}

#[test]
fn cheap_items_are_done_in_chunks_of_twice_as_many_each_time_up_to_the_most() {
    for reply in [Reply::FirstChunk, Reply::Fill] {
        let mut rig = Rig::new(Policy { reply, ..Policy::default() });
        let id = rig.run(1_418);
        assert_eq!(sizes(&mut rig, id, |_| US(5)), [100, 200, 400, 500, 218], "{reply:?}");
    }
}

#[test]
fn items_that_cost_what_was_expected_are_done_in_chunks_as_planned() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(1_418);
    assert_eq!(sizes(&mut rig, id, |_| MS(10)), [vec![100; 14], vec![18]].concat());
}

#[test]
fn the_next_chunk_is_larger_only_if_twice_as_much_is_well_within_what_one_may_take() {
    for (each, then) in [(US(2_500), 200), (US(2_501), 100)] {
        let mut rig = Rig::new(Policy::default());
        let id = rig.run(1_418);
        rig.machine.answered(id);
        rig.chunk(id, each);
        assert_eq!(rig.chunk(id, each), (100, then), "at {each:?}");
    }
}

#[test]
fn a_wait_for_a_connection_does_not_make_a_chunk_dear() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(1_418);
    rig.machine.answered(id);
    rig.next(id);
    rig.pass(MS(3_000) + US(500));
    rig.done_after(id, 100, MS(3_000));
    assert_eq!(rig.next(id), Next::Chunk { from: 100, items: 200 });
}

#[test]
fn items_that_get_dear_half_way_are_done_in_halves_again() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(2_000);
    let each = |item| if item < 700 { US(5) } else { MS(10) };
    // The fourth chunk takes 5 s, half of it 2.5 s; 1.25 s is neither so slow that it is halved again, nor short enough
    // to let the next one grow.
    assert_eq!(sizes(&mut rig, id, each), [100, 200, 400, 500, 250, 125, 125, 125, 125, 50]);
}

#[test]
fn a_slow_chunk_bounds_those_of_all_runs_however_cheap_they_are() {
    let mut rig = Rig::new(Policy::default());
    let (ann, bob) = (rig.run(5_000), rig.run_of("bob", 1_000));
    rig.machine.answered(ann);
    rig.machine.answered(bob);
    rig.chunk(ann, US(5));
    assert_eq!(rig.chunk(bob, MS(20)).1, 100, "twice as long as it should be");
    let sizes: Vec<_> = (0..4).map(|_| rig.chunk(ann, US(5)).1).collect();
    assert_eq!(sizes, [50, 60, 70, 80]);
}

#[test]
fn under_pressure_a_chunk_is_half_and_none_grows_beyond_what_it_was() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(10_000);
    rig.machine.answered(id);
    let main = Name::from("main");
    rig.machine.on_level(&main, Level::Warning, rig.now);
    let pressed: Vec<_> = (0..3).map(|_| rig.chunk(id, US(5)).1).collect();
    assert_eq!(pressed, [50, 50, 50]);
    rig.machine.on_level(&main, Level::Normal, rig.now);
    let free: Vec<_> = (0..3).map(|_| rig.chunk(id, US(5)).1).collect();
    assert_eq!(free, [100, 200, 400]);
    rig.machine.on_level(&main, Level::Warning, rig.now);
    let pressed: Vec<_> = (0..3).map(|_| rig.chunk(id, US(5)).1).collect();
    assert_eq!(pressed, [250, 250, 250], "half of the most");
}

#[test]
fn a_caller_with_little_time_has_chunks_that_are_sure_to_fit() {
    let mut rig = Rig::new(Policy { reply: Reply::Fill, ..Policy::default() });
    let kind = rig.kind.clone();
    let deadline = Some(Tick::from_millis(3_000));
    let wanted = Wanted { kind: &kind, caller: "ann", items: 1_418, deadline, whole: false };
    let Some(Begun::Run(id, _)) = rig.machine.begin(&wanted, rig.now) else { panic!("it begins") };
    // As far as is known after one chunk 200 items might take 3 s, 100 at most 1.6 s.
    let sizes: Vec<_> = (0..2).map(|_| rig.chunk(id, US(5)).1).collect();
    assert_eq!(sizes, [100, 100]);
    let mut grown = 0;
    while let Next::Chunk { items, .. } = rig.next(id) {
        grown = grown.max(items);
        rig.pass(US(5) * items);
        rig.done(id, items);
    }
    assert_eq!(rig.next(id), Next::Over(Ending::Done), "all of it, while they waited");
    assert!(grown > 100, "once it is known to be cheap");
}

#[test]
fn a_larger_chunk_that_does_not_fit_is_not_what_ends_the_wait() {
    let mut rig = Rig::new(Policy { reply: Reply::Fill, ..Policy::default() });
    let id = rig.run(1_418);
    rig.chunk(id, US(2_000));
    // Now 200 items might take 3 s and 100 half of it, of which half as long again is left.
    let until = Tick::from_millis(9_500);
    rig.now = until;
    assert_eq!(rig.next(id), Next::Answer, "nothing fits any more");
    let mut rig = Rig::new(Policy { reply: Reply::Fill, ..Policy::default() });
    let id = rig.run(1_418);
    rig.chunk(id, US(2_000));
    rig.now = Tick::from_millis(7_500);
    assert_eq!(rig.next(id), Next::Chunk { from: 100, items: 100 });
}

#[test]
fn the_number_of_chunks_that_is_told_is_that_of_those_to_come() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(1_400);
    rig.machine.answered(id);
    let mut told = vec![];
    while let Next::Chunk { items, .. } = rig.next(id) {
        // Slow enough to be told each time.
        rig.pass(MS(500));
        for effect in rig.done_after(id, items, MS(499)) {
            let Effect::Tell { number, of, items, .. } = effect else { panic!("{effect:?}") };
            told.push((number, of, items));
        }
    }
    // 1,300 are left in chunks of 200, 1,100 in chunks of 400, then 700 in chunks of 500.
    assert_eq!(told, [(1, 8, 100), (2, 5, 200), (3, 5, 400), (4, 5, 500), (5, 5, 200)]);
}

#[test]
fn without_healing_and_beyond_the_most_nothing_grows() {
    let mut rig = Rig::new(Policy { most: 100, ..Policy::default() });
    let id = rig.run(1_418);
    assert_eq!(sizes(&mut rig, id, |_| US(5)), [vec![100; 14], vec![18]].concat());
}
