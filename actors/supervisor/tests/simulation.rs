//! Random sequences: beside the plain model where everything happens at once, and with everything late and in
//! any order, where only the invariants are asked for.

use std::collections::{BTreeMap, HashSet};

use fastrand::Rng;

use super::{model::*, *};

/// `SEED=n` replays one, `SELFHEAL_SEEDS=n` plays that many.
fn seeds() -> std::ops::Range<u64> {
    #[expect(clippy::disallowed_methods, reason = "which seeds a random test plays is asked from outside")]
    let given = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    given("SEED").map_or_else(|| 0..given("SELFHEAL_SEEDS").unwrap_or(20_000), |seed| seed..seed + 1)
}

/// Says which seed it was when a test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SEED={}", self.0);
        }
    }
}

fn pick<T: Clone>(random: &mut Rng, of: &[T]) -> T {
    of[random.usize(..of.len())].clone()
}

fn policy(random: &mut Rng) -> Policy {
    let strategies = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];
    let shutdowns = [AutoShutdown::Never, AutoShutdown::AnySignificant, AutoShutdown::AllSignificant];
    Policy {
        strategy: pick(random, &strategies),
        max_restarts: random.u32(0..8),
        within: MS(random.u64(1..400)),
        backoff: Backoff::NONE,
        auto_shutdown: pick(random, &shutdowns),
        ..Policy::default()
    }
}

fn child(random: &mut Rng, id: String, auto: AutoShutdown) -> ChildPolicy {
    let restart = pick(random, &[Restart::Permanent, Restart::Transient, Restart::Temporary]);
    let may = restart != Restart::Permanent && auto != AutoShutdown::Never;
    ChildPolicy { significant: may && random.bool(), ..ChildPolicy::new(id, restart) }
}

fn verb(random: &mut Rng, auto: AutoShutdown) -> Verb {
    let id = format!("c{}", random.u32(0..7));
    match random.u8(0..4) {
        0 => Verb::Start(child(random, id, auto)),
        1 => Verb::Stop(id.into()),
        2 => Verb::Restart(id.into()),
        _ => Verb::Delete(id.into()),
    }
}

fn exit(random: &mut Rng) -> Exit {
    otp::exit(pick(random, &["normal", "shutdown", "panic", "error", "kill"]))
}

#[test]
fn simulation_beside_a_plain_model_of_otp() {
    let (mut restarts, mut ends) = (0, 0);
    for seed in seeds() {
        let _seed = Seed(seed);
        let random = &mut Rng::with_seed(seed);
        let policy = policy(random);
        let children: Vec<_> =
            (0..random.u32(0..6)).map(|n| child(random, format!("c{n}"), policy.auto_shutdown)).collect();
        let scripts: HashMap<Name, Vec<bool>> = (0..7)
            .map(|n| (format!("c{n}").into(), (0..60).map(|_| random.u8(0..12) > 0).collect()))
            .collect();
        let mut tries: HashMap<Name, usize> = HashMap::new();
        let starts = |id: &str| {
            let n = tries.entry(id.into()).or_default();
            *n += 1;
            let script = &scripts[id];
            *script.get(*n - 1).or(script.last()).expect("it is not empty")
        };
        let mut otp = Otp::boot(policy, &children, starts);
        let mut scene = Scene::new(policy, children);
        scene.scripts = scripts.clone();
        let mut scene = scene.booted();
        for _ in 0..random.u32(1..40) {
            scene.pass(MS(random.u64(0..40)));
            let alive: Vec<_> = scene.running().split_whitespace().map(str::to_owned).collect();
            if random.u8(0..3) > 0 && !alive.is_empty() {
                let (id, exit) = (pick(random, &alive), exit(random));
                otp.exit(&id, &exit, scene.now);
                scene.exit(&id, exit);
            } else {
                let verb = verb(random, policy.auto_shutdown);
                assert_eq!(scene.ask(verb.clone()), Some(otp.verb(&verb)), "{verb:?}");
            }
            assert_eq!(scene.log, otp.log);
            assert_eq!(scene.end.is_some(), otp.ended);
            if !otp.ended {
                let known = |(child, pid): &(ChildPolicy, Pid)| (child.id.clone(), *pid == Pid::Alive);
                let expected: Vec<_> = otp.children.iter().map(known).collect();
                let found = |view: ChildView| (view.id, view.state == ChildState::Up);
                assert_eq!(scene.machine.children().map(found).collect::<Vec<_>>(), expected);
            }
        }
        restarts += scene.signals.iter().filter(|s| is_restart(s)).count();
        ends += usize::from(scene.end.is_some());
    }
    println!("{restarts} restarts, {ends} supervisors ended");
}

