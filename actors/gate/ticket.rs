//! Whose work this is, carried along with it.
//!
//! A ticket is made once for a request or job and found again by everything that is done for it, through a
//! task-local. A task that is spawned does not inherit it: whoever spawns one hands it on with
//! [`Ticket::scope`].

use std::{
    future::Future,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use crate::{
    clock::Tick,
    gate::{Meter, Work, membership::Membership},
    level::Class,
    signal::Name,
};

tokio::task_local! {
    static CURRENT: Ticket;
}

/// Class, user and deadline of one request or job. Clones are the same ticket.
#[derive(Clone, Debug)]
pub struct Ticket {
    inner: Arc<Inner>,
    meter: Option<Meter>,
}

#[derive(Debug, Default)]
struct Inner {
    work: Described,
    /// The gates that it has entered.
    entered: Mutex<Links>,
}

/// Nearly all tickets enter one gate, and that allocates nothing.
#[derive(Debug, Default)]
struct Links {
    first: Option<Link>,
    others: Vec<Link>,
}

#[derive(Clone, Debug, Default)]
struct Described {
    class: Class,
    user: Option<Name>,
    deadline: Option<Tick>,
    operation: Option<Name>,
    request_id: Option<Name>,
    queries: Option<u32>,
    attempt: u32,
    trace: Option<Name>,
}

/// One gate that a ticket has entered.
#[derive(Debug)]
enum Link {
    /// By [`Gate::enter`](crate::gate::Gate::enter): whoever called it decides for how long.
    Entered(usize, Weak<Membership>),
    /// By acquiring first: for as long as the ticket lives.
    Joined(usize, Arc<Membership>),
}

impl Link {
    fn holds(&self) -> bool {
        match self {
            Self::Entered(_, member) => member.strong_count() > 0,
            Self::Joined(..) => true,
        }
    }
}

impl Ticket {
    /// A ticket of `class`, of no user, and without a deadline.
    #[must_use]
    pub fn new(class: Class) -> Self {
        Self::of(Described { class, ..Described::default() })
    }

    /// The ticket of a request, in one piece: each `with_` asks whether it is the only one that has the ticket.
    #[must_use]
    pub fn of_request(
        class: Class,
        operation: Name,
        request_id: Name,
        deadline: Tick,
        user: Option<Name>,
    ) -> Self {
        let (operation, request_id, deadline) = (Some(operation), Some(request_id), Some(deadline));
        let work = Described { class, user, deadline, operation, request_id, ..Described::default() };
        Self::of(work)
    }

    /// The ticket of this user.
    #[must_use]
    pub fn with_user(self, user: impl Into<Name>) -> Self {
        self.with(|work| work.user = Some(user.into()))
    }

    /// A ticket whose answer is of no use after `deadline`. Without one the gate's patience bounds it.
    #[must_use]
    pub fn with_deadline(self, deadline: Tick) -> Self {
        self.with(|work| work.deadline = Some(deadline))
    }

    /// A ticket for this operation: a route or a kind of job, from a closed set, because it is learnt by name.
    #[must_use]
    pub fn with_operation(self, operation: impl Into<Name>) -> Self {
        self.with(|work| work.operation = Some(operation.into()))
    }

    /// A ticket whose refusals and leaks are told under this request id.
    #[must_use]
    pub fn with_request_id(self, id: Name) -> Self {
        self.with(|work| work.request_id = Some(id))
    }

    /// A ticket that will ask for this many connections. Otherwise it is learnt from the operation.
    #[must_use]
    pub fn with_queries(self, queries: u32) -> Self {
        self.with(|work| work.queries = Some(queries))
    }

    /// A ticket of work that was tried this often before.
    #[must_use]
    pub fn with_attempt(self, attempt: u32) -> Self {
        self.with(|work| work.attempt = attempt)
    }

    /// A ticket of work that is part of this W3C trace: a `traceparent`, as it came.
    #[must_use]
    pub fn with_trace(self, traceparent: Name) -> Self {
        self.with(|work| work.trace = Some(traceparent))
    }

    /// The same ticket, whose waits for connections a new meter counts: those of this one and the clones of it, not those
    /// of the ticket that it was.
    #[must_use]
    pub fn metered(self) -> (Self, Meter) {
        let meter = Meter::default();
        (Self { meter: Some(meter.clone()), ..self }, meter)
    }

    /// The ticket of the task that is running, if it has one.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Runs `work` with this ticket as [`Ticket::current`]. Dropping the future drops the work, as ever.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    /// Runs `work` with this ticket as [`Ticket::current`]: for a `poll` that is called outside of
    /// [`Ticket::scope`], as that of a body which is still streamed when its handler has returned.
    pub fn sync_scope<R>(&self, work: impl FnOnce() -> R) -> R {
        CURRENT.sync_scope(self.clone(), work)
    }

    /// Its class.
    #[must_use]
    pub fn class(&self) -> Class {
        self.inner.work.class
    }

    /// Its user.
    #[must_use]
    pub fn user(&self) -> Option<&Name> {
        self.inner.work.user.as_ref()
    }

    /// When its answer is of no use any more.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        self.inner.work.deadline
    }

    /// What it is for.
    #[must_use]
    pub fn operation(&self) -> Option<&Name> {
        self.inner.work.operation.as_ref()
    }

    /// The request that it belongs to.
    #[must_use]
    pub fn request_id(&self) -> Option<&Name> {
        self.inner.work.request_id.as_ref()
    }

    /// How many connections it will ask for, if that was said.
    #[must_use]
    pub fn queries(&self) -> Option<u32> {
        self.inner.work.queries
    }

    /// The W3C trace that it is part of: a `traceparent`.
    #[must_use]
    pub fn trace(&self) -> Option<&Name> {
        self.inner.work.trace.as_ref()
    }

    /// How often the work was tried before.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.inner.work.attempt
    }

    pub(super) const fn meter(&self) -> Option<&Meter> {
        self.meter.as_ref()
    }

    pub(super) fn work(&self) -> Work<'_> {
        let work = &self.inner.work;
        Work {
            class: work.class,
            user: work.user.as_ref(),
            deadline: work.deadline,
            operation: work.operation.as_ref(),
            queries: work.queries,
            attempt: work.attempt,
        }
    }

    /// Its membership of the gate at this address, while it lasts.
    pub(super) fn membership(&self, gate: usize) -> Option<Arc<Membership>> {
        let links = self.inner.entered.lock();
        links.first.iter().chain(&links.others).find_map(|link| match link {
            Link::Entered(at, member) if *at == gate => member.upgrade(),
            Link::Joined(at, member) if *at == gate => Some(Arc::clone(member)),
            Link::Entered(..) | Link::Joined(..) => None,
        })
    }

    /// Remembers a membership that somebody else holds.
    pub(super) fn entered(&self, gate: usize, member: &Arc<Membership>) {
        self.remember(Link::Entered(gate, Arc::downgrade(member)));
    }

    /// Holds a membership for as long as the ticket lives. If two tasks came first at once, one of them is given
    /// its own back, to drop once no lock is held.
    pub(super) fn joined(&self, gate: usize, member: Arc<Membership>) -> Option<Arc<Membership>> {
        if self.membership(gate).is_some() {
            return Some(member);
        }
        self.remember(Link::Joined(gate, member));
        None
    }

    fn remember(&self, link: Link) {
        let mut links = self.inner.entered.lock();
        links.others.retain(Link::holds);
        match &links.first {
            Some(first) if first.holds() => links.others.push(link),
            Some(_) | None => links.first = Some(link),
        }
    }

    /// A ticket with a change. Its clones do not change, and what it has entered stays with them.
    fn with(mut self, change: impl FnOnce(&mut Described)) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            change(&mut inner.work);
            return self;
        }
        let mut work = self.inner.work.clone();
        change(&mut work);
        Self { meter: self.meter, ..Self::of(work) }
    }

    fn of(work: Described) -> Self {
        Self { inner: Arc::new(Inner { work, entered: Mutex::default() }), meter: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ticket_is_found_by_everything_that_is_done_within_its_scope() {
        assert!(Ticket::current().is_none());
        let ticket = Ticket::new(Class::Critical).with_user("ann").with_queries(160);
        let found = ticket.clone().scope(async { Ticket::current() }).await.expect("it is in scope");
        assert_eq!((found.class(), found.queries()), (Class::Critical, Some(160)));
        assert_eq!(
            ticket.sync_scope(|| Ticket::current().and_then(|t| t.user().cloned())),
            Some("ann".into())
        );
        assert!(Ticket::current().is_none());
    }

    #[test]
    fn a_change_does_not_reach_the_clones() {
        let ticket = Ticket::new(Class::Normal).with_operation("/api/dashboard");
        let again = ticket.clone().with_attempt(1);
        assert_eq!((ticket.attempt(), again.attempt()), (0, 1));
        assert_eq!(again.operation(), ticket.operation());
    }
}
