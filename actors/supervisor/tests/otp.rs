//! What OTP's own test suite asks of a supervisor, as a table: under this policy, with these children, after
//! these steps, these run, these are known, and each has been started this often.

use super::*;

/// `name | strategy max [auto] | children | steps | outcome`
///
/// A child is `id:restart[:significant][=starts]`, where starts are `+` and `-`, the last repeating. A step is
/// `exit ID HOW`, `stop|restart|delete ID`, `add CHILD`, `wait MS`, with ` ? error` where it is refused. The
/// outcome is `running / known / starts`, or `ended` with why.
const CASES: &str = "
starts in order                   | one_for_one 2  | a:p b:p            |                               | a b / a b / a1 b1
no children at all                | one_for_one 2  |                    |                               | / /
a failing start: nobody starts    | one_for_one 2  | a:p b:p=- c:p      |                               | ended start b / a1 b1
a failing temporary one as well   | one_for_one 2  | a:t b:x=-          |                               | ended start b / a1 b1
permanent, normal exit            | one_for_one 2  | a:p                | exit a normal                 | a / a / a2
permanent, shutdown               | one_for_one 2  | a:p                | exit a shutdown               | a / a / a2
permanent, abnormal               | one_for_one 2  | a:p                | exit a error                  | a / a / a2
permanent, killed                 | one_for_one 2  | a:p                | exit a kill                   | a / a / a2
transient, normal exit            | one_for_one 2  | a:t                | exit a normal                 | / a / a1
transient, shutdown               | one_for_one 2  | a:t                | exit a shutdown               | / a / a1
transient, abnormal               | one_for_one 2  | a:t                | exit a error                  | a / a / a2
transient, killed                 | one_for_one 2  | a:t                | exit a kill                   | a / a / a2
transient, panicked               | one_for_one 2  | a:t                | exit a panic                  | a / a / a2
temporary, normal exit            | one_for_one 2  | a:x                | exit a normal                 | / / a1
temporary, shutdown               | one_for_one 2  | a:x                | exit a shutdown               | / / a1
temporary, abnormal               | one_for_one 2  | a:x                | exit a error                  | / / a1
a normal exit counts if permanent | one_for_one 1  | a:p                | exit a normal; exit a normal  | ended intensity / a2
a normal exit of a transient      | one_for_all 0  | a:t b:p            | exit a normal                 | b / a b / a1 b1
one_for_one: only the one         | one_for_one 2  | a:p b:p            | exit a error                  | a b / a b / a2 b1
one_for_one escalates             | one_for_one 1  | a:p b:p            | exit a error; exit a error    | ended intensity / a2 b1
one_for_one, none allowed         | one_for_one 0  | a:p b:p            | exit b error                  | ended intensity / a1 b1
restarts of all count together    | one_for_one 2  | a:p b:p c:p        | exit a error; exit b error; exit c error | ended intensity / a2 b2 c1
one_for_all: everybody            | one_for_all 2  | a:p b:p            | exit a error                  | a b / a b / a2 b2
one_for_all escalates             | one_for_all 1  | a:p b:p            | exit a error; exit b error    | ended intensity / a2 b2
one_for_all, another one fails    | one_for_all 3  | a:p b:p=+-+ c:p    | exit a error                  | a b c / a b c / a3 b3 c2
one_for_all, another one fails on | one_for_all 3  | a:p b:p=+- c:p     | exit a error                  | ended intensity / a4 b4 c1
rest_for_one: it and those after  | rest_for_one 2 | a:p b:p c:p        | exit b error                  | a b c / a b c / a1 b2 c2
rest_for_one, the first           | rest_for_one 2 | a:p b:p c:p        | exit a error                  | a b c / a b c / a2 b2 c2
rest_for_one, the last            | rest_for_one 2 | a:p b:p c:p        | exit c error                  | a b c / a b c / a1 b1 c2
rest_for_one escalates            | rest_for_one 1 | a:p b:p            | exit a error; exit a error    | ended intensity / a2 b2
rest_for_one, a later one fails   | rest_for_one 3 | a:p b:p c:p=+-+    | exit a error                  | a b c / a b c / a2 b2 c3
rest_for_one, an early one stays  | rest_for_one 3 | a:p b:p=+-+ c:p    | exit b error                  | a b c / a b c / a1 b3 c2
a failed restart is tried again   | one_for_one 3  | a:p=+--+           | exit a error                  | a / a / a4
and counts as another             | one_for_one 2  | a:p=+--+ b:p       | exit a error                  | ended intensity / a3 b1
a restart that always fails ends  | one_for_one 9  | a:p=+-             | exit a error                  | ended intensity / a10
several restarts within the limit | one_for_one 4  | a:p                | exit a error; exit a normal; exit a kill; exit a error | a / a / a5
a temporary bystander, for all    | one_for_all 2  | a:p b:x            | exit a error                  | a / a / a2 b1
a temporary bystander, for rest   | rest_for_one 2 | a:p b:x            | exit a error                  | a / a / a2 b1
a temporary one before it stays   | rest_for_one 2 | a:x b:p            | exit b error                  | a b / a b / a1 b2
a temporary one's end, for all    | one_for_all 0  | a:p b:x            | exit b error                  | a / a / a1 b1
a transient bystander comes back  | one_for_all 2  | a:p b:t            | exit b normal; exit a error   | a b / a b / a2 b2
a stopped bystander comes back    | one_for_all 2  | a:p b:p            | stop b; exit a error          | a b / a b / a2 b2
a stopped one before stays down   | rest_for_one 2 | a:p b:p            | stop a; exit b error          | b / a b / a1 b2
stop, known still                 | one_for_one 2  | a:p b:p            | stop a                        | b / a b / a1 b1
stop twice                        | one_for_one 2  | a:p                | stop a; stop a                | / a / a1
stop is no restart                | one_for_one 0  | a:p b:t            | stop a; stop b                | / a b / a1 b1
stop a temporary                  | one_for_one 2  | a:x                | stop a; stop a ? not_found    | / / a1
stop the unknown                  | one_for_one 2  | a:p                | stop z ? not_found            | a / a / a1
restart what runs                 | one_for_one 2  | a:p                | restart a ? running           | a / a / a1
restart what is down              | one_for_one 0  | a:p                | stop a; restart a             | a / a / a2
restart the unknown               | one_for_one 2  | a:p                | restart z ? not_found         | a / a / a1
restart fails: down, no retry     | one_for_one 0  | a:p=+-+            | stop a; restart a ? start_failed | / a / a2
restart after it failed           | one_for_one 0  | a:p=+-+            | stop a; restart a ? start_failed; restart a | a / a / a3
restart of an ended transient     | one_for_one 0  | a:t                | exit a normal; restart a      | a / a / a2
delete what runs                  | one_for_one 2  | a:p                | delete a ? running            | a / a / a1
delete what is down               | one_for_one 2  | a:p b:p            | stop a; delete a              | b / b / a1 b1
delete the unknown                | one_for_one 2  | a:p                | delete z ? not_found          | a / a / a1
delete twice                      | one_for_one 2  | a:p                | stop a; delete a; delete a ? not_found | / / a1
add behind the others             | one_for_one 2  | a:p                | add b:p                       | a b / a b / a1 b1
add what runs                     | one_for_one 2  | a:p                | add a:p ? already_started     | a / a / a1
add what is down                  | one_for_one 2  | a:p                | stop a; add a:p ? already_present | / a / a1
add, delete, add                  | one_for_one 2  | a:p b:p            | stop a; delete a; add a:p     | b a / b a / a2 b1
add what fails: not kept          | one_for_one 2  | a:p                | add b:p=- ? start_failed      | a / a / a1 b1
an added one is in the group      | one_for_all 2  | a:p                | add b:p; exit b error         | a b / a b / a2 b2
add a temporary: forgotten later  | one_for_one 2  | a:p                | add b:x; exit b error; add b:x | a b / a b / a1 b2
never: significance is refused    | one_for_one 2  | a:p                | add b:t:s ? invalid           | a / a / a1
any: the first significant end    | one_for_one 2 any | a:p b:t:s c:t:s | exit b normal                 | ended auto / a1 b1 c1
any: a temporary's crash          | one_for_one 2 any | a:p b:x:s       | exit b error                  | ended auto / a1 b1
any: a transient's crash is none  | one_for_one 2 any | a:p b:t:s       | exit b error                  | a b / a b / a1 b2
any: an insignificant end         | one_for_one 2 any | a:p b:t:s c:t   | exit c normal                 | a b / a b c / a1 b1 c1
any: stopped is not ended         | one_for_one 2 any | a:p b:t:s       | stop b                        | a / a b / a1 b1
any: with its group is not ended  | one_for_all 2 any | a:p b:x:s       | exit a error                  | a / a / a2 b1
all: the last significant end     | one_for_one 2 all | a:p b:t:s c:t:s | exit b normal; exit c shutdown | ended auto / a1 b1 c1
all: one of two                   | one_for_one 2 all | a:p b:t:s c:t:s | exit b normal                 | a c / a b c / a1 b1 c1
all: the other one was stopped    | one_for_one 2 all | a:p b:t:s c:t:s | stop b; exit c normal         | ended auto / a1 b1 c1
all: temporaries                  | one_for_one 2 all | a:p b:x:s c:x:s | exit b error; exit c normal   | ended auto / a1 b1 c1
permanent is never significant    | one_for_one 2 any | a:p             | add b:p:s ? invalid           | a / a / a1
the window slides                 | one_for_one 1  | a:p                | exit a error; wait 3600001; exit a error | a / a / a3
both ends of it are included      | one_for_one 1  | a:p                | exit a error; wait 3600000; exit a error | ended intensity / a2
";

