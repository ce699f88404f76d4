//! Jobs in one piece: by level, by class, and what becomes of those that fail.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use ractor::{Actor, ActorRef};
use tokio::{runtime::Handle, time::sleep};

use super::{memory::Memory, *};
use crate::{
    batch_executor::{
        Attempt, Attempts, BatchExecutor, Batches, Did, Ending, Handler, Intake, NotDone, RUNS, Source,
        Tenure, Waits, Work,
        journal::{Claimed, Counts, JobId, Journal, NewJob, State},
    },
    clock::Clock,
    level::{Class, Level, Mode, ModeCell},
    mailbox::{Mailbox, Wake},
    signal::{BatchEvent, Signal, Signals},
};

const ONE: Counts = Counts { total: 1, done: 0, blocked: 0, failed: 0 };
const JOB: Next = Next::Chunk { from: 0, items: 1 };
const TURN: Next = Next::Wait { why: Waits::Turn, until: None };

/// A machine with two kinds of jobs in one piece on one pool, `mail` and `report`.
fn rig() -> Rig {
    let mut rig = Rig { machine: Machine::default(), kind: "mail".into(), now: Tick::ZERO };
    for kind in ["mail", "report"] {
        rig.machine.register_deferred(kind.into(), "main".into(), Attempts::default());
    }
    rig
}

impl Rig {
    fn job(&mut self, n: u32, class: Class) -> RunId {
        self.attempt("mail", n, Attempt { class, before: 0 })
    }

    fn attempt(&mut self, kind: &str, n: u32, attempt: Attempt) -> RunId {
        let id = self.machine.attempt(&kind.into(), &format!("job {n}"), ONE, attempt);
        id.expect("there is room")
    }

    fn level(&mut self, level: Level) {
        self.machine.on_level(&"main".into(), level, self.now);
    }

    fn room(&self) -> usize {
        self.machine.room_on(&"main".into(), self.now)
    }

    /// What becomes of a job that fails so, after so many attempts that failed before.
    fn fails(&mut self, class: ErrorClass, before: u32) -> Ending {
        let id = self.attempt("mail", 0, Attempt { class: Class::Background, before });
        assert_eq!(self.next(id), JOB);
        assert_eq!(self.fail(id, class), [], "nobody is told of an attempt");
        let Next::Over(ending) = self.next(id) else { panic!("it goes on: {:?}", self.next(id)) };
        self.machine.forget(id);
        ending
    }
}

#[test]
fn a_job_that_is_done_is_over_and_one_whose_effects_are_committed_is_not_done_again() {
    let mut rig = rig();
    let id = rig.job(1, Class::Background);
    assert_eq!(rig.next(id), JOB);
    assert_eq!(rig.done(id, 1), [], "of one job nobody wants to hear");
    assert_eq!(rig.next(id), Next::Over(Ending::Done));
    let attempt = Attempt { class: Class::Background, before: 3 };
    let committed = Counts { done: 1, ..ONE };
    let id = rig.machine.attempt(&"mail".into(), "job 2", committed, attempt).expect("there is room");
    assert_eq!(rig.next(id), Next::Over(Ending::Done));
}

#[test]
fn at_critical_none_at_warning_one_and_then_one_more_every_50_ms() {
    let mut rig = rig();
    let ids: Vec<_> = (0..6).map(|n| rig.job(n, Class::Background)).collect();
    rig.level(Level::Critical);
    assert_eq!(rig.next(ids[0]), Next::Wait { why: Waits::Pressure, until: None });
    assert_eq!(rig.room(), 0, "and none is taken up");
    rig.level(Level::Warning);
    assert_eq!(rig.next(ids[0]), JOB);
    assert_eq!((rig.next(ids[1]), rig.room()), (TURN, 0));
    rig.done(ids[0], 1);
    rig.machine.forget(ids[0]);
    assert_eq!(rig.next(ids[1]), JOB);
    rig.level(Level::Normal);
    let until = Some(rig.now + MS(50));
    assert_eq!(rig.next(ids[2]), Next::Wait { why: Waits::Turn, until });
    for id in &ids[2..] {
        rig.pass(MS(50));
        assert_eq!(rig.next(*id), JOB);
    }
    assert_eq!(rig.room(), 0, "five may work and five do");
    rig.pass(MS(5_000));
    assert_eq!(rig.room(), RUNS - 5);
}

#[test]
fn where_one_may_work_it_is_the_better_class_whoever_asks_first() {
    let mut rig = rig();
    rig.level(Level::Warning);
    let [background, normal, critical] =
        [(1, Class::Background), (2, Class::Normal), (3, Class::Critical)].map(|(n, c)| rig.job(n, c));
    assert_eq!((rig.next(background), rig.next(normal)), (TURN, TURN));
    for id in [critical, normal, background] {
        assert_eq!(rig.next(id), JOB);
        rig.done(id, 1);
        rig.machine.forget(id);
    }
}

