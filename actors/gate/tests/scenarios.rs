//! What the seed tells, at the machine.

use super::*;

#[test]
fn critical_work_goes_first_and_nobody_overtakes_a_better_class() {
    let mut pool = Pool::of(1);
    let held = pool.take(1);
    let order = [Class::Background, Class::Sheddable, Class::Normal, Class::Critical];
    let waiting = order.map(|class| parked(pool.loose(class)));
    pool.release(held[0]);
    for expected in waiting.into_iter().rev() {
        let next = pool.grants();
        assert_eq!(next, [expected]);
        pool.release(next[0]);
    }
}

#[test]
fn at_warning_reports_are_shed_and_a_dashboard_that_is_inside_is_not() {
    let mut pool = Pool::of(2);
    let report = pool.enter(&work(Class::Sheddable)).expect("the pool is calm");
    pool.apply(Change::Shed(true));
    let again = pool.enter(&work(Class::Sheddable)).expect_err("reports are shed");
    assert_eq!((again.reason, again.retry_after), (Reason::Shed, Some(Duration::from_secs(1))));
    assert_eq!(refused(pool.loose(Class::Sheddable)), Reason::Shed);
    granted(pool.job(report));
    granted(pool.loose(Class::Normal));
    pool.apply(Change::Shed(false));
    pool.enter(&work(Class::Sheddable)).expect("the pool is calm again");
}

#[test]
fn a_wait_is_pressure_at_once_and_that_of_reports_when_their_queue_stands() {
    let mut pool = Pool::of(1);
    pool.take(1);
    parked(pool.loose(Class::Background));
    assert_eq!(pool.machine.pressed_since(), None, "deferred work can wait");
    let came = pool.now;
    parked(pool.loose(Class::Sheddable));
    assert_eq!(pool.machine.pressed_since(), Some(came + Duration::from_millis(100)));
    pool.after(5);
    parked(pool.loose(Class::Normal));
    assert_eq!(pool.machine.pressed_since(), Some(pool.now));
    assert_eq!(pool.machine.waiting_since(), Some(came));
}

#[test]
fn ten_users_open_dashboards_of_160_queries_each_and_every_one_completes() {
    let mut pool = Pool::of(100);
    let dashboards: Vec<JobId> = (0..10)
        .map(|_| {
            let deadline = Some(pool.now + Duration::from_secs(3));
            pool.enter(&Work { queries: Some(160), deadline, ..work(Class::Normal) }).expect("there is time")
        })
        .collect();
    let mut held = Vec::new();
    for dashboard in dashboards.iter().flat_map(|&job| [job; 160]) {
        match pool.job(dashboard) {
            Answer::Granted(claim) => held.push(claim),
            Answer::Parked(_) => {}
            Answer::Refused(refusal) => panic!("{refusal}"),
        }
    }
    let mut done = 0;
    while !held.is_empty() {
        pool.after(50);
        // A sign-in is never behind a dashboard for longer than one query.
        let sign_in = pool.loose(Class::Critical);
        for claim in std::mem::take(&mut held) {
            pool.release(claim);
            done += 1;
        }
        held = pool.grants();
        if let Answer::Parked(sign_in) = sign_in {
            assert_eq!(held.remove(0), sign_in);
            pool.release(sign_in);
        }
        held.extend(pool.grants());
    }
    assert_eq!(done, 1_600);
    assert_eq!(pool.machine.tally().refused.total(), 0);
}

#[test]
fn a_job_that_cannot_make_its_deadline_is_refused_as_a_whole_before_it_starts() {
    let mut pool = Pool::of(10);
    for _ in 0..20 {
        let held = pool.take(1);
        pool.after(50);
        pool.release(held[0]);
    }
    pool.after(1_000);
    let within = |pool: &Pool, ms| Some(pool.now + Duration::from_millis(ms));
    let dashboard = |deadline| Work { queries: Some(160), deadline, ..work(Class::Normal) };
    // 160 queries of 50 ms on nine tenths of 10 connections: 889 ms.
    let refusal = pool.enter(&dashboard(within(&pool, 880))).expect_err("it cannot be done");
    assert_eq!(refusal.reason, Reason::Deadline);
    pool.enter(&dashboard(within(&pool, 900))).expect("it can be done");
    pool.enter(&dashboard(within(&pool, 1_700))).expect_err("not behind the other one");
    pool.enter(&Work { class: Class::Critical, ..dashboard(within(&pool, 1)) })
        .expect("critical work is never refused by an estimate");
}