#[test]
fn the_table() {
    for case in CASES.lines().filter(|line| !line.is_empty()) {
        let fields: Vec<_> = case.split('|').map(str::trim).collect();
        let [name, policy, children, steps, outcome] = fields[..] else { panic!("{case}") };
        assert_eq!(play(policy, children, steps), outcome, "{name}");
    }
}

fn play(policy: &str, children: &str, steps: &str) -> String {
    let mut words = policy.split_whitespace();
    let strategy = match words.next() {
        Some("one_for_one") => Strategy::OneForOne,
        Some("one_for_all") => Strategy::OneForAll,
        Some("rest_for_one") => Strategy::RestForOne,
        other => panic!("{other:?}"),
    };
    let most = words.next().and_then(|n| n.parse().ok()).expect("a number of restarts");
    let auto_shutdown = match words.next() {
        None => AutoShutdown::Never,
        Some("any") => AutoShutdown::AnySignificant,
        Some("all") => AutoShutdown::AllSignificant,
        other => panic!("{other:?}"),
    };
    let (specs, scripts): (Vec<_>, Vec<_>) = children.split_whitespace().map(child).unzip();
    let ids = specs.iter().map(|spec| spec.id.clone());
    let scripts: HashMap<_, _> = ids.zip(scripts).collect();
    let mut scene = Scene::new(Policy { auto_shutdown, ..plain(strategy, most) }, specs);
    scene.scripts = scripts;
    scene.tell(Event::Boot);
    for each in steps.split(';').map(str::trim).filter(|each| !each.is_empty()) {
        step(&mut scene, each);
    }
    outcome(&scene)
}

