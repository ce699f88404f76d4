//! What is done with an operation, told one at a time.

use super::*;
use crate::{
    batch_executor::{Ending, Plan, Reply, Waits, journal::Counts},
    level::Level,
};

#[test]
fn the_click_of_the_incident_is_planned_before_it_begins() {
    let rig = Rig::new(Policy::default());
    let plan = rig.machine.plan("spam-capture", 1_418).expect("it is known");
    let Plan { inline, batch, batches, estimate, .. } = plan;
    assert_eq!((inline, batch, batches, estimate), (false, 100, 15, MS(14_180)));
    assert!(rig.machine.plan("other", 1).is_none());
}

#[test]
fn the_caller_is_answered_after_the_first_chunk_and_the_rest_is_done_in_fourteen() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(1_418);
    assert_eq!(rig.chunk(id, MS(10)), (0, 100));
    rig.answered(id);
    assert_eq!(rig.now, Tick::from_millis(1_000), "a second after the click");
    let mut sizes = vec![];
    while let Next::Chunk { from, items } = rig.next(id) {
        assert_eq!(from, 100 + sizes.iter().map(|items| u64::from(*items)).sum::<u64>());
        sizes.push(items);
        rig.pass(MS(10) * items);
        rig.done(id, items);
    }
    assert_eq!(sizes, [vec![100; 13], vec![18]].concat());
    assert_eq!(rig.next(id), Next::Over(Ending::Done));
    assert_eq!(rig.now, Tick::from_millis(14_180));
    assert_eq!(rig.machine.forget(id).map(|counts| (counts.done, counts.remaining())), Some((1_418, 0)));
}

#[test]
fn chunks_are_told_with_their_number_and_what_is_left() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(250);
    // A run of 250 items is short enough: all of it is done while its caller waits.
    let mut told = vec![];
    while let Next::Chunk { items, .. } = rig.next(id) {
        rig.pass(MS(10) * items);
        told.extend(rig.done(id, items));
    }
    let tell = |number, items: u32, left| Effect::Tell {
        number,
        of: 3,
        items,
        took: MS(10) * items,
        left: MS(left),
    };
    assert_eq!(told, [tell(1, 100, 1_500), tell(2, 100, 500), tell(3, 50, 0)]);
}

#[test]
fn quick_chunks_are_told_twice_a_second_and_the_last_one_always() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(1_418);
    let mut told = vec![];
    loop {
        match rig.next(id) {
            Next::Chunk { items, .. } => {
                rig.pass(MS(1));
                told.extend(rig.done(id, items));
            }
            Next::Answer => rig.machine.answered(id),
            Next::Wait { .. } | Next::Over(_) => break,
        }
    }
    let numbers: Vec<_> = told.iter().map(|effect| matches!(effect, Effect::Tell { .. })).collect();
    assert_eq!(numbers, [true, true], "the first and the last: {told:?}");
}

#[test]
fn what_is_short_enough_is_done_while_its_caller_waits() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(300);
    for from in [0, 100, 200] {
        assert_eq!(rig.chunk(id, MS(10)), (from, 100));
    }
    assert_eq!(rig.next(id), Next::Over(Ending::Done));
}

#[test]
fn what_was_thought_short_and_is_not_is_answered_in_time_by_the_guard() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(500);
    let mut chunks = 0;
    while let Next::Chunk { items, .. } = rig.next(id) {
        rig.pass(MS(40) * items);
        rig.done(id, items);
        chunks += 1;
    }
    assert!(chunks > 0 && rig.machine.counts(id).expect("it runs").remaining() > 0);
    assert!(rig.now < Tick::from_millis(9_500), "{:?}", rig.now);
    assert!(matches!(rig.next(id), Next::Chunk { .. }), "it has been answered, and goes on");
}

#[test]
fn a_reply_that_fills_the_deadline_comes_when_no_further_chunk_fits() {
    let mut rig = Rig::new(Policy { reply: Reply::Fill, ..Policy::default() });
    let id = rig.run(1_418);
    while let Next::Chunk { items, .. } = rig.next(id) {
        rig.pass(MS(10) * items);
        rig.done(id, items);
    }
    // A further chunk takes 1.25 s at most, as far as is known by then: half as long again is 1.9 s.
    assert_eq!((rig.now, rig.machine.counts(id).map(|c| c.done)), (Tick::from_millis(8_000), Some(800)));
}

