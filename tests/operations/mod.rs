//! What long operations promise, asked of both databases. Each item writes one row into a table that has no unique key: an
//! item that was done twice would show.

pub(crate) mod kills;
pub(crate) mod record;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_core::future::BoxFuture;
use futures_util::StreamExt as _;
use selfheal::{
    Heal, HealPool,
    batch::{self, Failed, Handler, Part, Results},
    batch_executor::{
        Fate, Item,
        journal::{Job, JobId, NewJob, State},
    },
    config::{Config, Source},
    error_class::ErrorClass,
    runtime::StartError,
    store::Dialect,
};

/// Writes the rows of some items.
pub(crate) type Effects<DB> = for<'c> fn(
    &'c mut <DB as sqlx::Database>::Connection,
    Vec<i64>,
) -> BoxFuture<'c, Result<(), sqlx::Error>>;
/// The rows that were written.
pub(crate) type Written<DB> = fn(&HealPool<DB>) -> BoxFuture<'_, Vec<i64>>;

/// A second is a chunk of a hundred.
const CONFIG: &str = "[batches.effects]\ndeadline = \"10s\"\nper_item = \"10ms\"\n[pools.main]";
pub(crate) const ITEMS: i64 = 1_418;

/// Writes a row for each item.
fn writing<DB: Dialect>(pool: &HealPool<DB>, effects: Effects<DB>) -> Handler {
    batch::run_tx(pool, move |conn, items: Part<i64>| {
        Box::pin(async move {
            effects(conn, items.to_vec()).await?;
            Ok(Results::done())
        })
    })
}

pub(crate) async fn start<DB: Dialect>(pool: &HealPool<DB>, handler: Handler) -> Heal {
    let config = Config::load(&Source::text("test.toml", CONFIG)).expect("it is valid");
    let builder = Heal::builder().config(config).pool("main", pool).batch("effects", handler);
    builder.lease(Duration::from_secs(2)).start().await.expect("it starts")
}

pub(crate) fn each_once(written: Vec<i64>, items: std::ops::Range<i64>) {
    let mut written = written;
    written.sort_unstable();
    assert!(written.iter().copied().eq(items), "each item once: {} rows", written.len());
}

