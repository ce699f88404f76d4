//! What durable jobs promise, asked of both databases.

pub(crate) mod before;
pub(crate) mod kills;
pub(crate) mod siege;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use selfheal::{
    HealPool,
    batch_executor::{
        Tenure,
        journal::{
            Accepted, Claim, Claimed, Counts, End, Fence, JobId, Journal, Key, KeyUntil, Lease, NewJob,
            Progress, Settle, State, Trouble,
        },
    },
    level::Class,
    signal::Name,
    store::{Dialect, Jobs},
};

use crate::guarded::seed;

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn job(queue: &str) -> NewJob {
    NewJob::new(queue, *b"{}")
}

pub(crate) fn keyed(queue: &str, key: &str, until: KeyUntil) -> NewJob {
    NewJob { key: Some(Key { text: key.into(), until }), ..job(queue) }
}

/// One that is not due for a minute.
pub(crate) fn later(queue: &str) -> NewJob {
    NewJob { delay: MINUTE, ..job(queue) }
}

pub(crate) async fn accept<DB: Dialect>(jobs: &Jobs<DB>, new: Vec<NewJob>) -> Vec<Accepted> {
    jobs.accept(new).await.expect("they are accepted")
}

pub(crate) async fn claim<DB: Dialect>(
    jobs: &Jobs<DB>,
    queues: &[&str],
    limit: u32,
    ttl: Duration,
) -> Vec<Claimed> {
    let queues: Vec<Name> = queues.iter().map(|&queue| queue.into()).collect();
    jobs.claim(&Claim { queues: &queues, limit, ttl }).await.expect("it claims")
}

pub(crate) async fn settle<DB: Dialect>(jobs: &Jobs<DB>, lease: Lease, end: End) -> Fence {
    jobs.settle(vec![Settle { lease, end }]).await.expect("it is written")[0]
}

pub(crate) const fn done() -> End {
    End::Done { counts: Counts { total: 1, done: 1, blocked: 0, failed: 0 } }
}

/// Every job that was accepted is somewhere; says how many are pending, leased, done and dead in all.
pub(crate) async fn books<DB: Dialect>(jobs: &Jobs<DB>) -> [u64; 4] {
    let queues = jobs.queues().await.expect("they are shown");
    queues.iter().for_each(|queue| assert!(queue.balances(), "{queue:?}"));
    queues.iter().fold([0; 4], |[a, b, c, d], queue| {
        [a + queue.pending, b + queue.leased, c + queue.done, d + queue.dead]
    })
}

/// All of it, on an empty database.
pub(crate) async fn everything<DB: Dialect>(pool: &HealPool<DB>) {
    let jobs = Jobs::of(pool);
    the_better_class_goes_first_and_then_the_older(&jobs).await;
    jobs_with_a_key_are_one(&jobs).await;
    a_lease_that_is_over_writes_nothing(&jobs).await;
    what_fails_comes_again_and_what_is_dead_stays(&jobs).await;
    what_is_held_is_claimed_by_nobody(&jobs).await;
    a_paused_queue_is_left_alone(&jobs).await;
    nothing_is_accepted_that_cannot_be_kept(&jobs).await;
    many_callers_at_once(&jobs).await;
    who_waits_is_woken(&jobs).await;
    assert_eq!(jobs.sweep().await.expect("it sweeps"), 0, "what is kept is kept");
    books(&jobs).await;
}

async fn the_better_class_goes_first_and_then_the_older<DB: Dialect>(jobs: &Jobs<DB>) {
    let of = |class, queue| NewJob { class, ..job(queue) };
    let new = vec![
        of(Class::Background, "a"),
        of(Class::Normal, "b"),
        of(Class::Critical, "a"),
        of(Class::Normal, "a"),
    ];
    let ids: Vec<_> = accept(jobs, new).await.iter().map(|accepted| accepted.id).collect();
    let order: Vec<_> =
        claim(jobs, &["a", "b"], 3, MINUTE).await.iter().map(|claimed| claimed.lease.job).collect();
    assert_eq!(order, [ids[2], ids[1], ids[3]]);
    let rest = claim(jobs, &["a"], 9, MINUTE).await;
    assert_eq!((rest.len(), rest[0].lease.job, &rest[0].payload[..]), (1, ids[0], &b"{}"[..]));
    assert_eq!(claim(jobs, &["a", "b"], 9, MINUTE).await, [], "they are leased");
    for job in ids {
        assert_eq!(settle(jobs, Lease { job, token: 1 }, done()).await, Fence::Held);
    }
    assert_eq!(books(jobs).await, [0, 0, 4, 0]);
}

