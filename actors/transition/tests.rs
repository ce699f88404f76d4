//! The table in examples and against a reference, and when refusals are told, on virtual time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::{Around, Attempt, Counted, Invalid, Machine, OTHER, States, Table, Transition};
use crate::{
    clock::{Clock, Tick},
    level::{Mode, ModeCell},
    signal::{Edge, Name, Signal, Signals},
    transitions,
};

transitions! {
    /// Where a message stands.
    enum Message("message") {
        Ready = "READY" => [SpamReview, Promoted],
        Promoted = "PROMOTED" => [Completed],
        Completed = "COMPLETED" => [],
        SpamReview = "SPAM_REVIEW",
    }
}

fn name(text: &str) -> Name {
    text.into()
}

/// The table of the incident, as the config has it.
fn table() -> Table {
    let rows =
        [("READY", &["SPAM_REVIEW", "PROMOTED"][..]), ("PROMOTED", &["COMPLETED"]), ("COMPLETED", &[])];
    Table::new("message", rows.map(|(state, next)| (state, next.iter().copied()))).expect("it is sound")
}

fn seed(default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test is replayed by its environment")]
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(default);
    println!("SEED={seed}");
    seed
}

#[test]
fn what_was_promoted_is_never_put_under_spam_review() {
    let table = table();
    assert_eq!(table.check("READY", "SPAM_REVIEW"), Ok(()));
    let blocked = table.check("PROMOTED", "SPAM_REVIEW").expect_err("the bug of the incident");
    assert_eq!(&*blocked.allowed, [name("COMPLETED")]);
    assert_eq!(blocked.to_string(), "PROMOTED → SPAM_REVIEW is not allowed: PROMOTED may become COMPLETED");
}

#[test]
fn a_state_without_a_list_is_final_and_known() {
    let table = table();
    assert_eq!(
        table.states().map(|state| &**state).collect::<Vec<_>>(),
        ["COMPLETED", "PROMOTED", "READY", "SPAM_REVIEW"]
    );
    for state in ["SPAM_REVIEW", "COMPLETED"] {
        assert!(table.allowed_from(state).is_empty());
        let blocked = table.check(state, "READY").expect_err("it is final");
        assert_eq!(blocked.to_string(), format!("{state} → READY is not allowed: {state} is final"));
    }
    assert_eq!(table.allowed_from("READY"), [name("SPAM_REVIEW"), name("PROMOTED")], "as it was written");
    assert_eq!(table.leading_to("SPAM_REVIEW").collect::<Vec<_>>(), [&name("READY")]);
}

#[test]
fn staying_is_a_change_that_has_to_be_listed() {
    assert!(table().check("READY", "READY").is_err());
    let stays = Table::new("job", [("RUNNING", ["RUNNING", "DONE"])]).expect("it is sound");
    assert_eq!(stays.check("RUNNING", "RUNNING"), Ok(()));
}

#[test]
fn nothing_leads_from_or_to_a_state_that_the_table_does_not_know() {
    let table = table();
    for (from, to) in [("DELETED", "READY"), ("READY", "DELETED"), ("", ""), ("ready", "PROMOTED")] {
        assert!(table.check(from, to).is_err(), "{from} → {to}");
    }
    assert_eq!((&*table.known("DELETED"), &*table.known("READY")), (OTHER, "READY"));
}

#[test]
fn a_type_is_the_same_table() {
    let typed = Table::of::<Message>().expect("it is sound");
    assert_eq!(typed, table());
    assert_eq!(Message::named("PROMOTED"), Some(Message::Promoted));
    assert_eq!(Message::named("promoted"), None);
    assert_eq!(format!("{:>12}", Message::SpamReview), " SPAM_REVIEW");
}

#[test]
fn what_makes_no_sense_is_no_table() {
    let none: [(&str, [&str; 0]); 0] = [];
    assert_eq!(Table::new("x", none), Err(Invalid::Empty));
    let (state, target) = (name("A"), name("B"));
    let twice = Table::new("x", [("A", ["B", "B"])]);
    assert_eq!(twice, Err(Invalid::TargetTwice { state: state.clone(), target }));
    assert_eq!(Table::new("x", [("A", ["B"]), ("A", ["C"])]), Err(Invalid::StateTwice { state }));
    let many = (0..=100).map(|n| (n.to_string(), [String::from("0")]));
    assert_eq!(Table::new("x", many), Err(Invalid::TooMany { states: 101 }));
}

