use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    backoff::Backoff,
    clock::Tick,
    error_class::ErrorClass,
    level::{Class, Level},
};

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

fn steady() -> Policy {
    Policy { jitter: Jitter::None, ..Policy::default() }
}

/// A read that has failed `attempt` times, in the background, with all the time in the world.
fn failed(attempt: u32) -> Failed {
    Failed {
        attempt,
        error: ErrorClass::Transient,
        repeatable: Repeatable::Always,
        inline: false,
        class: Class::Normal,
        level: Level::Normal,
        left: None,
        retry_after: None,
    }
}

fn ask(policy: Policy, failed: Failed) -> Verdict {
    Machine::new(policy, 0).failed(&failed, Tick::ZERO)
}

const fn again(after: Duration) -> Verdict {
    Verdict::Again { after }
}

const fn no(reason: GiveUp) -> Verdict {
    Verdict::GiveUp(reason)
}

#[test]
fn the_delays_are_one_two_four_and_eight_seconds_and_then_it_is_given_up() {
    let mut machine = Machine::new(steady(), 0);
    let said: Vec<_> = (1..=5).map(|n| machine.failed(&failed(n), Tick::ZERO)).collect();
    assert_eq!(said, [again(S(1)), again(S(2)), again(S(4)), again(S(8)), no(GiveUp::Attempts)]);
}

#[test]
fn delays_can_grow_by_steps_stay_or_be_listed() {
    let waits = |delays: Delays| (1..=4).map(|n| delays.after(n).as_millis()).collect::<Vec<_>>();
    assert_eq!(waits(Delays::Linear { step: MS(100), max: MS(250) }), [100, 200, 250, 250]);
    assert_eq!(waits(Delays::Constant(MS(70))), [70; 4]);
    assert_eq!(waits(Delays::Listed(Arc::from([S(1), MS(5)]))), [1_000, 5, 5, 5]);
    let grown = Backoff { initial: MS(10), factor: 3.0, max: MS(100) };
    assert_eq!(waits(Delays::Exponential(grown)), [10, 30, 90, 100]);
}

#[test]
fn while_a_caller_waits_there_is_one_retry() {
    let inline = |attempt| Failed { inline: true, ..failed(attempt) };
    assert_eq!(ask(steady(), inline(1)), again(S(1)));
    assert_eq!(ask(steady(), inline(2)), no(GiveUp::Attempts));
    assert_eq!(ask(Policy::never(), inline(1)), no(GiveUp::Attempts));
}

#[test]
fn what_would_fail_again_or_must_not_be_done_twice_is_never_repeated() {
    let of = |error, repeatable| ask(steady(), Failed { error, repeatable, ..failed(1) });
    for error in [ErrorClass::Permanent, ErrorClass::Shutdown] {
        assert_eq!(of(error, Repeatable::Always), no(GiveUp::Permanent), "{error:?}");
    }
    for error in [ErrorClass::Interrupted, ErrorClass::Timeout, ErrorClass::Unknown] {
        assert_eq!(of(error, Repeatable::Always), again(S(1)), "{error:?}");
        assert_eq!(of(error, Repeatable::UnlessDone), no(GiveUp::Permanent), "{error:?}: who knows?");
    }
    for error in [ErrorClass::Transient, ErrorClass::Overload] {
        assert_eq!(of(error, Repeatable::UnlessDone), again(S(1)), "{error:?}");
        assert_eq!(of(error, Repeatable::Never), no(GiveUp::Permanent), "{error:?}");
    }
}

#[test]
fn a_retry_that_would_begin_at_the_deadline_or_later_is_not_begun() {
    let left = |left| ask(steady(), Failed { left: Some(left), ..failed(1) });
    assert_eq!(left(MS(1_001)), again(S(1)));
    assert_eq!(left(S(1)), no(GiveUp::Deadline));
    assert_eq!(left(Duration::ZERO), no(GiveUp::Deadline));
}

#[test]
fn a_servers_own_time_is_honoured_and_never_undercut() {
    let after = |retry_after, left| ask(steady(), Failed { retry_after, left, ..failed(1) });
    assert_eq!(after(Some(S(30)), None), again(S(30)));
    assert_eq!(after(Some(MS(10)), None), again(S(1)), "ours is longer");
    assert_eq!(after(Some(S(30)), Some(S(10))), no(GiveUp::Deadline));
}

#[test]
fn at_level_critical_only_critical_work_is_tried_again() {
    let of = |class, level| ask(steady(), Failed { class, level, ..failed(1) });
    assert_eq!(of(Class::Normal, Level::Critical), no(GiveUp::Budget));
    assert_eq!(of(Class::Critical, Level::Critical), again(S(1)));
    assert_eq!(of(Class::Normal, Level::Warning), again(S(1)));
}