async fn jobs_with_a_key_are_one<DB: Dialect>(jobs: &Jobs<DB>) {
    let both = || vec![keyed("k", "over", KeyUntil::Over), keyed("k", "kept", KeyUntil::Forgotten), job("k")];
    let keep = |mut new: Vec<NewJob>| {
        new.iter_mut().for_each(|job| (job.keep, job.owner) = (MINUTE, Some("ada".into())));
        new
    };
    let first = accept(jobs, keep([both(), both()].concat())).await;
    assert_eq!(first.iter().map(|a| a.fresh).collect::<Vec<_>>(), [true, true, true, false, false, true]);
    assert_eq!((first[3].id, first[4].id), (first[0].id, first[1].id));
    assert_eq!(jobs.find("k", "over").await.expect("it looks").map(|job| job.id), Some(first[0].id));
    for claimed in claim(jobs, &["k"], 9, MINUTE).await {
        assert_eq!(settle(jobs, claimed.lease, done()).await, Fence::Held);
    }
    let again = accept(jobs, keep(both())).await;
    assert_eq!(again.iter().map(|a| a.fresh).collect::<Vec<_>>(), [true, false, true]);
    let shown = jobs.look(first[1].id).await.expect("it looks").expect("it is kept");
    assert_eq!((shown.state, shown.owner.as_deref(), shown.counts.done), (State::Done, Some("ada"), 1));
    for claimed in claim(jobs, &["k"], 9, MINUTE).await {
        settle(jobs, claimed.lease, done()).await;
    }
}

async fn a_lease_that_is_over_writes_nothing<DB: Dialect>(jobs: &Jobs<DB>) {
    let id = accept(jobs, vec![job("lease")]).await[0].id;
    let short = Duration::from_millis(1);
    let first = claim(jobs, &["lease"], 1, short).await.remove(0);
    let progress =
        Progress { cursor: Some(vec![0, 255, 7]), counts: Counts { total: 9, done: 4, ..Counts::default() } };
    assert_eq!(jobs.checkpoint(first.lease, &progress).await.expect("it is written"), Fence::Held);
    let second = loop {
        if let Some(claimed) = claim(jobs, &["lease"], 1, MINUTE).await.pop() {
            break claimed;
        }
    };
    assert_eq!((second.lease.job, second.losses, second.failures), (id, 1, 0), "a crash costs no attempt");
    assert_eq!(second.progress, progress, "it goes on where the first one was");
    assert!(second.lease.token > first.lease.token);
    let beat = jobs.heartbeat(&[first.lease, second.lease], MINUTE).await.expect("it answers");
    assert_eq!(beat, [Fence::Lost, Fence::Held]);
    let lost = Progress::default();
    assert_eq!(jobs.checkpoint(first.lease, &lost).await.expect("it answers"), Fence::Lost);
    for end in [
        done(),
        End::Retry { after: Duration::ZERO, error: "late".into() },
        End::Release { after: Duration::ZERO },
    ] {
        assert_eq!(settle(jobs, first.lease, end).await, Fence::Lost);
    }
    assert_eq!(settle(jobs, second.lease, done()).await, Fence::Held);
    assert_eq!(settle(jobs, second.lease, done()).await, Fence::Lost, "it is over");
}