#[test]
fn a_caller_with_less_time_gets_less() {
    let mut rig = Rig::new(Policy::default());
    let kind = rig.kind.clone();
    let deadline = Some(Tick::from_millis(2_000));
    let wanted = Wanted { kind: &kind, caller: "ann", items: 300, deadline, whole: false };
    let Some(Begun::Run(id, plan)) = rig.machine.begin(&wanted, rig.now) else { panic!("it begins") };
    assert!(!plan.inline, "300 items take 3 s");
    assert_eq!(rig.next(id), Next::Answer, "and not even the first chunk is sure to fit");
    assert_eq!(rig.next(id), Next::Chunk { from: 0, items: 100 }, "nobody waits any more");
}

#[test]
fn an_answer_is_due_before_the_deadline_by_what_is_kept_back() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(1_418);
    assert_eq!(rig.machine.answer_by(id), Some(Tick::from_millis(9_500)));
    rig.machine.answered(id);
    assert_eq!(rig.machine.answer_by(id), None);
}

#[test]
fn a_second_click_joins_the_run_and_another_user_has_their_own() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(1_418);
    rig.chunk(id, MS(10));
    assert_eq!(rig.begin("ann", 1_318), Begun::Joined(id));
    assert!(matches!(rig.begin("bob", 10), Begun::Run(other, _) if other != id));
    rig.machine.forget(id);
    assert!(matches!(rig.begin("ann", 10), Begun::Run(..)), "what is over is not joined");
}

#[test]
fn a_wait_for_a_connection_is_not_learnt_as_work_and_cuts_no_chunk() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(1_418);
    rig.machine.answered(id);
    let before = rig.machine.plan("spam-capture", 1_000).map(|plan| plan.estimate);
    for from in [0, 100, 200, 300] {
        assert_eq!(rig.next(id), Next::Chunk { from, items: 100 }, "it is as large as ever");
        rig.pass(MS(4_000) + MS(10) * 100);
        rig.done_after(id, 100, MS(4_000));
    }
    assert_eq!(rig.machine.plan("spam-capture", 1_000).map(|plan| plan.estimate), before);
}

#[test]
fn the_guard_allows_for_the_wait_that_chunks_had_lately_and_forgets_it() {
    let mut rig = Rig::new(Policy { reply: Reply::Fill, ..Policy::default() });
    let begun = rig.now;
    let id = rig.run(1_418);
    // Two seconds of wait, one of work: chunks that take 1.45 s at most fit, with 3 s that take as long again do not.
    for from in [0, 100] {
        assert_eq!(rig.next(id), Next::Chunk { from, items: 100 });
        rig.pass(MS(3_000));
        rig.done_after(id, 100, MS(2_000));
    }
    assert_eq!(
        (rig.now.since(begun), rig.next(id)),
        (MS(6_000), Next::Answer),
        "it might be over after 10 s"
    );
    // A minute later nobody knows of it any more.
    rig.pass(MS(60_000));
    let id = rig.run_of("bob", 1_418);
    rig.pass(MS(6_000));
    assert_eq!(rig.next(id), Next::Chunk { from: 0, items: 100 });
}

#[test]
fn what_work_that_nobody_waits_for_had_to_wait_is_nothing_to_a_caller() {
    let mut rig = Rig::new(Policy { reply: Reply::Fill, ..Policy::default() });
    let id = rig.run(1_418);
    rig.machine.answered(id);
    rig.next(id);
    rig.pass(MS(21_000));
    rig.done_after(id, 100, MS(20_000));
    let id = rig.run_of("bob", 1_418);
    assert_eq!(rig.next(id), Next::Chunk { from: 0, items: 100 });
}

