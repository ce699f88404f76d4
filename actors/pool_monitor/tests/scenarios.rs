use std::time::Duration;

use super::*;

fn literal() -> Policy {
    // Thresholds on the use itself, as the incident of 09:40:20 tells them.
    Policy { needs_waiter: false, smoothing: Duration::ZERO, ..Policy::default() }
}

#[test]
fn the_incident_of_09_40_20_with_thresholds_as_they_are_told() {
    let mut told = Told::new(literal());
    told.see(100, pool(40, 0));
    told.see(200, pool(85, 0));
    told.see(600, pool(92, 0));
    told.see(1_000, pool(88, 0));
    told.see(1_200, pool(60, 0));
    told.run_to(10_000);

    let whole = [
        step("warning(use)", MITIGATED),
        step("critical(use)", EMERGENCY),
        step("warning(calm)", EMERGENCY_OVER),
        step("normal(calm)", RESTORED),
    ];
    assert_eq!(told.words(), whole.concat());
    assert_eq!(told.when("warning(use)"), Some(220), "85 of 100 for 20 ms");
    assert_eq!(told.when("critical(use)"), Some(620), "92 of 100 for 20 ms");
    assert_eq!(told.when("warning(calm)"), Some(1_250), "88 of 100 for 250 ms");
    assert_eq!(told.when("normal(calm)"), Some(3_200), "below 80 for 2 s");
    assert_eq!(told.machine.taken().count(), 0);
}

#[test]
fn a_dashboard_of_160_queries_is_noticed_before_the_average_can_know() {
    let mut told = Told::new(Policy::default());
    told.see(0, pool(5, 0));
    told.see(100, pool(100, 60));
    told.run_to(125);
    assert_eq!(told.words(), step("warning(full)", MITIGATED));
    assert_eq!(told.when("warning(full)"), Some(120), "full with someone waiting, for 20 ms");
    told.run_to(1_000);
    // The average goes from .05 to 1 with 100 ms: at .92 after 100 · ln(.95/.081) = 246.2 ms, and 20 of dwell.
    assert_eq!(told.when("critical(full)"), Some(367));
}

#[test]
fn a_well_used_pool_without_anyone_waiting_is_under_no_pressure() {
    let mut told = Told::new(Policy::default());
    told.see(0, pool(99, 0));
    told.run_to(20_000);
    assert!(told.words().is_empty());
    told.see(20_000, pool(99, 1));
    told.run_to(20_100);
    assert_eq!(told.words(), [step("warning(use)", MITIGATED), step("critical(use)", EMERGENCY)].concat());
}

#[test]
fn critical_entered_straight_from_normal_takes_every_step_at_one_moment() {
    let mut told = Told::new(literal());
    told.see(0, pool(98, 0));
    told.run_to(20);
    assert_eq!(told.words(), [step("warning(use)", MITIGATED), step("critical(use)", EMERGENCY)].concat());
    assert!(told.story.iter().all(|&(ms, _)| ms == 20));
}

#[test]
fn pressure_shorter_than_its_dwell_changes_nothing() {
    let mut told = Told::new(literal());
    for burst in 0..50 {
        told.see(burst * 40, pool(99, 9));
        told.see(burst * 40 + 19, pool(50, 0));
    }
    told.run_to(10_000);
    assert!(told.words().is_empty());
}

#[test]
fn a_level_is_not_left_while_those_who_count_wait() {
    let mut told = Told::new(literal());
    told.see(0, pool(98, 3));
    told.see(100, Sample { waiting_critical: 1, ..pool(50, 1) });
    told.run_to(9_000);
    assert_eq!(told.machine.level(), Level::Critical, "a critical request waits");
    told.see(9_000, pool(50, 1));
    told.run_to(20_000);
    assert_eq!(told.machine.level(), Level::Warning, "somebody waits");
    told.see(20_000, pool(50, 0));
    told.run_to(21_999);
    assert_eq!(told.machine.level(), Level::Warning);
    told.run_to(22_000);
    assert_eq!(told.machine.level(), Level::Normal);
}