async fn what_fails_comes_again_and_what_is_dead_stays<DB: Dialect>(jobs: &Jobs<DB>) {
    let id = accept(jobs, vec![job("fail")]).await[0].id;
    let mut dead = books(jobs).await[3];
    for (failures, after) in [(0, Duration::ZERO), (1, Duration::ZERO)] {
        let claimed = claim(jobs, &["fail"], 1, MINUTE).await.remove(0);
        assert_eq!((claimed.failures, claimed.losses), (failures, 0));
        settle(jobs, claimed.lease, End::Retry { after, error: "no\0pe".into() }).await;
    }
    let claimed = claim(jobs, &["fail"], 1, MINUTE).await.remove(0);
    settle(jobs, claimed.lease, End::Release { after: Duration::ZERO }).await;
    let claimed = claim(jobs, &["fail"], 1, MINUTE).await.remove(0);
    assert_eq!(claimed.failures, 2, "given back is no attempt");
    settle(jobs, claimed.lease, End::Retry { after: MINUTE, error: "later".into() }).await;
    assert_eq!(claim(jobs, &["fail"], 1, MINUTE).await, [], "it is not due");
    let other = accept(jobs, vec![job("fail")]).await[0].id;
    let claimed = claim(jobs, &["fail"], 1, MINUTE).await.remove(0);
    assert_eq!(claimed.lease.job, other, "what is not due stands in nobody's way");
    settle(jobs, claimed.lease, End::Dead { error: "poison".into() }).await;
    dead += 1;
    let shown = jobs.look(other).await.expect("it looks").expect("a person may look at it");
    assert_eq!((shown.state, shown.error.as_deref(), shown.failures), (State::Dead, Some("poison"), 1));
    let listed = jobs.list(Some("fail".into()), Some(State::Pending), 10).await.expect("a list");
    assert_eq!(
        listed.iter().map(|job| (job.id, job.error.as_deref())).collect::<Vec<_>>(),
        [(id, Some("later"))]
    );
    assert_eq!(books(jobs).await[3], dead);
}

async fn what_is_held_is_claimed_by_nobody<DB: Dialect>(jobs: &Jobs<DB>) {
    let held = NewJob { hold: Some(MINUTE), ..keyed("hold", "one", KeyUntil::Over) };
    let accepted = accept(jobs, vec![held.clone(), held]).await;
    let lease = accepted[0].lease.expect("it is ours");
    assert_eq!((accepted[1].lease, accepted[1].id), (None, lease.job), "the other one joins");
    assert_eq!(claim(jobs, &["hold"], 1, MINUTE).await, []);
    assert_eq!(settle(jobs, lease, done()).await, Fence::Held);
}

async fn a_paused_queue_is_left_alone<DB: Dialect>(jobs: &Jobs<DB>) {
    accept(jobs, vec![job("paused"), job("busy")]).await;
    let name: Name = "paused".into();
    jobs.pause(&name, true, "ada".into(), "looking".into()).await.expect("it is paused");
    let claimed = claim(jobs, &["paused", "busy"], 9, MINUTE).await;
    assert_eq!(claimed.iter().map(|claimed| &*claimed.queue).collect::<Vec<_>>(), ["busy"]);
    settle(jobs, claimed[0].lease, done()).await;
    let shown = jobs.queues().await.expect("they are shown");
    assert!(shown.iter().any(|queue| *queue.name == *name && queue.paused && queue.pending == 1));
    jobs.pause(&name, false, "ada".into(), "seen".into()).await.expect("it goes on");
    let claimed = claim(jobs, &["paused"], 9, MINUTE).await.remove(0);
    settle(jobs, claimed.lease, done()).await;
}

async fn nothing_is_accepted_that_cannot_be_kept<DB: Dialect>(jobs: &Jobs<DB>) {
    let before = books(jobs).await;
    let huge = NewJob::new("q", vec![b'x'; 256 * 1024 + 1]);
    for bad in [huge, job(""), job("a\0b"), keyed("q", "", KeyUntil::Over)] {
        let error = jobs.accept(vec![job("q"), bad]).await.expect_err("it is refused");
        assert_eq!(error.trouble, Trouble::Refused);
    }
    assert_eq!(books(jobs).await, before, "all or none");
}