/// How many of `tries` retries the budget pays for at `now`.
fn paid(machine: &mut Machine, tries: usize, error: ErrorClass, now: Tick) -> usize {
    let failed = Failed { error, ..failed(1) };
    (0..tries).filter(|_| matches!(machine.failed(&failed, now), Verdict::Again { .. })).count()
}

#[test]
fn over_ten_seconds_there_is_a_retry_for_ten_calls_and_ten_besides() {
    let mut machine = Machine::new(steady(), 0);
    let now = Tick::from_millis(5_500);
    (0..1_000).for_each(|_| machine.called(now));
    assert_eq!(paid(&mut machine, 1_000, ErrorClass::Transient, now), 110);
    assert_eq!(paid(&mut machine, 1, ErrorClass::Transient, now + S(9)), 0, "nothing is forgotten yet");
    assert_eq!(paid(&mut machine, 1_000, ErrorClass::Transient, now + S(10)), 10, "calls are, too");
}

#[test]
fn a_quiet_endpoint_may_retry_a_timeout_counts_twice_and_without_a_budget_there_is_nothing() {
    let quiet = || Machine::new(steady(), 0);
    assert_eq!(paid(&mut quiet(), 100, ErrorClass::Transient, Tick::ZERO), 10);
    assert_eq!(paid(&mut quiet(), 100, ErrorClass::Timeout, Tick::ZERO), 5);
    let mut without = Machine::new(Policy { budget: Budget { ratio: 0.0, per_second: 0.0 }, ..steady() }, 0);
    assert_eq!(paid(&mut without, 1, ErrorClass::Transient, Tick::ZERO), 0);
}

#[test]
fn a_year_of_calm_buys_no_storm() {
    let mut machine = Machine::new(steady(), 0);
    for second in 0..1_000 {
        (0..100).for_each(|_| machine.called(Tick::from_millis(second * 1_000)));
    }
    let now = Tick::from_millis(999_000);
    assert_eq!(paid(&mut machine, 10_000, ErrorClass::Transient, now), 110);
    let a_year_on = now + S(365 * 86_400);
    assert_eq!(paid(&mut machine, 10_000, ErrorClass::Transient, a_year_on), 10);
}

#[test]
fn whatever_happens_retries_stay_within_the_budget_and_delays_within_their_spread() {
    let seed = seed(17);
    let mut dice = crate::dice::Dice::seeded(seed);
    for jitter in [Jitter::None, Jitter::Equal, Jitter::Full] {
        let mut machine = Machine::new(Policy { jitter, ..Policy::default() }, seed);
        let (mut now, mut calls, mut retries) = (Tick::ZERO, Vec::new(), Vec::new());
        for _ in 0..20_000 {
            now = now + MS(dice.next() % 40);
            if dice.roll() < 0.5 {
                machine.called(now);
                calls.push(now);
                continue;
            }
            let attempt = 1 + u32::try_from(dice.next() % 5).expect("small");
            let Verdict::Again { after } = machine.failed(&failed(attempt), now) else { continue };
            retries.push(now);
            let whole = Policy::default().delays.after(attempt);
            let least = match jitter {
                Jitter::None => whole,
                Jitter::Equal => whole / 2,
                Jitter::Full => Duration::ZERO,
            };
            assert!(attempt < 5 && (least..=whole).contains(&after), "{jitter:?} {attempt} {after:?}");
            // What is forgotten goes by whole seconds: nine of them are always remembered, and never more than ten.
            let (calls, spent) = (within(S(10), &calls, now), within(S(9), &retries, now));
            assert!(10 * spent <= calls + 100, "{spent} of {calls} at {now:?}");
        }
        assert!(retries.len() > 1_000, "{jitter:?}: {}", retries.len());
    }
}

fn within(span: Duration, events: &[Tick], now: Tick) -> usize {
    events.iter().filter(|at| now.since(**at) < span).count()
}

fn seed(default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test is replayed by its environment")]
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or(default);
    println!("SEED={seed}");
    seed
}

#[test]
fn the_same_seed_is_the_same_spread() {
    let waits = |seed| {
        let mut machine = Machine::new(Policy::default(), seed);
        (0..10).map(|_| machine.failed(&failed(3), Tick::ZERO)).collect::<Vec<_>>()
    };
    assert_eq!(waits(3), waits(3));
    assert_ne!(waits(3), waits(4));
}

#[test]
fn a_policy_that_makes_no_sense_says_so() {
    assert_eq!(Policy::default().check(), Ok(()));
    assert_eq!(Policy { attempts: 0, ..steady() }.check(), Err(Invalid::NoAttempt));
    assert_eq!(Policy { delays: Delays::Listed(Arc::from([])), ..steady() }.check(), Err(Invalid::NoDelay));
    let budget = Budget { ratio: f64::NAN, per_second: 1.0 };
    assert_eq!(Policy { budget, ..steady() }.check(), Err(Invalid::Budget));
}