#[test]
fn load_that_goes_away_is_followed_by_normal_within_the_dwell() {
    let mut told = Told::new(Policy::default());
    told.see(0, pool(100, 50));
    told.see(1_000, pool(0, 0));
    told.run_to(10_000);
    let normal = told.when("normal(calm)").expect("it calms down");
    assert!((3_000..=3_250).contains(&normal), "load gone at 1,000, dwell 2,000, normal at {normal}");
}

#[test]
fn a_use_that_stays_at_the_line_reaches_it() {
    let mut told = Told::new(Policy { needs_waiter: false, ..Policy::default() });
    told.see(0, pool(40, 0));
    told.see(100, pool(85, 0));
    told.run_to(5_000);
    // The average is within a thousandth of .85 after 100 · ln(.45/.001) = 610.9 ms, and 20 ms of dwell.
    assert_eq!(told.when("warning(use)"), Some(731));
    told.see(5_000, pool(84, 0));
    told.run_to(20_000);
    assert_eq!(told.machine.level(), Level::Warning, "84 is above the exit of 80");
    told.see(20_000, pool(80, 0));
    told.run_to(40_000);
    assert_eq!(told.machine.level(), Level::Normal);
}

#[test]
fn a_use_one_connection_below_the_line_never_reaches_it_however_large_the_pool() {
    for max in [20, 100, 1_000, 100_000] {
        let below = max * 85 / 100 - 1;
        let mut told = Told::new(Policy { needs_waiter: false, ..Policy::default() });
        told.see(0, Sample { in_use: below, max, ..Sample::default() });
        told.run_to(20_000);
        assert!(told.words().is_empty(), "{below} of {max}");
    }
}

#[test]
fn the_pool_may_shrink_and_grow_while_it_is_watched() {
    let mut told = Told::new(literal());
    told.see(0, Sample { in_use: 50, max: 100, ..Sample::default() });
    told.see(100, Sample { in_use: 50, max: 50, ..Sample::default() });
    told.run_to(200);
    assert_eq!(told.machine.level(), Level::Critical, "the server took half of it away");
    told.see(200, Sample { in_use: 50, max: 100, ..Sample::default() });
    told.see(300, Sample { in_use: 0, max: 0, ..Sample::default() });
    told.run_to(10_000);
    assert_eq!(told.machine.level(), Level::Normal);
}

#[test]
fn a_blind_monitor_lifts_what_it_forced_and_goes_on_with_the_next_sample() {
    let mut told = Told::new(literal());
    told.see(0, pool(98, 0));
    told.run_to(29_999);
    assert_eq!(told.machine.level(), Level::Critical);
    told.story.clear();
    told.run_to(30_000);
    let lifted = [vec!["blind"], step("warning(blind)", EMERGENCY_OVER), step("normal(blind)", RESTORED)];
    assert_eq!(told.words(), lifted.concat());
    assert_eq!(told.machine.next_timer(), None, "it is told once");
    told.story.clear();
    told.see(90_000, pool(86, 0));
    told.run_to(90_020);
    assert_eq!(told.words(), [vec!["sees"], step("warning(use)", MITIGATED)].concat());
}

#[test]
fn what_was_done_under_the_old_policy_is_undone_as_it_was_done() {
    let mut told = Told::new(literal());
    told.see(0, pool(90, 0));
    told.run_to(100);
    let done: Vec<_> = told.machine.taken().collect();
    assert!(done.contains(&Action::UserLimit { limit: 5 }));
    let stricter = Policy { user_limit: 2, batch_under_pressure: 20, warning_exit: 0.5, ..literal() };
    let effects = told.machine.reconfigure(stricter, MS(100));
    assert!(effects.is_empty());
    told.see(100, pool(60, 0));
    told.run_to(9_000);
    assert_eq!(told.machine.level(), Level::Warning, "60 is no longer below the exit");
    told.see(9_000, pool(10, 0));
    assert!(told.machine.on_tick(MS(11_000)).contains(&Effect::Undo(Action::UserLimit { limit: 5 })));
    assert_eq!(told.machine.taken().count(), 0);
}

#[test]
fn it_does_not_matter_how_late_a_timer_is_called() {
    let samples = [(0, pool(30, 0)), (70, pool(100, 8)), (400, pool(85, 1)), (700, pool(20, 0))];
    let mut prompt = Told::new(Policy::default());
    let mut late = Machine::new(Policy::default());
    let mut seen = Effects::new();
    for (ms, sample) in samples {
        prompt.see(ms, sample);
        seen.extend(late.on_tick(MS(ms)));
        seen.extend(late.on(sample, MS(ms)));
    }
    prompt.run_to(5_000);
    seen.extend(late.on_tick(MS(5_000)));
    assert_eq!(prompt.words(), seen.iter().filter_map(word).collect::<Vec<_>>());
}