#[test]
fn the_version_tells_tables_apart_and_not_how_they_were_written() {
    let versions = |rows: &[(&str, &[&str])]| {
        let rows = rows.iter().map(|(state, next)| (*state, next.iter().copied()));
        Table::new("x", rows).expect("it is sound").version()
    };
    let one = versions(&[("A", &["B", "C"]), ("B", &["C"])]);
    assert_eq!(one, versions(&[("B", &["C"]), ("A", &["C", "B"]), ("C", &[])]));
    let others: [&[(&str, &[&str])]; 4] = [
        &[("A", &["B"]), ("B", &["C"])],
        &[("A", &["BC"]), ("B", &["C"])],
        &[("A", &["B", "C"]), ("C", &["B"])],
        &[("A", &["B", "C"]), ("B", &["C"]), ("D", &[])],
    ];
    let all: BTreeSet<_> = others.into_iter().map(versions).chain([one]).collect();
    assert_eq!(all.len(), 5);
    assert_eq!(
        table().version(),
        0xed1c_a676_8324_d41b,
        "it is the same in every version: it stands in databases"
    );
}

#[test]
fn every_table_says_exactly_what_was_listed() {
    let seed = seed(11);
    for round in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed + round);
        let states = random.usize(1..12);
        let mut listed = BTreeSet::new();
        let mut rows = Vec::new();
        for from in 0..states {
            let next: Vec<_> = (0..states).filter(|_| random.u8(0..4) == 0).collect();
            listed.extend(next.iter().map(|to| (from, *to)));
            rows.push((from.to_string(), next.iter().map(usize::to_string).collect::<Vec<_>>()));
        }
        let table = Table::new("x", rows).expect("it is sound");
        for (from, to) in (0..=states).flat_map(|from| (0..=states).map(move |to| (from, to))) {
            let (is_listed, names) = (listed.contains(&(from, to)), [from.to_string(), to.to_string()]);
            assert_eq!(table.check(&names[0], &names[1]).is_ok(), is_listed, "SEED={seed}: {from} → {to}");
            let leads = table.leading_to(&names[1]).any(|state| **state == *names[0]);
            assert_eq!(leads, is_listed, "SEED={seed}: what leads to {to}");
        }
        assert_eq!(table.edges().count(), listed.len(), "SEED={seed}");
    }
}

const MS: fn(u64) -> Tick = Tick::from_millis;

fn attempt(found: &[(&str, u64)], made: u64) -> Attempt {
    let found = found.iter().map(|(state, count)| (name(state), *count)).collect();
    Attempt { operation: Some(name("spam-capture")), to: name("SPAM_REVIEW"), found, made, would: false }
}

fn told(edges: &[(&str, u64)], made: u64) -> Signal {
    let edges =
        edges.iter().map(|(from, count)| Edge { from: name(from), to: name("SPAM_REVIEW"), count: *count });
    let operation = Some(name("spam-capture"));
    Signal::Blocked { machine: name("message"), operation, edges: edges.collect(), made, would: false }
}

fn machine() -> Machine {
    Machine::new(Arc::new(table()))
}

#[test]
fn the_first_refusal_is_told_at_once_and_those_of_the_same_second_together() {
    let mut machine = machine();
    assert_eq!(machine.next_timer(), None);
    assert_eq!(machine.on(&attempt(&[("PROMOTED", 2)], 90), MS(10)), [told(&[("PROMOTED", 2)], 90)]);
    assert_eq!(machine.on(&attempt(&[("PROMOTED", 1)], 60), MS(20)), []);
    assert_eq!(machine.on(&attempt(&[("COMPLETED", 1), ("PROMOTED", 2)], 0), MS(1_009)), []);
    assert_eq!(machine.next_timer(), Some(MS(1_010)));
    assert_eq!(machine.on_tick(MS(1_009)), None);
    assert_eq!(machine.on_tick(MS(1_010)), Some(told(&[("COMPLETED", 1), ("PROMOTED", 3)], 60)));
    assert_eq!((machine.next_timer(), machine.on_tick(MS(9_000))), (None, None));
}

