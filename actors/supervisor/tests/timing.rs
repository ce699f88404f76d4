//! What takes time: the delay before a restart, starts and stops that hang, budgets.

use super::*;

fn patient(strategy: Strategy) -> Policy {
    Policy { strategy, max_restarts: 100, ..Policy::default() }
}

#[test]
fn the_first_restart_is_immediate_and_each_further_one_waits_longer() {
    let mut scene = Scene::new(patient(Strategy::OneForOne), workers("a")).booted();
    for _ in 0..9 {
        scene.crash("a");
        scene.pass(Duration::from_secs(10));
        assert_eq!(scene.running(), "a");
    }
    assert_eq!(scene.delays("a"), [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000]);
}

#[test]
fn a_child_in_its_delay_is_neither_up_nor_forgotten() {
    let mut scene = Scene::new(patient(Strategy::OneForOne), workers("a b")).booted();
    scene.crash("a");
    scene.crash("a");
    assert_eq!((scene.running(), scene.specs()), ("b".into(), "a b".into()));
    assert_eq!(scene.ask(Verb::Restart("a".into())), Some(Err(Refused::Restarting)));
    assert_eq!(scene.ask(Verb::Delete("a".into())), Some(Err(Refused::Restarting)));
    assert_eq!(scene.ask(Verb::Start(ChildPolicy::permanent("a"))), Some(Err(Refused::AlreadyPresent)));
    scene.pass(MS(99));
    assert_eq!(scene.running(), "b");
    scene.pass(MS(1));
    assert_eq!(scene.running(), "a b");
}

#[test]
fn a_child_that_is_stopped_in_its_delay_stays_down() {
    let mut scene = Scene::new(patient(Strategy::OneForOne), workers("a")).booted();
    scene.crash("a");
    scene.crash("a");
    assert_eq!(scene.ask(Verb::Stop("a".into())), Some(Ok(())));
    scene.pass(Duration::from_secs(60));
    assert_eq!(scene.running(), "");
    assert_eq!(scene.machine.next_timer(), None);
    assert_eq!(scene.ask(Verb::Restart("a".into())), Some(Ok(())));
    assert_eq!(scene.running(), "a");
}

#[test]
fn a_calm_period_starts_the_delays_anew() {
    let mut scene = Scene::new(patient(Strategy::OneForOne), workers("a")).booted();
    scene.crash("a");
    scene.pass(Duration::from_secs(30) - MS(1));
    scene.crash("a");
    scene.pass(MS(100) + Duration::from_secs(30));
    scene.crash("a");
    assert_eq!(scene.delays("a"), [0, 100, 0]);
}

#[test]
fn waiting_for_a_restart_is_not_calm() {
    let backoff = Backoff { initial: Duration::from_secs(60), factor: 2.0, max: Duration::from_secs(600) };
    let policy = Policy { backoff, ..patient(Strategy::OneForOne) };
    let mut scene = Scene::new(policy, workers("a")).booted();
    for _ in 0..4 {
        scene.crash("a");
        scene.pass(Duration::from_secs(600));
        scene.now = scene.view("a").expect("it is there").since;
    }
    assert_eq!(scene.delays("a"), [0, 60_000, 120_000, 240_000]);
}

#[test]
fn a_group_is_stopped_at_once_and_waits_together() {
    let mut scene = Scene::new(patient(Strategy::OneForAll), workers("a b c")).booted();
    scene.crash("b");
    scene.take_log();
    scene.crash("b");
    assert_eq!((scene.take_log(), scene.running()), ("stop c, stop a".into(), String::new()));
    scene.pass(MS(100));
    assert_eq!(scene.take_log(), "start a, start b, start c");
    assert_eq!(scene.delays("a"), [0, 100]);
}

#[test]
fn a_wait_is_not_cut_short_by_the_restart_of_another() {
    let mut scene = Scene::new(patient(Strategy::RestForOne), workers("a b")).booted();
    scene.crash("b");
    scene.crash("b");
    scene.pass(MS(50));
    scene.crash("a");
    assert_eq!(scene.running(), "");
    scene.pass(MS(49));
    assert_eq!(scene.running(), "");
    scene.pass(MS(1));
    assert_eq!(scene.running(), "a b");
}

#[test]
fn failed_restarts_wait_longer_and_longer_too() {
    let starts = [true, false, false, true];
    let mut scene = Scene::new(patient(Strategy::OneForOne), workers("a")).script("a", &starts).booted();
    scene.crash("a");
    assert_eq!(scene.take_log(), "start a, fail a");
    scene.pass(MS(100));
    assert_eq!(scene.take_log(), "fail a");
    scene.pass(MS(200));
    assert_eq!(scene.take_log(), "start a");
}

