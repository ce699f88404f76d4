//! What callers see.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_permit_goes_to_the_next_when_it_is_dropped() {
    let gate = acting(1);
    let first = gate.acquire(None, Hold::here()).await.expect("it is free");
    let mut second = task(gate.acquire(None, Hold::here()));
    assert!(second.poll().is_none());
    assert_eq!(gate.stats().waiting_in_all(), 1);
    tokio::time::advance(Duration::from_millis(30)).await;
    drop(first);
    let second = second.poll().expect("it was woken").expect("it is its turn");
    assert_eq!(second.waited(), Duration::from_millis(30));
    drop(second);
    assert_eq!((gate.stats().in_use, gate.stats().ticketless, gate.invariants()), (0, 2, vec![]));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_gives_up_by_itself_with_no_actor_alive() {
    let gate = acting(1);
    let _held = gate.acquire(None, Hold::here()).await.expect("it is free");
    let started = Clock::tokio().now();
    let ticket = Ticket::new(Class::Critical).with_deadline(started + Duration::from_millis(250));
    let refusal = gate.acquire(Some(&ticket), Hold::here()).await.expect_err("nobody gives anything back");
    assert_eq!(refusal.reason, Reason::Deadline);
    let late = Clock::tokio().now().since(started);
    assert!((250..=252).contains(&late.as_millis()), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_given_up_by_the_arrival_of_another_is_told() {
    let gate = acting(1);
    let _held = gate.acquire(None, Hold::here()).await.expect("it is free");
    let deadline = Clock::tokio().now() + Duration::from_millis(100);
    let ticket = |class| Ticket::new(class).with_deadline(deadline);
    let mut late = task(gate.acquire(Some(&ticket(Class::Critical)), Hold::here()));
    assert!(late.poll().is_none());
    // Nobody polls the one who waits before another comes, who finds its time over and takes its place.
    tokio::time::advance(Duration::from_millis(150)).await;
    let mut other = task(gate.acquire(None, Hold::here()));
    assert!(other.poll().is_none());
    let refusal = late.poll().expect("it was told").expect_err("its time is over");
    assert_eq!(refusal.reason, Reason::Deadline);
    assert_eq!((gate.stats().waiting_in_all(), gate.invariants()), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_limit_grows_back_after_a_full_server_with_no_actor_alive() {
    let gate = acting(2);
    let _held = gate.acquire(None, Hold::here()).await.expect("it is free");
    gate.server_full();
    let started = Clock::tokio().now();
    let _second =
        gate.acquire(Some(&Ticket::new(Class::Normal)), Hold::here()).await.expect("the limit is two again");
    let waited = Clock::tokio().now().since(started);
    assert!((1_000..=1_002).contains(&waited.as_millis()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_in_flight_until_what_it_entered_with_is_dropped() {
    let gate = acting(1);
    let ticket = Ticket::new(Class::Normal).with_user("ann");
    let entered = gate.enter(&ticket).expect("the pool is calm");
    let again = gate.enter(&ticket).expect("it is inside");
    assert_eq!((gate.stats().in_flight, gate.stats().users), (1, 1));
    drop(entered);
    assert_eq!(gate.stats().in_flight, 1);
    drop(again);
    assert_eq!((gate.stats().in_flight, gate.stats().users), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_never_entered_enters_when_it_acquires_and_leaves_when_it_ends() {
    let gate = acting(1);
    gate.apply(Change::Shed(true));
    let ticket = Ticket::new(Class::Sheddable);
    let permit = gate.acquire(Some(&ticket), Hold::here()).await.expect("nobody asked it before it began");
    drop(permit);
    assert_eq!(gate.stats().in_flight, 1);
    drop(ticket);
    assert_eq!((gate.stats().in_flight, gate.stats().ticketless), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_kill_switch_lets_everyone_through_at_once() {
    let mode = ModeCell::new(Mode::Act);
    let (gate, _) = gate(1, &mode);
    let ticket = Ticket::new(Class::Normal);
    let _held = gate.acquire(None, Hold::here()).await.expect("it is free");
    let mut waiting = task(gate.acquire(Some(&ticket), Hold::here()));
    assert!(waiting.poll().is_none());
    mode.set(Mode::Off);
    gate.apply(Change::Shed(true));
    let _second = waiting.poll().expect("the first event finds the switch").expect("it is through");
    let _third = gate.acquire(None, Hold::here()).await.expect("everyone is through");
    let _report = gate.enter(&Ticket::new(Class::Sheddable)).expect("nothing is shed");
    assert_eq!((gate.stats().in_use, gate.params().shed), (3, false));
}

#[tokio::test(start_paused = true)]
async fn a_leak_is_told_once_and_once_more_when_it_comes_back() {
    let (gate, told) = gate(1, &ModeCell::new(Mode::Act));
    let hold = Hold { operation: Some("report".into()), ..Hold::here() };
    let permit = gate.acquire(None, hold).await.expect("it is free");
    tokio::time::advance(Duration::from_secs(29)).await;
    gate.tick();
    assert!(told.lock().is_empty());
    tokio::time::advance(Duration::from_secs(1)).await;
    gate.tick();
    gate.tick();
    assert_eq!(gate.holders().len(), 1);
    assert!(gate.holders()[0].leaked);
    drop(permit);
    let leak = |signal: &Signal| {
        let Signal::Leak { operation, site, held, returned, .. } = signal else { return None };
        Some((operation.to_string(), site.contains("handle.rs:"), held.as_secs(), *returned))
    };
    let told: Vec<_> = told.lock().iter().filter_map(leak).collect();
    assert_eq!(told, [("report".into(), true, 30, false), ("report".into(), true, 30, true)]);
    assert!(gate.holders().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_first_waiter_wakes_the_monitor() {
    let gate = acting(4);
    let mut pressed = task(Box::pin(async { gate.pressure_changed().await }));
    assert!(pressed.poll().is_none());
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(gate.acquire(None, Hold::here()).await.expect("it is free"));
    }
    assert!(pressed.poll().is_none(), "three of four are below 85 %");
    held.push(gate.acquire(None, Hold::here()).await.expect("it is free"));
    assert!(pressed.poll().is_some(), "all are in use");
    let mut pressed = task(Box::pin(async { gate.pressure_changed().await }));
    assert!(pressed.poll().is_none());
    let mut waiting = task(gate.acquire(None, Hold::here()));
    assert!(waiting.poll().is_none());
    assert!(pressed.poll().is_some());
}

#[tokio::test(start_paused = true)]
async fn refusals_are_told_with_their_user() {
    let gate = acting(1);
    let told = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let to = Arc::clone(&told);
    assert!(gate.on_refused(move |refused| to.lock().push((refused.reason, refused.user.clone()))));
    gate.apply(Change::Shed(true));
    gate.enter(&Ticket::new(Class::Sheddable).with_user("ann")).expect_err("reports are shed");
    let _held = gate.acquire(None, Hold::here()).await.expect("it is free");
    gate.acquire(None, Hold::here()).await.expect_err("a tenth of 30 s is over");
    assert_eq!(*told.lock(), [(Reason::Shed, Some("ann".into())), (Reason::Shed, None)]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_gate_refuses_those_who_wait_and_those_who_come() {
    let gate = acting(1);
    let _held = gate.acquire(None, Hold::here()).await.expect("it is free");
    let mut waiting = task(gate.acquire(None, Hold::here()));
    assert!(waiting.poll().is_none());
    gate.close();
    let refusal = waiting.poll().expect("it was woken").expect_err("the gate is closed");
    assert_eq!((refusal.reason, refusal.retry_after), (Reason::Closed, None));
    assert!(gate.enter(&Ticket::new(Class::Critical)).is_err());
}

#[tokio::test(start_paused = true)]
async fn everybody_is_answered_within_their_time_whoever_comes_and_goes() {
    let seed = fastrand::u64(..);
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (gate, clock) = (acting(3), Clock::tokio());
    let (mut waiting, mut held, mut answered) = (Vec::new(), Vec::new(), 0);
    for _ in 0..20_000 {
        match random.u32(0..4) {
            0 | 1 => {
                let class = random.choice(Class::ALL.iter().copied()).unwrap_or_default();
                let deadline = clock.now() + Duration::from_millis(random.u64(1..30));
                let ticket = Ticket::new(class).with_user(format!("user {}", random.u32(0..4)));
                let mut asked = task(gate.acquire(Some(&ticket.with_deadline(deadline)), Hold::here()));
                match asked.poll() {
                    Some(outcome) => held.extend(outcome),
                    None => waiting.push(asked),
                }
            }
            2 if !held.is_empty() => drop(held.swap_remove(random.usize(0..held.len()))),
            2 => gate.apply(Change::UserLimit(random.bool().then_some(2))),
            // Whoever was woken need not be polled at once.
            _ => tokio::time::advance(Duration::from_millis(random.u64(0..10))).await,
        }
        assert_eq!(gate.invariants(), Vec::<&str>::new());
        if random.u32(0..3) == 0 {
            waiting.retain_mut(|waiting| {
                let outcome = waiting.poll();
                answered += u32::from(outcome.is_some());
                let waits = outcome.is_none();
                held.extend(outcome.and_then(Result::ok));
                waits
            });
        }
    }
    tokio::time::advance(Duration::from_millis(40)).await;
    let forgotten = waiting.iter_mut().filter_map(|waiting| waiting.poll().is_none().then_some(())).count();
    assert_eq!(forgotten, 0, "of {}", waiting.len());
    assert!(answered > 1_000, "{answered}");
}