#[test]
fn a_better_class_that_is_paused_or_called_off_keeps_nobody_waiting() {
    let mut rig = rig();
    rig.level(Level::Warning);
    let critical = rig.attempt("report", 1, Attempt { class: Class::Critical, before: 0 });
    let background = rig.job(2, Class::Background);
    assert_eq!(rig.next(background), TURN);
    rig.machine.hold("report", true);
    assert_eq!(rig.next(background), JOB);
    rig.done(background, 1);
    rig.machine.forget(background);
    rig.machine.hold("report", false);
    let background = rig.job(3, Class::Background);
    assert_eq!(rig.next(background), TURN);
    rig.machine.cancel(critical);
    assert_eq!((rig.next(background), rig.next(critical)), (JOB, Next::Over(Ending::Cancelled)));
}

#[test]
fn what_fails_is_given_back_and_tried_again_ever_more_seldom_until_it_is_dead() {
    let mut rig = rig();
    let again = |secs| Ending::Failed { again: Some(Duration::from_secs(secs)) };
    assert_eq!(rig.fails(ErrorClass::Unknown, 0), again(1));
    assert_eq!(rig.fails(ErrorClass::Transient, 4), again(16));
    assert_eq!(rig.fails(ErrorClass::Timeout, 8), again(256));
    assert_eq!(rig.fails(ErrorClass::Unknown, 9), Ending::Failed { again: None });
    assert_eq!(rig.fails(ErrorClass::Permanent, 0), Ending::Failed { again: None });
}

#[test]
fn what_pressure_does_is_no_attempt() {
    let mut rig = rig();
    let put_off = Ending::PutOff { after: Duration::from_secs(10) };
    assert_eq!(rig.fails(ErrorClass::Overload, 9), put_off);
    rig.level(Level::Warning);
    assert_eq!(rig.fails(ErrorClass::Timeout, 9), put_off);
    assert_eq!(rig.fails(ErrorClass::Unknown, 9), Ending::Failed { again: None }, "a bug is one");
}

#[test]
fn what_was_committed_after_all_is_done_and_not_tried_again() {
    let mut rig = rig();
    let id = rig.job(1, Class::Background);
    assert_eq!(rig.next(id), JOB);
    rig.machine.found(id, Counts { done: 1, ..ONE });
    rig.fail(id, ErrorClass::Interrupted);
    assert_eq!(rig.next(id), Next::Over(Ending::Done));
}

#[test]
fn a_service_that_ends_leaves_them_to_others() {
    let mut rig = rig();
    let id = rig.job(1, Class::Critical);
    rig.machine.drain();
    assert_eq!(rig.next(id), Next::Over(Ending::Released));
    assert_eq!(rig.room(), 0);
    assert_eq!(rig.machine.kinds().count(), 0, "they are no batches");
}

/// A process that does mails; what a mail says decides what becomes of it.
struct Process {
    journal: Arc<Memory>,
    intake: Intake,
    batches: Batches,
    /// How often each was begun.
    begun: Arc<Mutex<BTreeMap<String, u32>>>,
    heard: Arc<Mutex<Vec<BatchEvent>>>,
}

impl Process {
    fn new(journal: &Arc<Memory>, hangs: bool) -> Self {
        let heard: Arc<Mutex<Vec<_>>> = Arc::default();
        let listening = Arc::clone(&heard);
        let signals = Signals::new(move |signal| {
            if let Signal::Batch { event, .. } = signal {
                listening.lock().push(event);
            }
        });
        let (clock, mode) = (Clock::tokio(), ModeCell::new(Mode::Act));
        let batches = Batches::new(clock, mode, Tenure::default(), Handle::current(), signals);
        batches.register_deferred("mail".into(), "main".into(), Attempts::default());
        let begun: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
        let begins = Arc::clone(&begun);
        let make = move |job: &Claimed| {
            let text = String::from_utf8(job.payload.clone()).map_err(|error| error.to_string())?;
            let begins = Arc::clone(&begins);
            let work: Work = Arc::new(move |_| {
                *begins.lock().entry(text.clone()).or_default() += 1;
                let text = text.clone();
                Box::pin(async move {
                    sleep(if hangs { Duration::MAX } else { MS(10) }).await;
                    match text.as_str() {
                        "poison" => {
                            Err(NotDone::Failed { class: ErrorClass::Unknown, why: "it is bad".into() })
                        }
                        _ => Ok(Did { done: 1, result: Some(b"sent".to_vec()), ..Did::default() }),
                    }
                })
            });
            Ok(work)
        };
        let handler = Handler { one_each: false, make: Arc::new(make) };
        let source = Source {
            pool: "main".into(),
            journal: Arc::clone(journal) as Arc<dyn Journal>,
            handlers: [("mail".into(), handler)].into(),
        };
        let intake = Intake::new(batches.clone(), vec![source]);
        Self { journal: Arc::clone(journal), intake, batches, begun, heard }
    }