fn child(word: &str) -> (ChildPolicy, Vec<bool>) {
    let (spec, script) = word.split_once('=').unwrap_or((word, "+"));
    let mut parts = spec.split(':');
    let id = parts.next().expect("an id");
    let restart = match parts.next() {
        Some("p") => Restart::Permanent,
        Some("t") => Restart::Transient,
        Some("x") => Restart::Temporary,
        other => panic!("{other:?}"),
    };
    let child = ChildPolicy { significant: parts.next() == Some("s"), ..ChildPolicy::new(id, restart) };
    (child, script.chars().map(|c| c == '+').collect())
}

fn step(scene: &mut Scene, step: &str) {
    let (does, refused) =
        step.split_once('?').map_or((step, None), |(does, error)| (does, Some(error.trim())));
    let words: Vec<_> = does.split_whitespace().collect();
    let verb = match words[..] {
        ["exit", id, how] => return scene.exit(id, exit(how)),
        ["wait", ms] => return scene.pass(MS(ms.parse().expect("milliseconds"))),
        ["stop", id] => Verb::Stop(id.into()),
        ["restart", id] => Verb::Restart(id.into()),
        ["delete", id] => Verb::Delete(id.into()),
        ["add", word] => {
            let (spec, script) = child(word);
            scene.scripts.entry(spec.id.clone()).or_insert(script);
            Verb::Start(spec)
        }
        _ => panic!("{step}"),
    };
    let result = scene.ask(verb).expect("it is answered at once");
    assert_eq!(result.err().map(|error| error.name()), refused, "{step}");
}