#[test]
fn queries_of_a_job_go_after_plain_work_until_they_are_due() {
    let mut pool = Pool::of(1);
    let held = pool.take(1);
    let deadline = Some(pool.now + Duration::from_millis(1_000));
    let job = pool.enter(&Work { queries: Some(4), deadline, ..work(Class::Normal) }).expect("there is time");
    let queries: Vec<_> = (0..4).map(|_| parked(pool.job(job))).collect();
    let report = parked(pool.loose(Class::Sheddable));
    let normal = parked(pool.loose(Class::Normal));
    pool.release(held[0]);
    assert_eq!(pool.grants(), [normal], "plain work of its class first");
    pool.release(normal);
    assert_eq!(pool.grants(), [queries[0]], "due at once");
    pool.release(queries[0]);
    assert_eq!(pool.grants(), [report], "the next is due after 200 ms");
    let next = parked(pool.loose(Class::Sheddable));
    pool.after(200);
    pool.release(report);
    assert_eq!(pool.grants(), [queries[1]], "now it is");
    pool.release(queries[1]);
    assert_eq!(pool.grants(), [next]);
    pool.release(next);
    assert_eq!(pool.grants(), [queries[2]], "nobody else wants it: no connection idles");
}

#[test]
fn what_stands_serves_the_newest_first() {
    let mut pool = Pool::with(1, Policy { queue_factor: 3, ..Policy::default() });
    let held = pool.take(1);
    let deadline = Some(pool.now + Duration::from_secs(10));
    let mut ask = || {
        let job = pool.enter(&Work { deadline, ..work(Class::Normal) }).expect("there is room");
        parked(pool.job(job))
    };
    let (first, second, third) = (ask(), ask(), ask());
    pool.after(100);
    pool.release(held[0]);
    assert_eq!(pool.grants(), [first], "100 ms are not too long");
    pool.after(1);
    pool.release(first);
    assert_eq!(pool.grants(), [third]);
    pool.release(third);
    assert_eq!(pool.grants(), [second]);
}

#[test]
fn work_that_nobody_promised_anything_waits_100_ms_or_a_tenth_of_its_time() {
    let mut pool = Pool::of(1);
    pool.take(1);
    for (deadline, waits) in [(500, 100), (1_000, 100), (5_000, 500), (50, 50)] {
        let deadline = Some(pool.now + Duration::from_millis(deadline));
        let ask = Ask { work: Work { deadline, ..work(Class::Normal) }, ..Ask::default() };
        let claim = parked(pool.acquire(&ask));
        assert_eq!(pool.machine.expiry(claim), Some(pool.now + Duration::from_millis(waits)));
        pool.after(waits);
        assert_eq!(pool.machine.expiry(claim), None);
    }
    let refusals = pool.machine.tally().refused;
    assert_eq!((refusals.because(Reason::Shed), refusals.because(Reason::Deadline)), (3, 1));
    let deadline = Some(pool.now + Duration::from_secs(5));
    let critical = Ask { work: Work { deadline, ..work(Class::Critical) }, ..Ask::default() };
    let critical = parked(pool.acquire(&critical));
    pool.after(4_999);
    assert!(pool.machine.expiry(critical).is_some(), "critical work waits as long as it has time");
}

#[test]
fn a_full_queue_refuses_newcomers_at_the_door_and_pushes_out_the_oldest_who_was_promised_nothing() {
    let mut pool = Pool::of(2);
    pool.take(2);
    let waiting: Vec<_> = (0..4).map(|_| parked(pool.loose(Class::Normal))).collect();
    assert_eq!(pool.enter(&work(Class::Normal)).expect_err("four wait").reason, Reason::QueueFull);
    pool.enter(&work(Class::Sheddable)).expect("that is another queue");
    pool.enter(&work(Class::Critical)).expect("critical work is not refused at the door");
    parked(pool.loose(Class::Normal));
    assert_eq!(pool.told.len(), 1);
    assert_eq!(pool.told[0].claim(), waiting[0]);
}

#[test]
fn operations_that_hold_long_leave_room_for_the_others() {
    let reports = Name::from("/api/reports");
    let policy = Policy { long_operations: vec![Name::clone(&reports)], ..Policy::default() };
    let mut pool = Pool::with(100, policy);
    let report = Work { operation: Some(&reports), ..work(Class::Normal) };
    let ask = Ask { work: report, ..Ask::default() };
    let held: Vec<_> = (0..85).map(|_| granted(pool.acquire(&ask))).collect();
    let next = parked(pool.acquire(&ask));
    pool.take(15);
    assert_eq!(pool.machine.used(), 100);
    pool.release(held[0]);
    assert_eq!(pool.grants(), [next]);
    pool.release(held[1]);
    granted(pool.acquire(&Ask { work: Work { class: Class::Critical, ..report }, ..ask }));
}

