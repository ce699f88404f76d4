//! The actor on tokio's paused clock: time moves only when everybody waits.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use parking_lot::Mutex;
use ractor::{Actor, ActorRef};
use tokio::{runtime::Handle, task::JoinHandle, time::sleep};

use super::{memory::Memory, *};
use crate::{
    batch_executor::{
        BatchExecutor, Batches, Chunk, Did, Handler, Intake, Message, Operation, Source, Tenure, Work,
        journal::{Counts, Journal, NewJob, State},
    },
    clock::Clock,
    fault::Fault,
    level::{Level, Mode, ModeCell},
    mailbox::{Mailbox, Wake},
    signal::Signals,
};

/// One process of a service, with its actor. Several share a journal.
struct Process {
    batches: Batches,
    intake: Intake,
    mailbox: Mailbox<Message>,
    journal: Arc<Memory>,
    /// Chunks that were done here.
    done: Arc<Mutex<Vec<(u64, u32)>>>,
}

impl Process {
    /// A process whose items take so long each.
    fn new(journal: &Arc<Memory>, each: Duration) -> Self {
        let batches = Batches::new(
            Clock::tokio(),
            ModeCell::new(Mode::Act),
            Tenure::default(),
            Handle::current(),
            Signals::none(),
        );
        batches.register("spam-capture".into(), "main".into(), Policy::default());
        let done: Arc<Mutex<Vec<_>>> = Arc::default();
        let work = work(&done, each);
        let handler = Handler {
            one_each: true,
            make: Arc::new(move |job| match &job.payload[..] {
                b"[1]" => Ok(Arc::clone(&work)),
                _ => Err("the payload is of another time".to_owned()),
            }),
        };
        let source = Source {
            pool: "main".into(),
            journal: Arc::clone(journal) as Arc<dyn Journal>,
            handlers: [("spam-capture".into(), handler)].into(),
        };
        let intake = Intake::new(batches.clone(), vec![source]);
        let mailbox = Mailbox::new("batch-executor", 16);
        Self { batches, intake, mailbox, journal: Arc::clone(journal), done }
    }

    async fn start(&self) -> (ActorRef<Wake>, JoinHandle<()>) {
        let arguments = (self.intake.clone(), self.mailbox.clone());
        Actor::spawn(None, BatchExecutor, arguments).await.expect("it starts")
    }

    async fn click(&self, each: Duration) {
        let operation = Operation {
            kind: "spam-capture".into(),
            caller: "ann".to_owned(),
            items: 1_418,
            payload: b"[1]".to_vec(),
            deadline: None,
            work: work(&self.done, each),
        };
        let journal: Arc<dyn Journal> = Arc::clone(&self.journal) as Arc<dyn Journal>;
        self.batches.run(operation, journal).await.expect("it begins");
    }

    fn items(&self) -> u64 {
        self.done.lock().iter().map(|(_, items)| u64::from(*items)).sum()
    }
}

fn work(done: &Arc<Mutex<Vec<(u64, u32)>>>, each: Duration) -> Work {
    let done = Arc::clone(done);
    Arc::new(move |Chunk { from, items, .. }| {
        let done = Arc::clone(&done);
        Box::pin(async move {
            sleep(each * items).await;
            done.lock().push((from, items));
            Ok(Did { done: items, ..Did::default() })
        })
    })
}

async fn left_behind(journal: &Memory, payload: &[u8]) {
    let job = NewJob {
        owner: Some("ann".to_owned()),
        total: 1_418,
        hold: Some(Duration::from_secs(30)),
        ..NewJob::new("spam-capture", payload)
    };
    journal.accept(vec![job]).await.expect("it is accepted");
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if what() {
            return;
        }
        sleep(MS(10)).await;
    }
    panic!("it does not happen");
}