async fn many_callers_at_once<DB: Dialect>(jobs: &Jobs<DB>) {
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..50 {
        let jobs = jobs.clone();
        callers.spawn(async move {
            let mut ids = Vec::new();
            for n in 0..10 {
                let payload = format!("{caller}/{n}");
                let new = NewJob { keep: MINUTE, ..NewJob::new("crowd", payload.clone()) };
                ids.push((accept(&jobs, vec![new]).await[0].id, payload));
            }
            ids
        });
    }
    let mut accepted: Vec<(JobId, String)> = Vec::new();
    while let Some(ids) = callers.join_next().await {
        accepted.extend(ids.expect("no caller fails"));
    }
    accepted.sort();
    let mut claimed: Vec<_> = claim(jobs, &["crowd"], 1_000, MINUTE)
        .await
        .into_iter()
        .map(|claimed| (claimed.lease.job, String::from_utf8(claimed.payload).expect("text"), claimed.lease))
        .collect();
    claimed.sort_by_key(|(id, ..)| *id);
    let told: Vec<_> = claimed.iter().map(|(id, payload, _)| (*id, payload.clone())).collect();
    assert_eq!(told, accepted, "each caller was told the id of its own job");
    let ends = claimed.into_iter().map(|(_, _, lease)| Settle { lease, end: done() }).collect();
    let fences = jobs.settle(ends).await.expect("they are written");
    assert!(fences.iter().all(|fence| *fence == Fence::Held));
}

async fn who_waits_is_woken<DB: Dialect>(jobs: &Jobs<DB>) {
    let waiting = jobs.clone();
    let queue: Name = "bell".into();
    let waits = tokio::runtime::Handle::current().spawn(async move {
        loop {
            if let Some(claimed) = claim(&waiting, &["bell"], 1, MINUTE).await.pop() {
                return claimed;
            }
            waiting.due(std::slice::from_ref(&queue)).await;
        }
    });
    accept(jobs, vec![job("bell")]).await;
    let claimed = waits.await.expect("it is woken");
    settle(jobs, claimed.lease, done()).await;
}

/// Whoever works on it dies, again and again: in the end it is over, with that as its error, and nobody is given it.
pub(crate) async fn what_takes_down_whoever_works_on_it_is_given_up<DB: Dialect>(pool: &HealPool<DB>) {
    let jobs = Jobs::with(pool, Tenure { max_losses: 3, ..Tenure::default() });
    let id = accept(&jobs, vec![NewJob { keep: MINUTE, ..job("deadly") }]).await[0].id;
    let mut tokens = Vec::new();
    let over = loop {
        for claimed in claim(&jobs, &["deadly"], 9, Duration::from_millis(1)).await {
            assert_eq!(claimed.losses as usize, tokens.len(), "each is one more");
            tokens.push(claimed.lease);
        }
        let shown = jobs.look(id).await.expect("it looks").expect("it is kept");
        if shown.state.is_over() {
            break shown;
        }
    };
    assert_eq!((tokens.len(), over.state, over.losses), (3, State::Dead, 3), "{over:?}");
    assert!(over.error.as_deref().is_some_and(|error| error.contains("without a word 3 times")), "{over:?}");
    for lease in tokens {
        assert_eq!(settle(&jobs, lease, done()).await, Fence::Lost);
    }
    assert_eq!(books(&jobs).await, [0, 0, 0, 1]);
    // Beside one that is to be given up others are found.
    let sound = accept(&jobs, vec![job("deadly")]).await[0].id;
    let claimed = claim(&jobs, &["deadly"], 9, MINUTE).await;
    assert_eq!(claimed.iter().map(|claimed| claimed.lease.job).collect::<Vec<_>>(), [sound]);
}

/// An operator does not wait for what waits for its time.
pub(crate) async fn a_queue_that_is_drained_waits_for_nothing<DB: Dialect>(pool: &HealPool<DB>) {
    let (jobs, queue) = (Jobs::of(pool), Name::from("late"));
    accept(&jobs, vec![later("late"); 2]).await;
    jobs.pause(&queue, true, "ada".into(), "looking".into()).await.expect("it is paused");
    assert_eq!(claim(&jobs, &["late"], 9, MINUTE).await, []);
    jobs.drain(&queue, "ada".into(), "seen".into()).await.expect("it is drained");
    assert_eq!(claim(&jobs, &["late"], 9, MINUTE).await.len(), 2);
}

/// All that was asked for when a service ends is written, or its caller told.
pub(crate) async fn what_was_asked_for_is_written_before_it_rests<DB: Dialect>(pool: &HealPool<DB>) {
    let jobs = Jobs::of(pool);
    jobs.rest().await.expect("nothing is asked for");
    assert!(!jobs.is_used(), "and nothing was opened for it");
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let jobs = jobs.clone();
        callers.spawn(async move { jobs.accept(vec![job("last")]).await.is_ok() });
    }
    while !jobs.is_used() {
        tokio::task::yield_now().await;
    }
    jobs.rest().await.expect("all is written");
    let written = jobs.queues().await.expect("they are shown")[0].accepted;
    let told = callers.join_all().await.into_iter().filter(|told| *told).count();
    assert_eq!((written, told), (100, 100));
}