#[test]
fn a_storm_is_one_signal_a_second_and_not_one_refusal_is_lost() {
    let seed = seed(12);
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut machine, mut asked, mut heard, mut signals) = (machine(), 0, 0, 0);
    let mut hear = |told: Option<Signal>| {
        let Some(Signal::Blocked { edges, .. }) = told else { return };
        (heard, signals) = (heard + edges.iter().map(|edge| edge.count).sum::<u64>(), signals + 1);
    };
    for ms in 0..60_000 {
        for _ in 0..random.u64(0..4) {
            let count = random.u64(1..5);
            asked += count;
            machine.on(&attempt(&[("PROMOTED", count)], 0), MS(ms)).into_iter().map(Some).for_each(&mut hear);
        }
    }
    hear(machine.on_tick(MS(61_000)));
    assert!(signals <= 61, "SEED={seed}: {signals}");
    assert_eq!((heard, machine.counted().map(|count| count.blocked).sum()), (asked, asked), "SEED={seed}");
}

#[test]
fn a_second_click_is_counted_and_not_told() {
    let mut machine = machine();
    assert_eq!(machine.on(&attempt(&[("SPAM_REVIEW", 7)], 0), MS(0)), []);
    let counted: Vec<_> = machine.counted().collect();
    let (from, to) = (name("SPAM_REVIEW"), name("SPAM_REVIEW"));
    assert_eq!(counted, [Counted { from, to, blocked: 7, would: 0 }]);
    assert!(counted[0].is_repeat());
}

#[test]
fn unknown_states_are_counted_as_one() {
    let mut machine = machine();
    let to_nowhere = Attempt { to: name("JUNK"), ..attempt(&[("READY", 1), ("TRASH", 2), ("DUST", 4)], 0) };
    let [Signal::Blocked { edges, .. }] = &machine.on(&to_nowhere, MS(0))[..] else { panic!("it is told") };
    let edge = |from: &str, count| Edge { from: name(from), to: name(OTHER), count };
    assert_eq!(*edges, [edge("READY", 1), edge(OTHER, 6)]);
    assert!(machine.counted().all(|count| !count.is_repeat()));
}

#[test]
fn what_would_have_been_blocked_is_never_told_as_what_was() {
    let mut machine = machine();
    machine.on(&attempt(&[("PROMOTED", 1)], 0), MS(0));
    machine.on(&attempt(&[("PROMOTED", 2)], 0), MS(1));
    let would = Attempt { would: true, ..attempt(&[("PROMOTED", 4)], 0) };
    assert_eq!(machine.on(&would, MS(2)), [told(&[("PROMOTED", 2)], 0)], "the mode has changed");
    let Some(Signal::Blocked { edges, would, .. }) = machine.on_tick(MS(1_002)) else { panic!("it is told") };
    assert_eq!((edges[0].count, would), (4, true));
    let counted = machine.counted().next().expect("an edge");
    assert_eq!((counted.blocked, counted.would), (3, 4));
}

#[test]
fn of_several_operations_none_is_named() {
    let mut machine = machine();
    machine.on(&attempt(&[("PROMOTED", 1)], 0), MS(0));
    machine.on(&attempt(&[("PROMOTED", 1)], 0), MS(1));
    machine.on(&Attempt { operation: Some(name("import")), ..attempt(&[("PROMOTED", 1)], 0) }, MS(2));
    let Some(Signal::Blocked { operation, .. }) = machine.on_tick(MS(1_000)) else { panic!("it is told") };
    assert_eq!(operation, None);
}

#[test]
fn a_handle_tells_whoever_listens_and_its_clones_count_together() {
    let heard: Arc<Mutex<Vec<Signal>>> = Arc::default();
    let to = Arc::clone(&heard);
    let (clock, hand) = Clock::manual();
    let signals = Signals::new(move |signal| to.lock().push(signal));
    let around = Around { clock, mode: ModeCell::new(Mode::Act), signals };
    let transition = Transition::new(Arc::new(table()), around);
    assert!(transition.check(Message::Promoted, Message::SpamReview).is_err());
    assert!(transition.counted().is_empty(), "a question is no attempt");
    transition.record(&attempt(&[], 150));
    transition.record(&attempt(&[("PROMOTED", 3)], 150));
    transition.clone().record(&attempt(&[("PROMOTED", 2)], 0));
    transition.tick();
    hand.advance(Duration::from_secs(1));
    transition.tick();
    assert_eq!(*heard.lock(), [told(&[("PROMOTED", 3)], 150), told(&[("PROMOTED", 2)], 0)]);
    assert_eq!(transition.counted()[0].blocked, 5);
}