#[test]
fn a_start_that_hangs_is_given_up_and_tried_again() {
    let mut scene = Scene::new(patient(Strategy::OneForOne), workers("a b")).booted();
    scene.deaf.push("a".into());
    scene.crash("a");
    let hung = scene.generation("a");
    scene.crash("b");
    assert_eq!(scene.running(), "b", "it blocks nobody");
    scene.pass(Duration::from_secs(10));
    scene.deaf.clear();
    assert!(scene.take_log().ends_with("kill a"));
    scene.pass(MS(100));
    assert_eq!(scene.running(), "a b");
    scene.take_log();
    scene.tell(Event::Started { id: "a".into(), generation: hung });
    assert_eq!(scene.take_log(), "kill a", "whoever comes too late is not wanted any more");
    assert_eq!(scene.running(), "a b");
}

#[test]
fn a_start_that_hangs_at_boot_fails_it() {
    let mut scene = Scene::new(patient(Strategy::OneForOne), workers("a b c"));
    scene.deaf.push("b".into());
    let mut scene = scene.booted();
    assert_eq!(scene.running(), "a");
    scene.pass(Duration::from_secs(10));
    assert_eq!(scene.take_log(), "start a, start b, kill b, stop a");
    assert!(matches!(&scene.end, Some(End::StartFailed { child, .. }) if &**child == "b"));
}

#[test]
fn a_start_that_hangs_can_be_stopped() {
    let mut scene = Scene::new(patient(Strategy::OneForOne), workers("a")).booted();
    scene.deaf.push("a".into());
    scene.crash("a");
    assert_eq!(scene.ask(Verb::Stop("a".into())), None);
    assert!(scene.take_log().ends_with("kill a"));
    let generation = scene.generation("a");
    scene.tell(Event::StartFailed { id: "a".into(), generation, error: "given up".into() });
    assert_eq!(scene.replies.values().next(), Some(&Ok(())));
    assert_eq!(scene.view("a").expect("it is known").state, ChildState::Down);
}

#[test]
fn who_does_not_end_is_killed_then_left_behind() {
    let mut scene = Scene::new(patient(Strategy::OneForOne), workers("a b")).booted();
    scene.deaf.push("a".into());
    let generation = scene.generation("a");
    assert_eq!(scene.ask(Verb::Stop("a".into())), None);
    scene.pass(Duration::from_secs(5));
    assert!(scene.take_log().ends_with("stop a, kill a"));
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.take_log(), "abandon a");
    assert_eq!(scene.replies.values().next(), Some(&Ok(())));
    assert_eq!(scene.view("a").expect("it is known").state, ChildState::Abandoned);
    scene.deaf.clear();
    assert_eq!(scene.ask(Verb::Restart("a".into())), Some(Ok(())));
    scene.tell(Event::Exited { id: "a".into(), generation, exit: Exit::Killed });
    assert_eq!(scene.running(), "a b", "what the one left behind says changes nothing");
}

#[test]
fn a_supervisor_below_is_given_all_the_time_it_needs() {
    let children = vec![ChildPolicy::permanent("inner").supervisor()];
    let mut scene = Scene::new(patient(Strategy::OneForOne), children);
    scene.deaf.push("inner".into());
    let mut scene = scene.booted();
    assert_eq!(scene.machine.next_timer(), None);
    scene.tell(Event::Started { id: "inner".into(), generation: 1 });
    scene.tell(Event::Stop);
    assert_eq!(scene.machine.next_timer(), None);
    scene.tell(Event::Exited { id: "inner".into(), generation: 1, exit: Exit::Shutdown });
    assert_eq!(scene.end, Some(End::Asked));
}

#[test]
fn a_child_with_a_budget_of_its_own_takes_nobody_down() {
    let mut children = workers("a");
    children
        .extend((0..3).map(|n| ChildPolicy::permanent(format!("d{n}")).budget(2, Duration::from_secs(60))));
    let mut scene = Scene::new(plain(Strategy::OneForOne, 0), children).booted();
    (0..3).for_each(|_| scene.crash("d1"));
    assert_eq!((scene.running(), scene.specs()), ("a d0 d2".into(), "a d0 d1 d2".into()));
    let given_up = |s: &&Signal| matches!(s, Signal::Child { event: ChildEvent::GivenUp, .. });
    assert_eq!(scene.signals.iter().filter(given_up).count(), 1);
    scene.crash("d0");
    assert_eq!(scene.running(), "a d0 d2");
    assert_eq!(scene.end, None);
}
