//! The future of a connection, and the connection's permit.

use std::{
    fmt,
    future::Future,
    panic::Location,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Sleep;

use crate::{
    clock::Tick,
    gate::{
        Answer, Ask, ClaimId, Refusal, Ticket, Work, core::Core, membership::Membership, meter::Metered,
        shared::Shared, slot::Slot,
    },
    level::Class,
    signal::Name,
};

/// What a connection is wanted for, and where in the code.
#[derive(Clone, Debug)]
pub struct Hold {
    /// What it is wanted for, if that is more than the ticket says. From a closed set: it is learnt by name.
    pub operation: Option<Name>,
    /// Where in the code it is taken.
    pub site: &'static Location<'static>,
    /// The same task holds a connection of this pool already. Such a one goes first, may use the nested reserve,
    /// and gives up after a second rather than be part of a deadlock.
    pub nested: bool,
}

impl Hold {
    /// A connection that is taken by the caller of this function, for what the ticket says.
    #[must_use]
    #[track_caller]
    pub const fn here() -> Self {
        Self { operation: None, site: Location::caller(), nested: false }
    }
}

/// A connection that was asked for: a future of a [`Permit`], or a [`Refusal`].
///
/// Nothing is asked for before it is polled. It can be dropped at any moment: it waits no longer, and a
/// connection that was granted meanwhile goes to the next.
#[must_use = "nothing is asked for before it is polled"]
pub struct Acquire(State);

enum State {
    Start { shared: Arc<Shared>, ticket: Option<Ticket>, hold: Hold },
    Parked(Parked),
    Done,
}

struct Parked {
    claim: Claimed,
    slot: Arc<Slot>,
    since: Tick,
    class: Class,
    deadline: Option<Tick>,
    sleep: Option<(Tick, Pin<Box<Sleep>>)>,
}

/// A claim that ends with this value.
struct Claimed {
    shared: Arc<Shared>,
    claim: ClaimId,
    ends: Ends,
    /// Where somebody counts how long its work waits.
    metered: Option<Metered>,
}

/// How a claim ends when its value is dropped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Abandoned,
    Released,
    Already,
}

/// The right to use one connection. It is given back when this is dropped, which never blocks for long and never
/// panics.
#[must_use = "the connection is given back when this is dropped"]
pub struct Permit {
    claim: Claimed,
    waited: Duration,
    class: Class,
    deadline: Option<Tick>,
}

impl Permit {
    /// How long its holder waited for it.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }

    /// The class of the work that it was granted to.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// For how long an answer is still of use to its holder; `None` if nobody has said.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.since(self.claim.shared.clock.now()))
    }

    /// The connection itself is there only now, so that its hold begins now. While the gate only watches, the
    /// pool behind it may have let the holder wait; told of that, the gate does not take the wait for work.
    pub fn connected(&self) {
        let claim = self.claim.claim;
        self.claim.shared.run(|core, now| core.connected(claim, now));
    }
}

impl Acquire {
    pub(super) const fn new(shared: Arc<Shared>, ticket: Option<Ticket>, hold: Hold) -> Self {
        Self(State::Start { shared, ticket, hold })
    }
}

impl Future for Acquire {
    type Output = Result<Permit, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let parked = match std::mem::replace(&mut self.0, State::Done) {
            State::Start { shared, ticket, hold } => match ask(&shared, ticket.as_ref(), &hold) {
                Ok(Asked::Granted(permit)) => return Poll::Ready(Ok(permit)),
                Ok(Asked::Parked(parked)) => parked,
                Err(refusal) => return Poll::Ready(Err(refusal)),
            },
            State::Parked(parked) => parked,
            State::Done => return Poll::Pending,
        };
        match parked.poll(cx) {
            Ok(outcome) => Poll::Ready(outcome),
            Err(parked) => {
                self.0 = State::Parked(parked);
                Poll::Pending
            }
        }
    }
}

enum Asked {
    Granted(Permit),
    Parked(Parked),
}