#[test]
fn with_a_static_reserve_normal_work_stops_at_92_and_reports_at_85() {
    let mut pool = Pool::with(100, Policy { reserve: Reserve::Static, ..Policy::default() });
    pool.take(85);
    parked(pool.loose(Class::Sheddable));
    pool.take(7);
    parked(pool.loose(Class::Normal));
    for _ in 0..8 {
        granted(pool.loose(Class::Critical));
    }
    parked(pool.loose(Class::Critical));
}

#[test]
fn at_critical_only_critical_work_grows_and_the_rest_comes_back_step_by_step() {
    let mut pool = Pool::of(10);
    let held = pool.take(8);
    pool.apply(Change::CriticalOnly(true));
    let job = pool.enter(&work(Class::Normal)).expect("the door is open");
    let normal = parked(pool.job(job));
    let critical = granted(pool.loose(Class::Critical));
    pool.release(held[0]);
    assert_eq!(pool.grants(), [], "nine were in use, eight are left: nothing to replace");
    pool.release(held[1]);
    assert_eq!(pool.grants(), [normal], "what it had is replaced");
    let job = pool.enter(&work(Class::Normal)).expect("the door is open");
    let waiting: Vec<_> = (0..3).map(|_| parked(pool.job(job))).collect();
    pool.apply(Change::CriticalOnly(false));
    assert_eq!(pool.grants(), []);
    assert_eq!(pool.machine.next_timer(), Some(pool.now + Duration::from_millis(50)));
    pool.after(50);
    assert_eq!(pool.grants(), [waiting[0]]);
    pool.after(50);
    assert_eq!(pool.grants(), [waiting[1]]);
    pool.release(critical);
    assert_eq!(pool.grants(), [waiting[2]]);
}

#[test]
fn five_per_user_and_the_sixth_takes_nobody_elses_turn() {
    let mut pool = Pool::of(8);
    pool.apply(Change::UserLimit(Some(5)));
    let (ann, bob) = (Name::from("ann"), Name::from("bob"));
    let of = |user| Work { user: Some(user), ..work(Class::Normal) };
    let jobs: Vec<_> = (0..5).map(|_| pool.enter(&of(&ann)).expect("five may")).collect();
    assert_eq!(pool.enter(&of(&ann)).expect_err("the sixth may not").reason, Reason::UserLimit);
    pool.enter(&Work { class: Class::Critical, ..of(&ann) }).expect("critical work is exempt");
    let held: Vec<_> = (0..5).map(|_| granted(pool.job(jobs[0]))).collect();
    let sixth = parked(pool.job(jobs[1]));
    assert_eq!((pool.machine.waiting(), pool.machine.parked()), ([0; 4], 1), "the pool has room");
    let other = pool.enter(&of(&bob)).expect("another user");
    granted(pool.job(other));
    pool.release(held[0]);
    assert_eq!(pool.grants(), [sixth]);
    pool.machine.leave(jobs[4], pool.now, &mut pool.told);
    pool.enter(&of(&ann)).expect("one has left");
}

#[test]
fn a_user_limit_that_comes_late_sets_aside_the_newest_and_gives_them_back_when_it_goes() {
    let mut pool = Pool::of(2);
    let ann = Name::from("ann");
    let job = pool.enter(&Work { user: Some(&ann), ..work(Class::Normal) }).expect("the pool is calm");
    let held = [granted(pool.job(job)), granted(pool.job(job))];
    let waiting: Vec<_> = (0..6).map(|_| parked(pool.job(job))).collect();
    pool.apply(Change::UserLimit(Some(3)));
    assert_eq!((pool.machine.waiting()[Class::Normal.index()], pool.machine.parked()), (1, 5));
    pool.release(held[0]);
    assert_eq!(pool.grants(), [waiting[0]]);
    assert_eq!((pool.machine.waiting()[Class::Normal.index()], pool.machine.parked()), (1, 4));
    pool.apply(Change::UserLimit(None));
    assert_eq!((pool.machine.waiting()[Class::Normal.index()], pool.machine.parked()), (5, 0));
    pool.release(held[1]);
    assert_eq!(pool.grants(), [waiting[1]], "in the order in which they came");
}

#[test]
fn a_user_has_256_set_aside_and_no_more_unless_they_were_promised() {
    let mut pool = Pool::of(2);
    pool.apply(Change::UserLimit(Some(1)));
    let ann = Name::from("ann");
    let of_ann = Work { user: Some(&ann), ..work(Class::Normal) };
    let loose = Ask { work: of_ann, ..Ask::default() };
    granted(pool.acquire(&loose));
    for _ in 0..256 {
        parked(pool.acquire(&loose));
    }
    assert_eq!(refused(pool.acquire(&loose)), Reason::UserLimit);
    let dashboard = pool.enter(&of_ann).expect("the first in flight");
    parked(pool.job(dashboard));
}