fn is_restart(signal: &Signal) -> bool {
    matches!(signal, Signal::Child { event: ChildEvent::Restarted { .. }, .. })
}

/// What a child that was started does, told from the outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Starting,
    Running,
    Stopping,
    Killed,
}

#[test]
fn simulation_with_everything_late_and_in_any_order() {
    let seeds = seeds();
    for seed in seeds.start..seeds.start + (seeds.end - seeds.start).div_ceil(4) {
        let _seed = Seed(seed);
        late(&mut Rng::with_seed(seed));
    }
}

/// At most one generation of a child runs unless an older one was left behind, every verb is answered, and
/// the end comes, whatever the children do.
fn late(random: &mut Rng) {
    let policy =
        Policy { backoff: pick(random, &[Backoff::NONE, Policy::default().backoff]), ..policy(random) };
    let children: Vec<_> =
        (0..random.u32(1..6)).map(|n| child(random, format!("c{n}"), policy.auto_shutdown)).collect();
    let mut machine = Machine::new("s", policy, children).expect("they can live under it");
    let mut world: BTreeMap<(Name, u64), Fate> = BTreeMap::new();
    let mut asked = HashSet::new();
    let (mut now, mut ended) = (Tick::ZERO, false);
    let mut event = Event::Boot;
    for round in 0..400 {
        for effect in machine.on(event, now) {
            perform(effect, &mut world, &mut asked, &mut ended);
        }
        now = now + MS(random.u64(0..500));
        let live: Vec<_> = world.iter().map(|(who, fate)| (who.clone(), *fate)).collect();
        event = match random.u8(0..10) {
            _ if round > 300 && !ended && random.u8(0..20) == 0 => Event::Stop,
            0 => {
                asked.insert(round);
                Event::Verb { request: round, verb: verb(random, policy.auto_shutdown) }
            }
            1..7 if !live.is_empty() => {
                let who = pick(random, &live);
                happens(random, who, &mut world)
            }
            _ => {
                now = now.max(machine.next_timer().unwrap_or(now));
                Event::Timer
            }
        };
    }
    let mut effects = machine.on(event, now);
    effects.extend(machine.on(Event::Stop, now));
    for _ in 0..1_000 {
        effects.drain(..).for_each(|effect| perform(effect, &mut world, &mut asked, &mut ended));
        if ended {
            break;
        }
        now = now.max(machine.next_timer().expect("whoever is waited for has a deadline"));
        effects = machine.on(Event::Timer, now);
    }
    assert!(ended, "the end comes though nobody answers");
    assert!(asked.is_empty(), "{asked:?} were never answered");
    assert_eq!(machine.next_timer(), None);
}

fn perform(
    effect: Effect,
    world: &mut BTreeMap<(Name, u64), Fate>,
    asked: &mut HashSet<u64>,
    ended: &mut bool,
) {
    match effect {
        Effect::Start { id, generation } => {
            let older = world.keys().filter(|(other, _)| *other == id).count();
            assert_eq!(older, 0, "an older {id} lives");
            assert!(!*ended);
            world.insert((id, generation), Fate::Starting);
        }
        Effect::Stop { id, generation, deadline } => {
            assert!(deadline.is_some());
            if let Some(fate) = world.get_mut(&(id, generation)) {
                *fate = Fate::Stopping;
            }
        }
        Effect::Kill { id, generation } => {
            // A start that timed out is given up at once: the shell drops its future.
            if world.get(&(id.clone(), generation)) == Some(&Fate::Starting) {
                world.remove(&(id, generation));
            } else if let Some(fate) = world.get_mut(&(id, generation)) {
                *fate = Fate::Killed;
            }
        }
        Effect::Abandon { id, generation } => {
            world.remove(&(id, generation));
        }
        Effect::Reply { request, .. } => assert!(asked.remove(&request), "{request} answered twice"),
        Effect::Emit(_) | Effect::Up => {}
        Effect::Terminated(_) => {
            assert!(!*ended && world.is_empty(), "{world:?} outlive their supervisor");
            *ended = true;
        }
    }
}

fn happens(random: &mut Rng, who: ((Name, u64), Fate), world: &mut BTreeMap<(Name, u64), Fate>) -> Event {
    let ((id, generation), fate) = who;
    let key = (id.clone(), generation);
    if fate == Fate::Starting && random.bool() {
        world.insert(key, Fate::Running);
        return Event::Started { id, generation };
    }
    world.remove(&key);
    if fate == Fate::Starting {
        return Event::StartFailed { id, generation, error: "planted".into() };
    }
    Event::Exited { id, generation, exit: exit(random) }
}