    async fn start(&self) -> ActorRef<Wake> {
        let arguments = (self.intake.clone(), Mailbox::new("batch-executor", 16));
        Actor::spawn(None, BatchExecutor, arguments).await.expect("it starts").0
    }

    async fn until(&self, state: State, jobs: impl IntoIterator<Item = i64> + Clone) {
        for _ in 0..1_000_000 {
            if jobs.clone().into_iter().all(|id| self.journal.ended(id).0 == state) {
                return;
            }
            sleep(MS(10)).await;
        }
        panic!("they are never {state}");
    }
}

async fn deferred(journal: &Memory, payloads: &[&[u8]]) {
    let job = |payload: &&[u8]| NewJob { owner: Some("ann".into()), ..NewJob::new("mail", *payload) };
    journal.accept(payloads.iter().map(job).collect()).await.expect("they are accepted");
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_job_blocks_nobody_and_is_dead_with_its_error_in_the_end() {
    let journal: Arc<Memory> = Arc::default();
    let mut payloads: Vec<&[u8]> = vec![b"poison", b"\xff"];
    payloads.extend([b"mail".as_slice(); 98]);
    deferred(&journal, &payloads).await;
    let process = Process::new(&journal, false);
    let (actor, began) = (process.start().await, Clock::tokio().now());
    process.until(State::Done, 3..=100).await;
    let took = Clock::tokio().now().since(began);
    assert!(took < Duration::from_secs(2), "98 jobs of 10 ms, and the poison did not matter: {took:?}");
    process.until(State::Dead, 1..=2).await;
    assert_eq!(*process.begun.lock(), [("mail".into(), 98), ("poison".into(), 10)].into());
    assert_eq!((journal.troubles(1), journal.troubles(2)), ((10, 0), (20, 0)));
    let poison = journal.look(JobId(1)).await.expect("it looks").expect("it is there");
    assert_eq!(poison.error.as_deref(), Some("unknown: it is bad"));
    let mail = journal.look(JobId(3)).await.expect("it looks").expect("it is there");
    assert_eq!((mail.counts.done, mail.cursor.as_deref()), (1, Some(b"sent".as_slice())));
    let heard = process.heard.lock().clone();
    let dead_job =
        |event: &BatchEvent| if let BatchEvent::Dead { job, .. } = event { Some(*job) } else { None };
    let mut dead: Vec<_> = heard.iter().filter_map(dead_job).collect();
    assert_eq!(heard.len(), dead.len(), "nobody wants to hear of the others: {heard:?}");
    dead.sort_unstable();
    assert_eq!(dead, [1, 2]);
    actor.stop(None);
}

#[tokio::test(start_paused = true)]
async fn what_a_process_had_taken_up_that_was_killed_is_done_by_the_next_one() {
    let journal: Arc<Memory> = Arc::default();
    deferred(&journal, &[b"mail".as_slice(); 10]).await;
    let killed = Process::new(&journal, true);
    let actor = killed.start().await;
    sleep(MS(500)).await;
    assert_eq!(killed.begun.lock().get("mail"), Some(&10));
    actor.stop(None);
    let next = Process::new(&journal, false);
    let actor = next.start().await;
    next.until(State::Done, 1..=10).await;
    assert_eq!((next.begun.lock().get("mail"), journal.troubles(1).0), (Some(&10), 0), "no attempt failed");
    actor.stop(None);
}

#[tokio::test(start_paused = true)]
async fn under_pressure_jobs_wait_and_come_back_one_by_one() {
    let journal: Arc<Memory> = Arc::default();
    let process = Process::new(&journal, false);
    process.batches.on_level(&"main".into(), Level::Critical);
    let actor = process.start().await;
    deferred(&journal, &[b"mail".as_slice(); 20]).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(process.begun.lock().get("mail"), None, "at critical nothing is begun");
    process.batches.on_level(&"main".into(), Level::Warning);
    let began = Clock::tokio().now();
    process.until(State::Done, 1..=20).await;
    assert!(Clock::tokio().now().since(began) >= MS(200), "one at a time");
    actor.stop(None);
}
