//! Who is answered by which query, in examples and in random lives.

use std::collections::{BTreeSet, HashMap};

use super::{Machine, Policy, Share};
use crate::level::Class;

const TEN: Policy = Policy { most: 10 };

fn machine(asked: &[(&'static str, Class)]) -> Machine<&'static str, usize> {
    let mut machine = Machine::default();
    for (caller, (key, class)) in asked.iter().enumerate() {
        machine.ask(*key, *class, caller);
    }
    machine
}

fn share(key: &'static str, callers: &[usize]) -> Share<&'static str, usize> {
    Share { key, callers: callers.to_vec() }
}

#[test]
fn what_waits_leaves_together_and_equal_keys_are_one() {
    let normal = Class::Normal;
    let mut machine = machine(&[("a", normal), ("b", normal), ("a", normal)]);
    assert_eq!(machine.go(), Some(normal));
    assert_eq!(machine.go(), None, "one is going");
    assert_eq!(machine.leave(TEN, |_| true), [share("a", &[0, 2]), share("b", &[1])]);
    machine.came(normal);
    assert_eq!(machine.go(), None, "nothing is left to go for");
}

#[test]
fn no_more_leave_than_may_and_the_rest_needs_somebody_to_go() {
    let normal = Class::Normal;
    let mut machine = machine(&[("a", normal), ("b", normal), ("c", normal)]);
    machine.go();
    machine.came(normal);
    assert_eq!(machine.leave(Policy { most: 2 }, |_| true), [share("a", &[0]), share("b", &[1])]);
    assert_eq!(machine.go(), Some(normal));
    assert_eq!(machine.leave(Policy { most: 0 }, |_| true), [share("c", &[2])], "one leaves in any case");
}

#[test]
fn a_key_whose_query_has_left_waits_for_the_next() {
    let normal = Class::Normal;
    let mut machine = machine(&[("a", normal)]);
    machine.leave(TEN, |_| true);
    machine.ask("a", normal, 7);
    assert_eq!((machine.go(), machine.leave(TEN, |_| true)), (None, vec![]));
    machine.done(&["a"]);
    assert_eq!(machine.go(), Some(normal));
    assert_eq!(machine.leave(TEN, |_| true), [share("a", &[7])]);
}

#[test]
fn the_best_class_goes_and_leaves_first() {
    let mut machine = machine(&[("a", Class::Sheddable), ("b", Class::Normal)]);
    assert_eq!(machine.go(), Some(Class::Normal));
    machine.ask("c", Class::Sheddable, 2);
    assert_eq!(machine.go(), None, "a better one is going");
    machine.ask("d", Class::Critical, 3);
    assert_eq!((machine.go(), machine.first(Class::Critical)), (Some(Class::Critical), Some(&3)));
    assert_eq!(machine.leave(Policy { most: 2 }, |_| true), [share("d", &[3]), share("b", &[1])]);
}

#[test]
fn who_leaves_takes_nobody_along() {
    let normal = Class::Normal;
    let mut machine = machine(&[("a", normal), ("a", normal), ("b", normal)]);
    assert_eq!(machine.leave(TEN, |caller| *caller == 1), [share("a", &[1])]);
    machine.ask("c", normal, 3);
    machine.ask("c", normal, 4);
    assert_eq!(machine.withdraw(|caller| *caller == 3), [3]);
    assert_eq!(machine.leave(TEN, |_| true), [share("c", &[4])]);
}

/// Random lives: everybody is in exactly one query, by their own key; no key is in two queries at once; and as long
/// as something can leave, somebody is going for it.
#[test]
fn everybody_is_answered_exactly_once() {
    #[expect(clippy::disallowed_methods, reason = "a test is replayed by its environment")]
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    for seed in given.map_or(0..500, |seed| seed..seed + 1) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut machine: Machine<u8, u32> = Machine::default();
        let (mut asked, mut answered, mut gone) = (HashMap::new(), BTreeSet::new(), BTreeSet::new());
        let (mut going, mut flying): (Vec<Class>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
        let mut step = 0;
        while step < 400 || !going.is_empty() || !flying.is_empty() {
            match random.u8(0..8) {
                0..4 if step < 400 => {
                    let (key, class) = (random.u8(0..12), Class::ALL[random.usize(0..Class::ALL.len())]);
                    asked.insert(step, key);
                    machine.ask(key, class, step);
                    if random.u8(0..8) == 0 {
                        gone.insert(step);
                    }
                }
                4..6 if !going.is_empty() => {
                    machine.came(going.swap_remove(random.usize(0..going.len())));
                    let most = random.u32(0..6);
                    let shares = machine.leave(Policy { most }, |caller| !gone.contains(caller));
                    assert!(shares.len() <= most.max(1) as usize, "SEED={seed}");
                    for Share { key, callers } in &shares {
                        assert!(
                            flying.iter().all(|keys| !keys.contains(key)),
                            "SEED={seed}: {key} twice at once"
                        );
                        for caller in callers {
                            assert_eq!(asked[caller], *key, "SEED={seed}: somebody else's key");
                            assert!(answered.insert(*caller), "SEED={seed}: {caller} twice");
                        }
                    }
                    flying.push(shares.into_iter().map(|share| share.key).collect());
                }
                6.. if !flying.is_empty() => {
                    machine.done(&flying.swap_remove(random.usize(0..flying.len())));
                }
                _ => {}
            }
            going.extend(machine.go());
            step += 1;
        }
        let unanswered: Vec<_> =
            asked.keys().filter(|caller| !answered.contains(caller) && !gone.contains(caller)).collect();
        assert_eq!((unanswered.len(), machine.waiting()), (0, 0), "SEED={seed}: {unanswered:?}");
    }
}
