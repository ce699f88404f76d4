//! The gate in scenarios: the machine on virtual time, the handle on tokio's paused clock, and both at random.

mod cancellation;
mod handle;
mod observe;

mod scenarios;
mod seeded;

use std::{sync::Arc, time::Duration};

use crate::{
    clock::{Clock, Tick},
    gate::{
        Answer, Ask, Change, ClaimId, Effect, Gate, Hold, JobId, Machine, Policy, Reason, Refusal, Reserve,
        Ticket, Work,
    },
    level::{Class, Mode, ModeCell},
    signal::{Name, Signal, Signals},
};

const MS: fn(u64) -> Tick = Tick::from_millis;

/// A machine with a clock of its own, and all that it has told.
struct Pool {
    machine: Machine,
    now: Tick,
    told: Vec<Effect>,
}

impl Pool {
    fn of(limit: u32) -> Self {
        Self::with(limit, Policy::default())
    }

    fn with(limit: u32, policy: Policy) -> Self {
        let policy = Policy { retry_jitter: false, ..policy };
        Self { machine: Machine::new(policy, limit, 0), now: MS(1_000), told: Vec::new() }
    }

    fn after(&mut self, ms: u64) -> &mut Self {
        self.now = self.now + Duration::from_millis(ms);
        self.machine.tick(self.now, &mut self.told);
        self.check();
        self
    }

    fn enter(&mut self, work: &Work<'_>) -> Result<JobId, Refusal> {
        let entered = self.machine.enter(work, self.now, &mut self.told);
        self.check();
        entered
    }

    fn acquire(&mut self, ask: &Ask<'_>) -> Answer {
        let answer = self.machine.acquire(ask, self.now, &mut self.told);
        self.check();
        answer
    }

    fn loose(&mut self, class: Class) -> Answer {
        self.acquire(&Ask { work: Work { class, ..Work::default() }, ..Ask::default() })
    }

    fn job(&mut self, job: JobId) -> Answer {
        self.acquire(&Ask { job: Some(job), ..Ask::default() })
    }

    /// Takes `n` connections for class normal, all of which must be free.
    fn take(&mut self, n: usize) -> Vec<ClaimId> {
        (0..n).map(|_| granted(self.loose(Class::Normal))).collect()
    }

    fn release(&mut self, claim: ClaimId) {
        self.machine.release(claim, self.now, &mut self.told);
        self.check();
    }

    fn apply(&mut self, change: Change) {
        self.machine.apply(change, self.now, &mut self.told);
        self.check();
    }

    /// Who got a connection since this was last asked.
    fn grants(&mut self) -> Vec<ClaimId> {
        let told = std::mem::take(&mut self.told);
        let granted = |effect| match effect {
            Effect::Granted(claim) => Some(claim),
            Effect::Refused(..) => None,
        };
        told.into_iter().filter_map(granted).collect()
    }

    fn check(&self) {
        assert_eq!(self.machine.invariants(), Vec::<&str>::new());
    }
}

fn granted(answer: Answer) -> ClaimId {
    match answer {
        Answer::Granted(claim) => claim,
        Answer::Parked(_) | Answer::Refused(_) => panic!("not granted but {answer:?}"),
    }
}

fn parked(answer: Answer) -> ClaimId {
    match answer {
        Answer::Parked(claim) => claim,
        Answer::Granted(_) | Answer::Refused(_) => panic!("not parked but {answer:?}"),
    }
}

fn refused(answer: Answer) -> Reason {
    match answer {
        Answer::Refused(refusal) => refusal.reason,
        Answer::Granted(_) | Answer::Parked(_) => panic!("not refused but {answer:?}"),
    }
}

fn work(class: Class) -> Work<'static> {
    Work { class, ..Work::default() }
}

fn gate(limit: u32, mode: &ModeCell) -> (Gate, Arc<parking_lot::Mutex<Vec<Signal>>>) {
    let told = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let to = Arc::clone(&told);
    let signals = Signals::new(move |signal| to.lock().push(signal));
    (Gate::new("main".into(), Policy::default(), limit, Clock::tokio(), mode.clone(), signals), told)
}

fn acting(limit: u32) -> Gate {
    gate(limit, &ModeCell::new(Mode::Act)).0
}

/// A future that is polled by hand, and only when it was woken.
struct Task<F> {
    future: F,
    woken: Arc<Woken>,
}

struct Woken(std::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::Release);
    }
}

fn task<F: Future + Unpin>(future: F) -> Task<F> {
    Task { future, woken: Arc::new(Woken(true.into())) }
}

impl<F: Future + Unpin> Task<F> {
    fn poll(&mut self) -> Option<F::Output> {
        if !self.woken.0.swap(false, std::sync::atomic::Ordering::AcqRel) {
            return None;
        }
        let waker = Arc::clone(&self.woken).into();
        match std::pin::Pin::new(&mut self.future).poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