pub(crate) async fn ended(heal: &Heal, job: JobId) -> Job {
    let journal = heal.journal("main").expect("there is a pool");
    let ending = async {
        loop {
            match journal.look(job).await.expect("it looks") {
                Some(job) if job.state.is_over() => return job,
                Some(_) | None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(45), ending).await.expect("it ends")
}

/// All of it, on an empty database with the table of effects.
pub(crate) async fn everything<DB: Dialect>(
    pool: &HealPool<DB>,
    effects: Effects<DB>,
    written: Written<DB>,
    clear: Written<DB>,
) {
    one_click_and_all_of_it_is_done_once(pool, effects, written).await;
    clear(pool).await;
    what_another_process_has_left_behind_is_done(pool, effects, written).await;
    clear(pool).await;
    the_item_that_fails_is_named_and_all_others_are_done(pool, effects, written).await;
    clear(pool).await;
    a_part_whose_lease_is_lost_is_undone_and_left_to_who_has_it(pool, effects, written).await;
    clear(pool).await;
    what_is_cancelled_ends_and_what_is_paused_waits(pool, effects, written).await;
    clear(pool).await;
    a_service_that_ends_leaves_the_rest_to_the_next_one(pool, effects, written).await;
    a_pool_that_is_not_the_jobs_own_is_refused(pool).await;
}

async fn one_click_and_all_of_it_is_done_once<DB: Dialect>(
    pool: &HealPool<DB>,
    effects: Effects<DB>,
    written: Written<DB>,
) {
    let heal = start(pool, writing(pool, effects)).await;
    let batch = heal.batch("effects").caller("ann");
    let plan = batch.plan(ITEMS as u64).expect("it is registered");
    assert_eq!((plan.inline, plan.batch, plan.batches), (false, 100, 15));
    let items: Vec<i64> = (0..ITEMS).collect();
    let report = batch.run(&items).await.expect("it begins");
    assert_eq!((report.counts.total, report.joined, report.items.len()), (ITEMS as u64, false, 0));
    assert!(report.counts.done >= 100, "{report:?}");
    let job = report.job.expect("it is written down");
    if let Some(progress) = batch.progress() {
        let seen: Vec<_> = progress.map(|progress| progress.counts.done).collect().await;
        assert!(seen.is_sorted() && seen.last() == Some(&(ITEMS as u64)), "{seen:?}");
    }
    let job = ended(&heal, job).await;
    assert_eq!((job.state, job.counts.done, job.owner.as_deref()), (State::Done, ITEMS as u64, Some("ann")));
    each_once(written(pool).await, 0..ITEMS);
    let nobody = heal.batch("other").run(&items).await.expect_err("nothing is registered");
    assert!(nobody.to_string().contains("not registered"), "{nobody}");
    let texts = batch.run(&["a"]).await.expect_err("they are no numbers");
    assert!(texts.to_string().contains("cannot be read"), "{texts}");
    heal.shutdown().await;
}

async fn what_another_process_has_left_behind_is_done<DB: Dialect>(
    pool: &HealPool<DB>,
    effects: Effects<DB>,
    written: Written<DB>,
) {
    let heal = start(pool, writing(pool, effects)).await;
    let items: Vec<i64> = (0..50).collect();
    let payload = serde_json::to_vec(&items).expect("they are numbers");
    // It was leased by somebody, and it is nobody's from now on.
    let hold = Some(Duration::from_millis(100));
    let job = NewJob { total: 50, hold, keep: Duration::from_secs(60), ..NewJob::new("effects", payload) };
    let journal = heal.journal("main").expect("there is a pool");
    let accepted = journal.accept(vec![job]).await.expect("it is accepted");
    let job = ended(&heal, accepted[0].id).await;
    assert_eq!((job.state, job.counts.done, job.losses), (State::Done, 50, 0), "it got on");
    each_once(written(pool).await, 0..50);
    heal.shutdown().await;
}

async fn the_item_that_fails_is_named_and_all_others_are_done<DB: Dialect>(
    pool: &HealPool<DB>,
    effects: Effects<DB>,
    written: Written<DB>,
) {
    let picky = batch::run_tx(pool, move |conn, items: Part<i64>| {
        Box::pin(async move {
            effects(conn, items.to_vec()).await?;
            if items.contains(&42) {
                return Err(Failed::new(ErrorClass::Permanent, "42 is not an answer"));
            }
            let blocked = items.iter().position(|item| *item == 7);
            Ok(blocked.map_or_else(Results::done, |at| Results::done().blocked(at, "it is promoted")))
        })
    });
    let heal = start(pool, picky).await;
    let items: Vec<i64> = (0..300).collect();
    let report = heal.batch("effects").run(&items).await.expect("it begins");
    let item = |at, fate, why: &str| Item { at, fate, why: why.to_owned() };
    let expected = [item(7, Fate::Blocked, "it is promoted"), item(42, Fate::Failed, "42 is not an answer")];
    assert_eq!((report.counts.done, &report.items[..]), (298, &expected[..]));
    let all = written(pool).await;
    assert!(!all.contains(&42) && all.len() == 299, "what fails is undone");
    heal.shutdown().await;
}

async fn a_part_whose_lease_is_lost_is_undone_and_left_to_who_has_it<DB: Dialect>(
    pool: &HealPool<DB>,
    effects: Effects<DB>,
    written: Written<DB>,
) {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let robbed = batch::run_tx(pool, move |conn, items: Part<i64>| {
        let calls = Arc::clone(&counted);
        Box::pin(async move {
            effects(conn, items.to_vec()).await?;
            if calls.fetch_add(1, Ordering::Relaxed) == 1 {
                // To this part it looks as if somebody else had claimed the job.
                DB::run(conn, "update selfheal_jobs set token = token + 1").await?;
            }
            Ok(Results::done())
        })
    });
    let heal = start(pool, robbed).await;
    let items: Vec<i64> = (0..ITEMS).collect();
    let report = heal.batch("effects").caller("ann").run(&items).await.expect("it begins");
    let job = ended(&heal, report.job.expect("it is written down")).await;
    assert_eq!((job.state, job.counts.done), (State::Done, ITEMS as u64));
    assert!(calls.load(Ordering::Relaxed) > 2, "the part was done again");
    each_once(written(pool).await, 0..ITEMS);
    heal.shutdown().await;
}

async fn what_is_cancelled_ends_and_what_is_paused_waits<DB: Dialect>(
    pool: &HealPool<DB>,
    effects: Effects<DB>,
    written: Written<DB>,
) {
    let heal = start(pool, writing(pool, effects)).await;
    let (ann, bob) = (heal.batch("effects").caller("ann"), heal.batch("effects").caller("bob"));
    assert!(ann.pause() && !heal.batch("other").pause());
    let items: Vec<i64> = (0..ITEMS).collect();
    let (of_ann, of_bob) = (ann.run(&items).await, bob.run(&items).await);
    let (of_ann, of_bob) = (of_ann.expect("it begins"), of_bob.expect("it begins"));
    let again = ann.run(&items).await.expect("it joins");
    assert_eq!((again.joined, again.job, again.counts.done), (true, of_ann.job, of_ann.counts.done));
    assert!(ann.cancel() && !heal.batch("effects").caller("eve").cancel());
    let job = ended(&heal, of_ann.job.expect("it is written down")).await;
    assert_eq!(
        (job.state, job.counts.done, job.error.as_deref()),
        (State::Dead, of_ann.counts.done, Some("cancelled"))
    );
    let first = (of_ann.counts.done + of_bob.counts.done) as usize;
    assert_eq!(written(pool).await.len(), first, "both did their first part, and are paused");
    bob.resume();
    assert_eq!(ended(&heal, of_bob.job.expect("it is written down")).await.counts.done, ITEMS as u64);
    assert_eq!(written(pool).await.len(), ITEMS as usize + of_ann.counts.done as usize);
    bob.drained().await;
    heal.shutdown().await;
}

async fn a_service_that_ends_leaves_the_rest_to_the_next_one<DB: Dialect>(
    pool: &HealPool<DB>,
    effects: Effects<DB>,
    written: Written<DB>,
) {
    let heal = start(pool, writing(pool, effects)).await;
    let batch = heal.batch("effects").caller("ann");
    batch.pause();
    let items: Vec<i64> = (0..ITEMS).collect();
    let report = batch.run(&items).await.expect("it begins");
    assert_eq!(report.counts.done, 100);
    heal.shutdown().await;
    assert!(batch.run(&items).await.is_err(), "nothing is begun any more");
    assert_eq!(written(pool).await.len(), 100);
    // On SQLite one process at a time works on jobs: this one has ended.
    drop((heal, batch));
    let next = start(pool, writing(pool, effects)).await;
    let job = ended(&next, report.job.expect("it is written down")).await;
    assert_eq!((job.state, job.losses), (State::Done, 0), "it was handed over");
    each_once(written(pool).await, 0..ITEMS);
    next.shutdown().await;
}

async fn a_pool_that_is_not_the_jobs_own_is_refused<DB: Dialect>(pool: &HealPool<DB>) {
    let other = HealPool::wrap(pool.unguarded().clone());
    let nothing = batch::run_tx(&other, |_, _: Part<i64>| Box::pin(async { Ok(Results::done()) }));
    let twice = batch::run(|_: Part<i64>| async { Ok(Results::done()) });
    let heal = Heal::builder().pool("main", pool).batch("effects", nothing).start().await;
    assert!(matches!(heal, Err(StartError::OtherPool { .. })), "{heal:?}");
    let builder = Heal::builder().pool("main", pool).batch("x", twice.clone()).batch("x", twice);
    assert!(matches!(builder.start().await, Err(StartError::TwoBatches(_))));
}