#[tokio::test(start_paused = true)]
async fn what_a_process_that_was_killed_had_begun_is_taken_up_where_it_was() {
    let journal: Arc<Memory> = Arc::default();
    left_behind(&journal, b"[1]").await;
    let lease = journal.lease(1);
    let counts = Counts { total: 1_418, done: 700, ..Counts::default() };
    let progress = crate::batch_executor::journal::Progress { cursor: None, counts };
    journal.checkpoint(lease, &progress).await.expect("it is written");
    let process = Process::new(&journal, MS(10));
    let (actor, _) = process.start().await;
    sleep(Duration::from_secs(29)).await;
    assert_eq!(process.items(), 0, "it is another's");
    until(|| journal.ended(1).0 == State::Done).await;
    assert_eq!((process.items(), process.done.lock()[0]), (718, (700, 100)));
    assert_eq!(journal.ended(1).1.done, 1_418);
    actor.stop(None);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_lasts_longer_than_its_lease_keeps_it() {
    let journal: Arc<Memory> = Arc::default();
    let (ours, theirs) = (Process::new(&journal, MS(100)), Process::new(&journal, MS(1)));
    let actors = [ours.start().await.0, theirs.start().await.0];
    ours.click(MS(100)).await;
    until(|| journal.ended(1).0 == State::Done).await;
    assert_eq!((ours.items(), theirs.items()), (1_418, 0), "two minutes of work, and nobody took it");
    assert_eq!(journal.troubles(1), (0, 0));
    actors.iter().for_each(|actor| actor.stop(None));
}

#[tokio::test(start_paused = true)]
async fn without_its_actor_a_process_loses_its_leases_and_stops_when_it_hears_so() {
    let journal: Arc<Memory> = Arc::default();
    let (ours, theirs) = (Process::new(&journal, MS(100)), Process::new(&journal, MS(100)));
    ours.click(MS(100)).await;
    let actor = theirs.start().await.0;
    until(|| journal.ended(1).0 == State::Done).await;
    let (first, rest) = (ours.items(), theirs.items());
    assert!(first > 0 && rest > 0, "{first} and {rest}");
    // The chunk that was under way when the lease ended is the only one that both did.
    assert!(first + rest <= 1_418 + 100, "{first} and {rest}");
    assert!(ours.batches.watch("spam-capture", "ann").is_none());
    actor.stop(None);
}

#[tokio::test(start_paused = true)]
async fn whoever_hears_from_the_journal_that_a_lease_is_lost_begins_no_further_chunk() {
    let journal: Arc<Memory> = Arc::default();
    let process = Process::new(&journal, MS(100));
    let actor = process.start().await.0;
    process.click(MS(100)).await;
    let begun = process.items();
    journal.lease(1);
    until(|| process.batches.watch("spam-capture", "ann").is_none()).await;
    assert!(process.items() <= begun + 100);
    assert_eq!(journal.ended(1).0, State::Leased, "it is another's to end");
    actor.stop(None);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_up_at_level_critical_and_one_at_a_time_at_warning() {
    let journal: Arc<Memory> = Arc::default();
    let process = Process::new(&journal, MS(10));
    let tell = |level| process.batches.on_level(&"main".into(), level);
    tell(Level::Critical);
    let actor = process.start().await.0;
    let job = |owner: &str| NewJob {
        owner: Some(owner.to_owned()),
        total: 10,
        ..NewJob::new("spam-capture", *b"[1]")
    };
    journal.accept(vec![job("ann"), job("bob"), job("eve")]).await.expect("they are accepted");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(process.items(), 0);
    assert!((1..=3).all(|id| journal.ended(id).0 == State::Pending), "others may have them");
    tell(Level::Warning);
    until(|| process.items() > 0).await;
    assert_eq!([1, 2, 3].map(|id| journal.ended(id).0).iter().filter(|s| s.is_over()).count(), 1);
    tell(Level::Normal);
    until(|| (1..=3).all(|id| journal.ended(id).0 == State::Done)).await;
    actor.stop(None);
}

#[tokio::test(start_paused = true)]
async fn a_paused_kind_is_left_to_others() {
    let journal: Arc<Memory> = Arc::default();
    let process = Process::new(&journal, MS(10));
    process.batches.hold("spam-capture", true);
    let actor = process.start().await.0;
    let job = NewJob { total: 10, ..NewJob::new("spam-capture", *b"[1]") };
    journal.accept(vec![job]).await.expect("it is accepted");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(journal.ended(1).0, State::Pending);
    process.batches.hold("spam-capture", false);
    until(|| journal.ended(1).0 == State::Done).await;
    actor.stop(None);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_nobody_understands_is_left_for_a_newer_process_for_ten_minutes() {
    let journal: Arc<Memory> = Arc::default();
    let process = Process::new(&journal, MS(10));
    let actor = process.start().await.0;
    let job = NewJob::new("spam-capture", *b"{}");
    journal.accept(vec![job]).await.expect("it is accepted");
    sleep(Duration::from_secs(540)).await;
    assert_eq!((journal.ended(1).0, journal.troubles(1).0), (State::Pending, 18));
    until(|| journal.ended(1).0 == State::Dead).await;
    actor.stop(None);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_takes_its_process_down_is_dead_in_the_end() {
    let journal: Arc<Memory> = Arc::default();
    left_behind(&journal, b"[1]").await;
    let process = Process::new(&journal, MS(10));
    for _ in 0..19 {
        sleep(Duration::from_secs(30)).await;
        let claim = crate::batch_executor::journal::Claim {
            queues: &["spam-capture".into()],
            limit: 1,
            ttl: Duration::from_secs(30),
        };
        assert_eq!(journal.claim(&claim).await.expect("it is claimed").len(), 1);
    }
    let actor = process.start().await.0;
    until(|| journal.ended(1).0 == State::Dead).await;
    assert_eq!((journal.troubles(1), process.items()), ((1, 20), 0));
    actor.stop(None);
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_fails_is_followed_by_one_that_goes_on() {
    let journal: Arc<Memory> = Arc::default();
    let process = Process::new(&journal, MS(100));
    let other = Process::new(&journal, MS(100));
    let others = other.start().await.0;
    let (_, first) = process.start().await;
    process.click(MS(100)).await;
    process.mailbox.tell(Message::Fault(Fault::Panic));
    first.await.expect("ractor catches the panic");
    let second = process.start().await.0;
    until(|| journal.ended(1).0 == State::Done).await;
    assert_eq!((process.items(), other.items()), (1_418, 0));
    second.stop(None);
    others.stop(None);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_takes_nobody_with_it() {
    let journal: Arc<Memory> = Arc::default();
    let mut process = Process::new(&journal, MS(10));
    let calls = Arc::new(AtomicU32::new(0));
    let (counted, sound) = (Arc::clone(&calls), process.intake.sources[0].handlers["spam-capture"].clone());
    let make: crate::batch_executor::Make = Arc::new(move |job| {
        if counted.fetch_add(1, Ordering::Relaxed) == 0 {
            // As a panic, but without a walk through the stack on the terminal.
            std::panic::resume_unwind(Box::new("planted"));
        }
        (sound.make)(job)
    });
    let mut source = process.intake.sources[0].clone();
    source.handlers.insert("spam-capture".into(), Handler { make, one_each: false });
    process.intake = Intake::new(process.batches.clone(), vec![source]);
    let actor = process.start().await.0;
    let job = NewJob { total: 10, ..NewJob::new("spam-capture", *b"[1]") };
    journal.accept(vec![job]).await.expect("it is accepted");
    until(|| journal.ended(1).0 == State::Done).await;
    assert_eq!((journal.troubles(1).0, calls.load(Ordering::Relaxed)), (1, 2));
    actor.stop(None);
}

/// Fifty jobs, one of which takes down whoever works on it, before any of the others has got on.
#[tokio::test(start_paused = true)]
async fn a_job_that_takes_its_process_down_takes_none_of_those_beside_it_along() {
    const JOBS: i64 = 50;
    const GUILTY: &str = "17";
    let journal: Arc<Memory> = Arc::default();
    let job = |owner: i64| NewJob {
        owner: Some(owner.to_string()),
        total: 20,
        ..NewJob::new("spam-capture", *b"[1]")
    };
    journal.accept((0..JOBS).map(job).collect()).await.expect("they are accepted");
    let over = |id| journal.ended(id).0.is_over();
    let mut ends = 0;
    while !(1..=JOBS).all(over) {
        let (mut process, dead) = (Process::new(&journal, MS(1)), Arc::new(AtomicBool::new(false)));
        let end = Arc::clone(&dead);
        let make: crate::batch_executor::Make = Arc::new(move |job| {
            let (guilty, dead) = (job.owner.as_deref() == Some(GUILTY), Arc::clone(&end));
            let work: Work = Arc::new(move |Chunk { items, .. }| {
                let dead = Arc::clone(&dead);
                Box::pin(async move {
                    sleep(MS(if guilty { 1 } else { 10 })).await;
                    // Where the process is gone nothing ever ends.
                    if guilty || dead.load(Ordering::Relaxed) {
                        dead.store(true, Ordering::Relaxed);
                        std::future::pending::<()>().await;
                    }
                    Ok(Did { done: items, ..Did::default() })
                })
            });
            Ok(work)
        });
        let mut source = process.intake.sources[0].clone();
        source.handlers.insert("spam-capture".into(), Handler { make, one_each: true });
        process.intake = Intake::new(process.batches.clone(), vec![source]);
        let (actor, ended) = process.start().await;
        until(|| dead.load(Ordering::Relaxed) || (1..=JOBS).all(over)).await;
        ends += u32::from(dead.load(Ordering::Relaxed));
        actor.stop(None);
        ended.await.expect("it stops");
    }
    assert_eq!(ends, Tenure::default().max_losses);
    for id in 1..=JOBS {
        let expected = if (id - 1).to_string() == GUILTY { State::Dead } else { State::Done };
        assert_eq!(journal.ended(id).0, expected, "job {id}: {:?}", journal.troubles(id));
    }
}