#[test]
fn a_slow_chunk_halves_those_after_it_and_good_ones_let_them_grow_to_the_plan() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(1_418);
    rig.machine.answered(id);
    assert_eq!(rig.chunk(id, MS(16)), (0, 100));
    let sizes: Vec<_> = (0..7).map(|_| rig.chunk(id, MS(10)).1).collect();
    assert_eq!(sizes, [50, 60, 70, 80, 90, 100, 100]);
}

#[test]
fn at_level_warning_chunks_are_half_and_at_critical_durable_work_stops() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(1_418);
    rig.chunk(id, MS(10));
    rig.answered(id);
    let main = Name::from("main");
    rig.machine.on_level(&main, Level::Warning, rig.now);
    assert_eq!(rig.chunk(id, MS(10)), (100, 50));
    rig.machine.on_level(&main, Level::Critical, rig.now);
    assert_eq!(rig.next(id), Next::Wait { why: Waits::Pressure, until: None });
    rig.machine.on_level(&"other".into(), Level::Normal, rig.now);
    assert_eq!(rig.next(id), Next::Wait { why: Waits::Pressure, until: None });
    rig.machine.on_level(&main, Level::Normal, rig.now);
    assert_eq!(rig.chunk(id, MS(10)), (150, 100));
}

#[test]
fn a_caller_who_waits_has_their_first_chunk_at_level_critical_too() {
    let mut rig = Rig::new(Policy::default());
    rig.machine.on_level(&"main".into(), Level::Critical, rig.now);
    let id = rig.run(1_418);
    assert_eq!(rig.chunk(id, MS(10)), (0, 50));
}

#[test]
fn at_level_warning_one_run_works_at_a_time() {
    let mut rig = Rig::new(Policy::default());
    let (ann, bob) = (rig.run(1_000), rig.run_of("bob", 1_000));
    for id in [ann, bob] {
        rig.machine.answered(id);
    }
    rig.machine.on_level(&"main".into(), Level::Warning, rig.now);
    assert!(matches!(rig.next(ann), Next::Chunk { .. }));
    assert_eq!(rig.next(bob), Next::Wait { why: Waits::Turn, until: None });
    rig.done(ann, 50);
    assert!(matches!(rig.next(bob), Next::Chunk { .. }));
    assert_eq!(rig.next(ann), Next::Wait { why: Waits::Turn, until: None });
}

#[test]
fn when_the_pressure_is_over_one_more_works_each_50_ms_and_as_many_are_taken_up() {
    let mut rig = Rig::new(Policy::default());
    let main = Name::from("main");
    let runs: Vec<_> = ["ann", "bob", "eve"].map(|caller| rig.run_of(caller, 1_000)).into();
    for id in &runs {
        rig.machine.answered(*id);
    }
    assert_eq!(rig.machine.room_on(&main, rig.now), 61, "a pool that was never pressed");
    rig.machine.on_level(&main, Level::Critical, rig.now);
    assert_eq!(rig.machine.room_on(&main, rig.now), 0);
    rig.machine.on_level(&main, Level::Normal, rig.now);
    for more in 1..=3 {
        let next: Vec<_> = runs.iter().map(|id| rig.next(*id)).collect();
        let waits = Next::Wait { why: Waits::Turn, until: Some(Tick::from_millis(50 * more)) };
        assert_eq!(next.iter().filter(|next| **next == waits).count(), 3 - more as usize, "{next:?}");
        rig.pass(MS(50));
    }
    rig.pass(MS(50));
    assert_eq!(rig.machine.room_on(&main, rig.now), 2);
}

#[test]
fn where_nothing_is_acted_on_levels_change_nothing() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(1_418);
    rig.chunk(id, MS(10));
    rig.answered(id);
    rig.machine.on_level(&"main".into(), Level::Critical, rig.now);
    rig.machine.heed(false);
    assert_eq!(rig.chunk(id, MS(10)), (100, 100));
    rig.machine.heed(true);
    assert_eq!(rig.next(id), Next::Wait { why: Waits::Pressure, until: None });
}

