//! Operations as requests begin them, on tokio's paused clock, with a journal in memory.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tokio::{runtime::Handle, time::sleep};

use super::{memory::Memory, *};
use crate::{
    batch_executor::{
        Batches, Chunk, Did, Fate, Item, NotDone, Operation, Refused, Report, Tenure, Work,
        journal::{JobId, Journal, State},
    },
    clock::Clock,
    level::{Level, Mode, ModeCell},
    signal::Signals,
};

/// A service with its journal, and how often each item was done.
struct Service {
    batches: Batches,
    journal: Arc<Memory>,
    mode: ModeCell,
    done: Arc<Vec<AtomicU32>>,
}

impl Service {
    fn new(items: u64, journal: Memory) -> Self {
        let (clock, mode) = (Clock::tokio(), ModeCell::new(Mode::Act));
        let batches =
            Batches::new(clock, mode.clone(), Tenure::default(), Handle::current(), Signals::none());
        batches.register("spam-capture".into(), "main".into(), Policy::default());
        let done = (0..items).map(|_| AtomicU32::new(0)).collect();
        Self { batches, journal: Arc::new(journal), mode, done: Arc::new(done) }
    }

    /// Work of 10 ms an item.
    fn work(&self) -> Work {
        let done = Arc::clone(&self.done);
        Arc::new(move |Chunk { from, items, .. }| {
            let done = Arc::clone(&done);
            Box::pin(async move {
                sleep(MS(10) * items).await;
                for item in &done[from as usize..from as usize + items as usize] {
                    item.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Did { done: items, ..Did::default() })
            })
        })
    }

    fn operation(&self, work: Work) -> Operation {
        Operation {
            kind: "spam-capture".into(),
            caller: "ann".to_owned(),
            items: self.done.len() as u64,
            payload: b"[1,2,3]".to_vec(),
            deadline: None,
            work,
        }
    }

    async fn click(&self, work: Work) -> Result<Report, Refused> {
        let journal: Arc<dyn Journal> = self.journal.clone();
        self.batches.run(self.operation(work), journal).await
    }

    /// Until nothing runs any more.
    async fn settle(&self) {
        while self.batches.watch("spam-capture", "ann").is_some() {
            sleep(MS(10)).await;
        }
    }