fn ask(shared: &Arc<Shared>, ticket: Option<&Ticket>, hold: &Hold) -> Result<Asked, Refusal> {
    let gate = Arc::as_ptr(shared) as usize;
    let member = ticket.and_then(|ticket| ticket.membership(gate));
    let (answer, slot, joined, since) = shared.run(|core, now| {
        let work = ticket.map_or_else(|| ticketless(core), Ticket::work);
        let known = member.as_ref().map(|member| member.job());
        // Work that nobody let in began before anybody asked: it is let in now, and not decided about.
        let joined = ticket.filter(|_| known.is_none()).map(|_| core.join(&work, now));
        let (operation, nested) = (hold.operation.as_ref(), hold.nested);
        let ask = Ask { job: known.or(joined), work, operation, nested };
        let (answer, slot) = core.acquire(&ask, hold, now);
        (answer, slot, joined, now)
    });
    if let (Some(ticket), Some(job)) = (ticket, joined) {
        drop(ticket.joined(gate, Arc::new(Membership::new(Arc::clone(shared), job))));
    }
    let (class, deadline) = ticket.map_or((Class::default(), None), |of| (of.class(), of.deadline()));
    let meter = ticket.and_then(Ticket::meter);
    let claimed = |claim, ends| {
        let count = if ends == Ends::Abandoned { Metered::waits } else { Metered::holds };
        let metered = meter.map(|meter| count(meter, since));
        Claimed { shared: Arc::clone(shared), claim, ends, metered }
    };
    match (answer, slot) {
        (Answer::Parked(claim), Some(slot)) => {
            let claim = claimed(claim, Ends::Abandoned);
            Ok(Asked::Parked(Parked { claim, slot, since, class, deadline, sleep: None }))
        }
        (Answer::Granted(claim) | Answer::Parked(claim), _) => {
            let claim = claimed(claim, Ends::Released);
            Ok(Asked::Granted(Permit { claim, waited: Duration::ZERO, class, deadline }))
        }
        (Answer::Refused(refusal), _) => Err(refusal),
    }
}

fn ticketless(core: &mut Core) -> Work<'static> {
    core.ticketless += 1;
    Work::default()
}

impl Parked {
    /// How it ended, or itself if it has not.
    fn poll(mut self, cx: &mut Context<'_>) -> Result<Result<Permit, Refusal>, Self> {
        loop {
            match self.slot.outcome(cx.waker()) {
                Some(Ok(())) => return Ok(Ok(self.permit())),
                Some(Err(refusal)) => {
                    self.claim.ends = Ends::Already;
                    return Ok(Err(refusal));
                }
                None if self.sleeps(cx) => return Err(self),
                None => self.claim.shared.run(|core, now| core.alarm(self.claim.claim, now)),
            }
        }
    }

    /// Whether there is nothing to do before the alarm. Outside of tokio there is no timer: then the gate's
    /// other events and its tick are what ends the wait.
    fn sleeps(&mut self, cx: &mut Context<'_>) -> bool {
        if tokio::runtime::Handle::try_current().is_err() {
            return true;
        }
        let alarm = self.slot.alarm();
        if self.sleep.as_ref().is_none_or(|&(at, _)| at != alarm) {
            let wait = alarm.since(self.claim.shared.clock.now());
            self.sleep = Some((alarm, Box::pin(tokio::time::sleep(wait))));
        }
        let Some((_, sleep)) = self.sleep.as_mut() else { return true };
        if sleep.as_mut().poll(cx).is_pending() {
            return true;
        }
        self.sleep = None;
        false
    }

    fn permit(mut self) -> Permit {
        let now = self.claim.shared.clock.now();
        let waited = now.since(self.since);
        self.claim.ends = Ends::Released;
        if let Some(metered) = &mut self.claim.metered {
            metered.granted(now);
        }
        Permit { claim: self.claim, waited, class: self.class, deadline: self.deadline }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let claim = self.claim;
        if let Some(metered) = self.metered.take() {
            metered.end(self.shared.clock.now());
        }
        match self.ends {
            Ends::Abandoned => self.shared.run(|core, now| core.abandon(claim, now)),
            Ends::Released => self.shared.run(|core, now| core.release(claim, now)),
            Ends::Already => {}
        }
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Start { .. } => "Acquire(not asked)",
            State::Parked(_) => "Acquire(parked)",
            State::Done => "Acquire(done)",
        })
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit({:?})", self.claim.claim)
    }
}