#[test]
fn an_operator_pauses_a_kind_and_lets_it_go_on() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(1_418);
    rig.chunk(id, MS(10));
    rig.answered(id);
    assert!(rig.machine.hold("spam-capture", true) && !rig.machine.hold("other", true));
    assert_eq!(rig.next(id), Next::Wait { why: Waits::Paused, until: None });
    rig.machine.hold("spam-capture", false);
    assert_eq!(rig.chunk(id, MS(10)), (100, 100));
}

#[test]
fn what_is_cancelled_stops_before_its_next_chunk_and_what_is_done_stays_done() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(1_418);
    rig.chunk(id, MS(10));
    rig.machine.cancel(id);
    assert_eq!(rig.next(id), Next::Over(Ending::Cancelled));
    assert_eq!(rig.machine.forget(id).map(|counts| counts.done), Some(100));
    assert_eq!(rig.next(id), Next::Over(Ending::Cancelled), "one that is forgotten is over");
}

#[test]
fn a_service_that_ends_answers_who_waits_and_leaves_the_rest_to_others() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(300);
    rig.chunk(id, MS(10));
    rig.machine.drain();
    rig.answered(id);
    assert_eq!(rig.next(id), Next::Over(Ending::Released));
    assert_eq!(rig.begin("bob", 10), Begun::Draining);
    let counts = Counts { total: 10, ..Counts::default() };
    assert_eq!(rig.machine.resume(&rig.kind.clone(), "bob", counts), None);
}

#[test]
fn a_job_of_the_journal_goes_on_where_it_was() {
    let mut rig = Rig::new(Policy::default());
    let (kind, counts) = (rig.kind.clone(), Counts { total: 1_418, done: 695, blocked: 4, failed: 1 });
    let id = rig.machine.resume(&kind, "ann", counts).expect("it is known");
    assert_eq!(rig.chunk(id, MS(10)), (700, 100));
    assert_eq!(rig.machine.resume(&kind, "ann", counts), None, "it runs already");
    assert_eq!(rig.begin("ann", 718), Begun::Joined(id));
    assert_eq!(rig.machine.resume(&"other".into(), "ann", counts), None, "it is not known");
}

#[test]
fn what_the_journal_has_found_out_never_takes_progress_back() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(1_418);
    rig.machine.answered(id);
    rig.chunk(id, MS(10));
    rig.machine.found(id, Counts { total: 1_418, done: 50, ..Counts::default() });
    assert_eq!(rig.machine.counts(id).map(|counts| counts.done), Some(100));
    rig.machine.found(id, Counts { total: 1_418, done: 200, ..Counts::default() });
    assert_eq!(rig.chunk(id, MS(10)), (200, 100));
}

#[test]
fn the_item_that_fails_is_found_by_halves_and_all_others_are_done() {
    for poison in 0..128 {
        let policy = Policy { per_item: MS(1), ..Policy::default() };
        let mut rig = Rig::new(policy);
        let id = rig.run(128);
        let (mut tries, mut poisoned) = (0, vec![]);
        while let Next::Chunk { from, items } = rig.next(id) {
            tries += 1;
            rig.pass(MS(1));
            if (from..from + u64::from(items)).contains(&poison) {
                poisoned.extend(rig.fail(id, ErrorClass::Permanent));
            } else {
                rig.done(id, items);
            }
        }
        assert_eq!(rig.next(id), Next::Over(Ending::Done));
        assert_eq!(poisoned, [Effect::Poisoned(poison)]);
        let counts = rig.machine.counts(id).expect("it runs");
        assert_eq!((counts.done, counts.failed), (127, 1));
        assert!(tries <= 15, "{poison} took {tries} tries");
    }
}

#[test]
fn what_fails_everywhere_is_given_up_after_some_items() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(100);
    let mut tries = 0;
    while let Next::Chunk { .. } = rig.next(id) {
        tries += 1;
        rig.fail(id, ErrorClass::Permanent);
    }
    assert_eq!(rig.next(id), Next::Over(Ending::GaveUp));
    let counts = rig.machine.counts(id).expect("it runs");
    assert_eq!((counts.done, counts.failed), (0, 11));
    assert!(tries < 40, "{tries}");
}