    fn times(&self) -> Vec<u32> {
        self.done.iter().map(|item| item.load(Ordering::Relaxed)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn one_click_is_answered_after_a_second_and_all_of_it_is_done_once() {
    let service = Service::new(1_418, Memory::default());
    let clicked = Clock::tokio().now();
    let report = service.click(service.work()).await.expect("it begins");
    assert_eq!((report.counts.done, report.counts.remaining(), report.joined), (100, 1_318, false));
    assert_eq!(report.job, Some(JobId(1)));
    assert_eq!(Clock::tokio().now().since(clicked), MS(1_000));
    let again = service.click(service.work()).await.expect("it joins");
    assert_eq!((again.joined, again.job, again.counts.done), (true, Some(JobId(1)), 100));
    service.settle().await;
    assert!(service.times().iter().all(|times| *times == 1), "each item once");
    assert_eq!(service.journal.ended(1).0, State::Done);
    assert_eq!(service.journal.ended(1).1.done, 1_418);
}

#[tokio::test(start_paused = true)]
async fn progress_is_seen_by_whoever_watches_and_never_falls() {
    let service = Service::new(1_418, Memory::default());
    service.click(service.work()).await.expect("it begins");
    let mut watched = service.batches.watch("spam-capture", "ann").expect("it runs");
    let mut seen = vec![watched.borrow_and_update().counts.done];
    while watched.changed().await.is_ok() {
        let progress = *watched.borrow_and_update();
        seen.push(progress.counts.done);
        if progress.over {
            break;
        }
    }
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!((seen.first(), seen.last()), (Some(&100), Some(&1_418)));
}

#[tokio::test(start_paused = true)]
async fn a_short_operation_is_not_written_down() {
    let service = Service::new(300, Memory::default());
    let report = service.click(service.work()).await.expect("it begins");
    assert_eq!((report.job, report.counts.done), (None, 300));
    assert!(service.journal.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_down_is_not_begun() {
    let service = Service::new(1_418, Memory::broken());
    let refused = service.click(service.work()).await.expect_err("there is no journal");
    assert!(matches!(refused, Refused::NotWritten(_)), "{refused:?}");
    service.settle().await;
    assert!(service.times().iter().all(|times| *times == 0), "nothing was done");
}

#[tokio::test(start_paused = true)]
async fn the_answer_does_not_wait_for_a_chunk_that_hangs() {
    let service = Service::new(300, Memory::default());
    let hang: Work = Arc::new(|_| Box::pin(std::future::pending()));
    let clicked = Clock::tokio().now();
    let report = service.click(hang).await.expect("it is answered");
    assert_eq!(Clock::tokio().now().since(clicked), MS(9_500));
    assert_eq!((report.counts.done, report.counts.remaining(), report.job), (0, 300, None));
}

#[tokio::test(start_paused = true)]
async fn what_was_thought_short_and_is_not_is_kept_from_its_answer_on() {
    let service = Service::new(300, Memory::default());
    let (sound, calls) = (service.work(), AtomicU32::new(0));
    let slow: Work = Arc::new(move |chunk| {
        let (sound, first) = (Arc::clone(&sound), calls.fetch_add(1, Ordering::Relaxed) == 0);
        Box::pin(async move {
            sleep(MS(if first { 12_000 } else { 0 })).await;
            sound(chunk).await
        })
    });
    let report = service.click(slow).await.expect("it is answered");
    assert_eq!((report.counts.done, report.job), (0, None));
    service.settle().await;
    assert_eq!((service.journal.ended(1).0, service.journal.ended(1).1.done), (State::Done, 300));
    assert!(service.times().iter().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_does_not_answer_in_time_has_promised_nothing() {
    let service = Service::new(1_418, Memory::slow(MS(60_000)));
    let clicked = Clock::tokio().now();
    let refused = service.click(service.work()).await.expect_err("nothing is written");
    assert!(matches!(refused, Refused::NotWritten(_)), "{refused:?}");
    assert_eq!(Clock::tokio().now().since(clicked), MS(9_500));
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_stops_nothing() {
    let service = Service::new(1_418, Memory::default());
    drop(tokio::time::timeout(MS(300), service.click(service.work())).await);
    service.settle().await;
    assert!(service.times().iter().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn whoever_has_lost_the_lease_stops() {
    let service = Service::new(1_418, Memory::lost());
    service.click(service.work()).await.expect("it is answered");
    service.settle().await;
    assert_eq!(service.times().iter().sum::<u32>(), 100, "no further chunk was begun");
}

#[tokio::test(start_paused = true)]
async fn the_item_that_panics_is_passed_by_and_named() {
    let service = Service::new(300, Memory::default());
    let sound = service.work();
    let work: Work = Arc::new(move |chunk: Chunk| {
        let sick = (chunk.from..chunk.from + u64::from(chunk.items)).contains(&42);
        // As a panic, but without a walk through the stack on the terminal.
        if sick { std::panic::resume_unwind(Box::new("planted")) } else { sound(chunk) }
    });
    let report = service.click(work).await.expect("it begins");
    assert_eq!((report.counts.done, report.counts.failed), (299, 1));
    let why = "it has panicked".to_owned();
    assert_eq!(report.items, [Item { at: 42, fate: Fate::Failed, why }]);
}

#[tokio::test(start_paused = true)]
async fn a_critical_pool_stops_what_nobody_waits_for_and_lets_it_go_on() {
    let service = Service::new(1_418, Memory::default());
    service.click(service.work()).await.expect("it begins");
    service.batches.on_level(&"main".into(), Level::Critical);
    sleep(MS(60_000)).await;
    let stood: u32 = service.times().iter().sum();
    assert!(stood <= 200, "{stood}");
    service.batches.on_level(&"main".into(), Level::Normal);
    service.settle().await;
    assert!(service.times().iter().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_ends_leaves_the_job_to_others_who_go_on_where_it_was() {
    let service = Service::new(1_418, Memory::default());
    service.click(service.work()).await.expect("it begins");
    service.batches.drain();
    service.settle().await;
    let (state, counts) = service.journal.ended(1);
    assert_eq!(state, State::Pending);
    let next = Batches::new(
        Clock::tokio(),
        service.mode.clone(),
        Tenure::default(),
        Handle::current(),
        Signals::none(),
    );
    next.register("spam-capture".into(), "main".into(), Policy::default());
    let lease = service.journal.lease(1);
    let journal: Arc<dyn Journal> = service.journal.clone();
    assert!(next.resume(service.operation(service.work()), journal, (lease, counts), None));
    while next.watch("spam-capture", "ann").is_some() {
        sleep(MS(10)).await;
    }
    assert!(service.times().iter().all(|times| *times == 1));
    assert_eq!(service.journal.ended(1).0, State::Done);
}

#[tokio::test(start_paused = true)]
async fn without_healing_it_is_done_in_one_piece_and_a_failure_is_one() {
    let service = Service::new(1_418, Memory::default());
    service.mode.set(Mode::Observe);
    let report = service.click(service.work()).await.expect("it begins");
    assert_eq!((report.counts.done, report.job), (1_418, None));
    let (class, why) = (ErrorClass::Permanent, "no such table".to_owned());
    let failed = NotDone::Failed { class, why };
    let work: Work = Arc::new(move |_| {
        let failed = failed.clone();
        Box::pin(async move { Err(failed) })
    });
    let refused = service.click(work).await.expect_err("it fails");
    assert!(refused.to_string().contains("no such table"), "{refused}");
}