/// What happens at random: accepted, claimed, ended in every way, lost, and the books after each.
pub(crate) async fn whatever_happens_the_books_balance<DB: Dialect>(pool: &HealPool<DB>, steps: usize) {
    let jobs = Jobs::of(pool);
    let mut random = fastrand::Rng::with_seed(seed());
    let mut held: Vec<Lease> = Vec::new();
    let (mut accepted, mut over) = (0_u64, BTreeSet::new());
    for _ in 0..steps {
        match random.u8(..8) {
            0..3 => {
                let new: Vec<_> = (0..random.usize(1..6)).map(|_| any_job(&mut random)).collect();
                let answers = accept(&jobs, new).await;
                accepted += answers.iter().filter(|answer| answer.fresh).count() as u64;
                held.extend(answers.iter().filter_map(|answer| answer.lease));
            }
            3..5 => {
                let ttl = if random.bool() { MINUTE } else { Duration::from_millis(2) };
                held.extend(claim(&jobs, &["a", "b"], random.u32(1..5), ttl).await.iter().map(|c| c.lease));
            }
            5..7 if !held.is_empty() => {
                let lease = held.swap_remove(random.usize(..held.len()));
                let (end, ends) = any_end(&mut random);
                if settle(&jobs, lease, end).await == Fence::Held && ends {
                    assert!(over.insert(lease.job), "{lease:?} is over twice");
                }
            }
            _ => drop(jobs.heartbeat(&held, MINUTE).await.expect("it answers")),
        }
        let [pending, leased, done, dead] = books(&jobs).await;
        assert_eq!((pending + leased + done + dead, done + dead), (accepted, over.len() as u64));
    }
}

fn any_job(random: &mut fastrand::Rng) -> NewJob {
    let queue = if random.bool() { "a" } else { "b" };
    let until = if random.bool() { KeyUntil::Over } else { KeyUntil::Forgotten };
    NewJob {
        key: random.bool().then(|| Key { text: random.u8(..6).to_string(), until }),
        class: Class::ALL[random.usize(..Class::ALL.len())],
        keep: if random.bool() { MINUTE } else { Duration::ZERO },
        hold: (random.u8(..5) == 0).then_some(MINUTE),
        ..job(queue)
    }
}

fn any_end(random: &mut fastrand::Rng) -> (End, bool) {
    let after = Duration::from_millis(random.u64(..3));
    match random.u8(..4) {
        0 => (done(), true),
        1 => (End::Dead { error: "dead".into() }, true),
        2 => (End::Retry { after, error: "again".into() }, false),
        _ => (End::Release { after }, false),
    }
}

/// Several processes' worth of workers on one database: nobody gets what another has.
pub(crate) async fn workers_share_and_never_the_same<DB: Dialect>(pool: &HealPool<DB>, others: usize) {
    let jobs = Jobs::of(pool);
    accept(&jobs, vec![job("share"); 400]).await;
    let seen = Arc::new(parking_lot::Mutex::new(BTreeSet::new()));
    let mut workers = tokio::task::JoinSet::new();
    for n in 0..=others {
        let (jobs, seen) = (if n == 0 { jobs.clone() } else { Jobs::of(pool) }, Arc::clone(&seen));
        workers.spawn(async move {
            loop {
                let claimed = claim(&jobs, &["share", "nothing"], 7, MINUTE).await;
                if claimed.is_empty() {
                    return;
                }
                for claimed in &claimed {
                    assert!(seen.lock().insert(claimed.lease.job), "claimed twice");
                }
                let ends = claimed.iter().map(|claimed| Settle { lease: claimed.lease, end: done() });
                jobs.settle(ends.collect()).await.expect("it is written");
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.expect("no worker fails");
    }
    assert_eq!(seen.lock().len(), 400);
    assert_eq!(books(&jobs).await, [0, 0, 400, 0]);
}