pub(super) fn exit(how: &str) -> Exit {
    match how {
        "normal" => Exit::Normal,
        "shutdown" => Exit::Shutdown,
        "panic" => Exit::Panic("planted".into()),
        "error" => Exit::Error("planted".into()),
        "kill" => Exit::Killed,
        other => panic!("{other}"),
    }
}

fn outcome(scene: &Scene) -> String {
    let mut starts: Vec<_> = scene.starts.iter().map(|(id, n)| format!("{id}{n}")).collect();
    starts.sort();
    let end = scene.end.as_ref().map(|end| match end {
        End::Asked => "ended asked".to_owned(),
        End::Intensity => "ended intensity".to_owned(),
        End::AutoShutdown => "ended auto".to_owned(),
        End::StartFailed { child, .. } => format!("ended start {child}"),
    });
    if end.is_some() {
        assert_eq!(scene.running(), "", "whoever ends has stopped its children");
    }
    let state = end.unwrap_or_else(|| format!("{} / {}", scene.running(), scene.specs()));
    format!("{state} / {}", starts.join(" ")).trim().replace("  ", " ")
}

#[test]
fn children_are_stopped_in_reverse_and_started_in_order() {
    let mut scene = Scene::new(plain(Strategy::OneForAll, 5), workers("a b c d")).booted();
    assert_eq!(scene.take_log(), "start a, start b, start c, start d");
    scene.crash("b");
    assert_eq!(scene.take_log(), "stop d, stop c, stop a, start a, start b, start c, start d");
    scene.tell(Event::Stop);
    assert_eq!(scene.take_log(), "stop d, stop c, stop b, stop a");
    assert_eq!(scene.end, Some(End::Asked));
}

#[test]
fn who_had_started_is_stopped_in_reverse_when_the_boot_fails() {
    let mut scene =
        Scene::new(plain(Strategy::OneForOne, 5), workers("a b c d")).script("c", &[false]).booted();
    assert_eq!(scene.take_log(), "start a, start b, fail c, stop b, stop a");
    assert!(matches!(scene.end, Some(End::StartFailed { .. })));
}

#[test]
fn rest_for_one_tries_again_only_from_the_failed_one_on() {
    let policy = plain(Strategy::RestForOne, 5);
    let mut scene = Scene::new(policy, workers("a b c d")).script("c", &[true, false, true]).booted();
    scene.take_log();
    scene.crash("b");
    assert_eq!(scene.take_log(), "stop d, stop c, start b, fail c, start c, start d");
}

#[test]
fn one_for_all_tries_all_again() {
    let policy = plain(Strategy::OneForAll, 5);
    let mut scene = Scene::new(policy, workers("a b c d")).script("c", &[true, false, true]).booted();
    scene.take_log();
    scene.crash("d");
    let first = "stop c, stop b, stop a, start a, start b, fail c";
    assert_eq!(scene.take_log(), format!("{first}, stop b, stop a, start a, start b, start c, start d"));
}

#[test]
fn giving_up_is_told_once_and_the_root_says_that_it_is_the_root() {
    for root in [false, true] {
        let mut scene = Scene::new(plain(Strategy::OneForOne, 0), workers("a b"));
        if root {
            scene.machine = scene.machine.at_root();
        }
        let mut scene = scene.booted();
        scene.crash("a");
        let told: Vec<_> = scene.signals.iter().filter(|s| matches!(s, Signal::Escalated { .. })).collect();
        assert_eq!(told, [&Signal::Escalated { supervisor: "s".into(), root }]);
        assert_eq!(scene.end, Some(End::Intensity));
    }
}

#[test]
fn children_that_cannot_live_under_a_policy_are_refused() {
    let new = |policy, children| Machine::new("s", policy, children).map(|_| ());
    let any = Policy { auto_shutdown: AutoShutdown::AnySignificant, ..Policy::default() };
    assert_eq!(new(any, workers("a a")), Err(Invalid::Duplicate("a".into())));
    let significant = vec![ChildPolicy::permanent("a").significant()];
    assert_eq!(new(any, significant), Err(Invalid::SignificantPermanent("a".into())));
    let transient = vec![ChildPolicy::new("a", Restart::Transient).significant()];
    assert_eq!(new(any, transient.clone()), Ok(()));
    let refused = Err(Invalid::SignificantWithoutAutoShutdown("a".into()));
    assert_eq!(new(Policy::default(), transient), refused);
}