#[test]
fn whoever_holds_one_and_needs_another_goes_first_and_gives_up_rather_than_deadlock() {
    let mut pool = Pool::of(2);
    let held = pool.take(2);
    let nested = Ask { nested: true, ..Ask::default() };
    let reserve = [granted(pool.acquire(&nested)), granted(pool.acquire(&nested))];
    let critical = parked(pool.loose(Class::Critical));
    let third = parked(pool.acquire(&nested));
    pool.release(reserve[0]);
    assert_eq!(pool.grants(), [third], "before critical work: it gives nothing back until then");
    let fourth = parked(pool.acquire(&nested));
    pool.after(1_000);
    assert!(pool.told.iter().any(|effect| matches!(effect,
        Effect::Refused(claim, _, refusal) if *claim == fourth && refusal.reason == Reason::Nested)));
    pool.told.clear();
    [reserve[1], third, held[0]].into_iter().for_each(|claim| pool.release(claim));
    assert_eq!(pool.grants(), [critical]);
}

#[test]
fn a_limit_that_falls_takes_nothing_back_and_one_that_rises_grants_at_once() {
    let mut pool = Pool::of(4);
    let held = pool.take(4);
    pool.machine.set_limit(2, pool.now, &mut pool.told);
    let job = pool.enter(&work(Class::Normal)).expect("there is room to wait");
    let waiting = [parked(pool.job(job)), parked(pool.job(job))];
    pool.release(held[0]);
    pool.release(held[1]);
    assert_eq!(pool.grants(), []);
    pool.release(held[2]);
    assert_eq!(pool.grants(), [waiting[0]]);
    pool.machine.set_limit(3, pool.now, &mut pool.told);
    assert_eq!(pool.grants(), [waiting[1]]);
}

#[test]
fn a_full_server_cuts_the_limit_and_it_grows_back_by_one_a_second_with_nobody_watching() {
    let mut pool = Pool::of(10);
    let held = pool.take(10);
    pool.machine.server_full(pool.now, &mut pool.told);
    held[..3].iter().for_each(|&claim| pool.release(claim));
    let deadline = Some(pool.now + Duration::from_secs(20));
    let job = pool.enter(&Work { deadline, ..work(Class::Normal) }).expect("there is room to wait");
    let waiting = [parked(pool.job(job)), parked(pool.job(job))];
    assert_eq!(pool.machine.next_timer(), Some(pool.now + Duration::from_secs(1)));
    pool.after(1_000);
    assert_eq!(pool.grants(), [waiting[1]], "one more, and the newest, because the queue has stood");
}

#[test]
fn use_from_outside_counts_against_the_limit() {
    let mut pool = Pool::of(100);
    pool.machine.set_outside(99, pool.now, &mut pool.told);
    pool.take(1);
    let waiting = parked(pool.loose(Class::Normal));
    pool.machine.set_outside(98, pool.now, &mut pool.told);
    assert_eq!(pool.grants(), [waiting]);
}

#[test]
fn retries_yield_to_first_tries_while_the_pool_is_pressed() {
    let mut pool = Pool::of(1);
    let held = pool.take(1);
    let retry = Work { attempt: 1, ..work(Class::Normal) };
    pool.apply(Change::Shed(true));
    let retry = pool.enter(&retry).expect("a retry is not a report");
    let retry = parked(pool.job(retry));
    let first = parked(pool.loose(Class::Normal));
    pool.release(held[0]);
    assert_eq!(pool.grants(), [first]);
    pool.release(first);
    assert_eq!(pool.grants(), [retry]);
}

#[test]
fn a_refused_caller_is_told_to_come_back_when_those_before_it_are_done() {
    let mut pool = Pool::with(1, Policy { queue_factor: 10, ..Policy::default() });
    for _ in 0..20 {
        let held = pool.take(1);
        pool.after(400);
        pool.release(held[0]);
    }
    pool.take(1);
    let deadline = Some(pool.now + Duration::from_secs(60));
    let job = pool.enter(&Work { deadline, ..work(Class::Normal) }).expect("there is room to wait");
    for _ in 0..10 {
        parked(pool.job(job));
    }
    let refusal = pool.enter(&work(Class::Normal)).expect_err("ten wait");
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(5)), "11 of 400 ms, rounded up");
}