#[test]
fn what_fails_because_of_its_surroundings_is_tried_again_after_a_growing_wait() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(1_418);
    rig.machine.answered(id);
    let mut waits = vec![];
    for _ in 0..9 {
        assert_eq!(rig.next(id), Next::Chunk { from: 0, items: 100 });
        assert_eq!(rig.fail(id, ErrorClass::Transient), []);
        let Next::Wait { why: Waits::Again, until: Some(until) } = rig.next(id) else { panic!("no wait") };
        waits.push(until.since(rig.now).as_millis());
        rig.now = until;
    }
    assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
    rig.chunk(id, MS(10));
    rig.next(id);
    rig.fail(id, ErrorClass::Overload);
    let again = Next::Wait { why: Waits::Again, until: Some(rig.now + MS(100)) };
    assert_eq!(rig.next(id), again, "a chunk that is done begins the count anew");
}

#[test]
fn a_chunk_that_was_too_long_is_tried_again_with_half_of_it() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(1_418);
    rig.machine.answered(id);
    rig.next(id);
    rig.fail(id, ErrorClass::Timeout);
    rig.pass(MS(100));
    assert_eq!(rig.chunk(id, MS(10)), (0, 50));
}

#[test]
fn who_waits_is_answered_if_a_chunk_cannot_be_tried_again_in_their_time() {
    let mut rig = Rig::new(Policy { again: MS(20_000), again_max: MS(20_000), ..Policy::default() });
    let id = rig.run(10);
    rig.next(id);
    rig.fail(id, ErrorClass::Transient);
    assert_eq!(rig.next(id), Next::Answer);
}

#[test]
fn without_healing_all_of_it_is_one_piece() {
    let mut rig = Rig::new(Policy::default());
    let kind = rig.kind.clone();
    let wanted = Wanted { whole: true, ..rig.wanted("ann", 1_418) };
    let wanted = Wanted { kind: &kind, caller: "ann", ..wanted };
    let Some(Begun::Run(id, plan)) = rig.machine.clone().begin(&wanted, rig.now) else { panic!("it begins") };
    assert!(!plan.inline, "it still says what it would have done");
    rig.machine.begin(&wanted, rig.now);
    assert_eq!(rig.next(id), Next::Chunk { from: 0, items: 1_418 });
    assert_eq!(rig.machine.answer_by(id), None);
    rig.pass(MS(14_180));
    assert_eq!(rig.done(id, 1_418), []);
    assert_eq!(rig.next(id), Next::Over(Ending::Done));
    assert_eq!(rig.machine.plan("spam-capture", 1_418), Some(plan), "it has learnt nothing of it");
}

#[test]
fn what_has_become_of_all_items_is_counted_by_kind() {
    let mut rig = Rig::new(Policy::default());
    let id = rig.run(1_418);
    rig.next(id);
    let outcome = Outcome::Done { done: 90, blocked: 9, failed: 1, waited: Duration::ZERO };
    rig.machine.finished(id, outcome, Tick::from_millis(1_000));
    let (name, batch, left, tally) = rig.machine.kinds().next().expect("there is one");
    assert_eq!((&**name, batch, left), ("spam-capture", 100, 1_318));
    assert_eq!((tally.done, tally.blocked, tally.failed, tally.prevented), (90, 9, 1, 1));
}

#[test]
fn a_policy_that_makes_no_sense_says_so() {
    use crate::batch_executor::Invalid;
    let of = |change: fn(&mut Policy)| {
        let mut policy = Policy::default();
        change(&mut policy);
        policy.check()
    };
    assert_eq!(of(|_| {}), Ok(()));
    assert_eq!(of(|policy| policy.deadline = MS(200)), Err(Invalid::NoTime));
    assert_eq!(of(|policy| policy.per_item = Duration::ZERO), Err(Invalid::FreeItem));
    assert_eq!(of(|policy| policy.chunk_share = 0.0), Err(Invalid::Share));
    assert_eq!(of(|policy| policy.inline_share = f64::NAN), Err(Invalid::Share));
    assert_eq!(of(|policy| policy.least = 0), Err(Invalid::Chunk));
    assert_eq!(of(|policy| policy.least = 501), Err(Invalid::Chunk));
}
