//! What arrives while something is being done.

use super::*;

const EXIT: fn(&str, u64) -> Event =
    |id, generation| Event::Exited { id: id.into(), generation, exit: Exit::Killed };

#[test]
fn an_exit_that_is_heard_of_before_the_start_is_not_lost() {
    let mut scene = Scene::new(plain(Strategy::OneForOne, 5), workers("a"));
    scene.deaf.push("a".into());
    let mut scene = scene.booted();
    scene.tell(EXIT("a", 1));
    assert_eq!(scene.view("a").expect("it is there").state, ChildState::Starting);
    scene.deaf.clear();
    scene.tell(Event::Started { id: "a".into(), generation: 1 });
    assert_eq!((scene.running(), scene.generation("a")), ("a".into(), 2));
}

#[test]
fn an_exit_of_an_older_generation_changes_nothing() {
    let mut scene = Scene::new(plain(Strategy::OneForOne, 5), workers("a")).booted();
    scene.crash("a");
    scene.tell(EXIT("a", 1));
    scene.tell(Event::StartFailed { id: "a".into(), generation: 1, error: "late".into() });
    assert_eq!(scene.generation("a"), 2);
    assert_eq!(scene.take_log(), "start a, start a");
}

#[test]
fn a_bystander_that_dies_while_its_group_is_stopped_is_no_further_restart() {
    let mut scene = Scene::new(plain(Strategy::OneForAll, 1), workers("a b c")).booted();
    scene.deaf.push("c".into());
    scene.crash("b");
    scene.tell(EXIT("a", 1));
    scene.deaf.clear();
    scene.tell(EXIT("c", 3));
    assert_eq!((scene.running(), &scene.end), ("a b c".into(), &None));
}

#[test]
fn an_exit_during_a_group_restart_is_decided_after_it() {
    let mut scene = Scene::new(plain(Strategy::OneForAll, 2), workers("a b")).booted();
    scene.deaf.push("b".into());
    scene.tell(EXIT("b", 2));
    scene.deaf.push("a".into());
    scene.deaf.clear();
    assert_eq!(scene.running(), "a", "b hangs in its start");
    let (a, b) = (scene.generation("a"), scene.generation("b"));
    scene.take_log();
    scene.tell(EXIT("a", a));
    assert_eq!(scene.take_log(), "", "one at a time");
    scene.tell(Event::Started { id: "b".into(), generation: b });
    assert_eq!(scene.take_log(), "stop b, start a, start b");
}

#[test]
fn trying_again_is_ignored_when_the_group_has_been_restarted_meanwhile() {
    let mut scene = Scene::new(plain(Strategy::OneForAll, 9), workers("a b")).booted();
    scene.deaf.push("b".into());
    scene.crash("b");
    let (a, b) = (scene.generation("a"), scene.generation("b"));
    scene.tell(EXIT("a", a));
    scene.deaf.clear();
    scene.take_log();
    scene.tell(Event::StartFailed { id: "b".into(), generation: b, error: "planted".into() });
    assert_eq!(scene.take_log(), "start a, start b", "for the end of a; the second try of b is not needed");
    assert_eq!(scene.running(), "a b");
}

#[test]
fn trying_again_is_ignored_when_the_child_was_stopped_or_deleted_meanwhile() {
    for delete in [false, true] {
        let mut scene = Scene::new(plain(Strategy::OneForAll, 9), workers("a b")).booted();
        scene.deaf.push("b".into());
        scene.crash("b");
        let b = scene.generation("b");
        assert_eq!(scene.ask(Verb::Stop("b".into())), None, "the group is at work");
        if delete {
            scene.tell(Event::Verb { request: 1, verb: Verb::Delete("b".into()) });
        }
        scene.deaf.clear();
        scene.take_log();
        scene.tell(Event::StartFailed { id: "b".into(), generation: b, error: "planted".into() });
        assert_eq!((scene.take_log(), scene.running()), (String::new(), "a".into()));
        assert_eq!(scene.specs(), if delete { "a" } else { "a b" });
        assert!(scene.replies.values().all(Result::is_ok));
    }
}

#[test]
fn verbs_wait_for_a_group_restart_and_are_answered_in_order() {
    let mut scene = Scene::new(plain(Strategy::RestForOne, 9), workers("a b")).booted();
    scene.deaf.push("b".into());
    scene.crash("b");
    let b = scene.generation("b");
    assert_eq!(scene.ask(Verb::Delete("b".into())), None);
    scene.deaf.clear();
    scene.tell(Event::Started { id: "b".into(), generation: b });
    assert_eq!(scene.replies.values().collect::<Vec<_>>(), [&Err(Refused::Running)]);
}

#[test]
fn the_end_interrupts_a_restart_and_answers_whoever_waits() {
    let mut scene = Scene::new(plain(Strategy::OneForAll, 9), workers("a b")).booted();
    scene.deaf.push("b".into());
    scene.crash("b");
    assert_eq!(scene.ask(Verb::Stop("a".into())), None);
    scene.take_log();
    scene.tell(Event::Stop);
    assert_eq!(scene.take_log(), "kill b");
    assert_eq!(scene.replies.values().collect::<Vec<_>>(), [&Err(Refused::Terminated)]);
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.take_log(), "abandon b, stop a");
    assert_eq!(scene.end, Some(End::Asked));
    assert_eq!(scene.ask(Verb::Restart("a".into())), Some(Err(Refused::Terminated)));
}

#[test]
fn what_is_asked_of_a_child_that_is_forgotten_meanwhile_is_answered() {
    let child = ChildPolicy::new("a", Restart::Temporary);
    let mut scene = Scene::new(plain(Strategy::OneForOne, 9), vec![child]).booted();
    scene.deaf.push("a".into());
    scene.tell(Event::Verb { request: 1, verb: Verb::Stop("a".into()) });
    scene.tell(Event::Verb { request: 2, verb: Verb::Restart("a".into()) });
    scene.tell(EXIT("a", 1));
    assert_eq!(scene.replies, HashMap::from([(1, Ok(())), (2, Err(Refused::NotFound))]));
}

#[test]
fn what_is_shown_are_the_differences() {
    let mut scene = Scene::new(plain(Strategy::OneForOne, 9), workers("a b")).booted();
    assert_eq!(scene.machine.changes().len(), 2);
    assert_eq!(scene.machine.changes(), []);
    scene.crash("b");
    let changes = scene.machine.changes();
    let [Change::Shown(view)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((&*view.id, view.state, view.starts, view.restarts), ("b", ChildState::Up, 2, 1));
    scene.ask(Verb::Stop("a".into()));
    scene.ask(Verb::Delete("a".into()));
    assert_eq!(scene.machine.changes(), [Change::Gone("a".into())]);
}