#[test]
fn statements_are_cancelled_for_critical_work_that_waits_and_then_have_time_to_end() {
    let mut told = Told::new(Policy { cancel_after: Some(Duration::from_millis(100)), ..literal() });
    let waits = |since| Sample {
        waiting_critical: 7,
        critical_waiting_since: Some(MS(since)),
        ..Sample { in_use: 10, max: 100, waiting: 7, ..Sample::default() }
    };
    told.see(1_050, waits(1_000));
    told.see(1_099, waits(1_000));
    assert!(told.words().is_empty(), "not for as long as it may wait");
    for ms in (1_100..1_400).step_by(10) {
        told.see(ms, waits(1_000));
    }
    told.see(1_400, Sample { in_use: 10, max: 100, ..Sample::default() });
    let cancelled: Vec<_> = told.story.iter().map(|(ms, word)| (*ms, word.as_str())).collect();
    assert_eq!(cancelled, [(1_100, "cancel 7"), (1_200, "cancel 7"), (1_300, "cancel 7")]);
}

#[test]
fn what_the_next_look_finds_gone_has_not_stood() {
    let mut told = Told::new(Policy::default());
    for ms in (0..1_000).step_by(30) {
        let busy = (ms / 30) % 2 == 0;
        let sample = if busy { pool(100, 5) } else { pool(60, 0) };
        let effects = told.machine.on(sample, MS(ms));
        told.note(MS(ms), &effects);
    }
    assert!(told.words().is_empty());
}

#[test]
fn somebody_waits_all_the_time_and_nobody_for_long() {
    let mut told = Told::new(Policy::default());
    for ms in 15..1_000 {
        let since = Some(MS(ms - 15));
        told.see(ms, Sample { waiting_since: since, ..pool(100, 30) });
    }
    assert!(told.words().is_empty(), "whoever comes is served within 15 ms: no queue stands");
    told.see(1_000, Sample { waiting_since: Some(MS(985)), ..pool(100, 30) });
    told.run_to(1_100);
    assert_eq!(told.when("warning(full)"), Some(1_005), "the first who has waited for 20 ms");
    assert_eq!(told.when("critical(full)"), Some(1_005), "the average is there already");
}

#[test]
fn a_policy_that_makes_no_sense_is_refused_with_its_rule() {
    use super::super::Invalid;
    let ok = Policy::default();
    let table = [
        (Policy { warning: 0.0, ..ok.clone() }, Invalid::NoRatio),
        (Policy { critical: 1.01, ..ok.clone() }, Invalid::NoRatio),
        (Policy { warning: f64::NAN, ..ok.clone() }, Invalid::NoRatio),
        (Policy { critical: 0.84, critical_exit: 0.8, ..ok.clone() }, Invalid::CriticalBelowWarning),
        (Policy { warning_exit: 0.85, ..ok.clone() }, Invalid::WarningExit),
        (Policy { warning_exit: f64::NAN, ..ok.clone() }, Invalid::WarningExit),
        (Policy { critical_exit: 0.92, ..ok.clone() }, Invalid::CriticalExit),
        (Policy { user_limit: 0, ..ok.clone() }, Invalid::Nothing),
    ];
    for (policy, rule) in table {
        assert_eq!(policy.check(), Err(rule));
    }
    assert_eq!(ok.check(), Ok(()));
}

#[test]
fn a_senseless_policy_flaps_but_comes_to_an_end() {
    let mut machine = Machine::new(Policy {
        warning: 0.5,
        warning_exit: 0.9,
        critical: 0.6,
        critical_exit: 0.9,
        up: Duration::ZERO,
        down: Duration::ZERO,
        down_critical: Duration::ZERO,
        ..literal()
    });
    for ms in 0..100 {
        let effects = machine.on(pool(70, 0), MS(ms));
        assert!(effects.len() <= 2 * 9, "before and after the sample, two steps each: {effects:?}");
    }
}
