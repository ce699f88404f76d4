//! Operations of one name, as a host begins them.

use std::{fmt, sync::Arc, time::Duration};

use futures_core::Stream;
use futures_util::stream;
use selfheal_actors::{
    batch_executor::{Batches, Machine, Operation, Plan, Progress, Refused, Report},
    error_class::ErrorClass,
    gate::Ticket,
    signal::Name,
};
use serde::Serialize;

use super::handler::{Registered, Whose};

/// Whose an operation is that is nobody's.
const NOBODY: &str = "anonymous";

/// The operations of one name, for one caller: [`Heal::batch`](crate::Heal::batch). Cheap to clone.
#[derive(Clone)]
pub struct Batch {
    batches: Batches,
    name: Name,
    registered: Option<Registered>,
    caller: Option<Name>,
    within: Option<Duration>,
}

impl Batch {
    pub(crate) fn new(batches: Batches, name: &str, registered: Option<Registered>) -> Self {
        let name = registered.as_ref().map_or_else(|| name.into(), |registered| Arc::clone(&registered.name));
        Self { batches, name, registered, caller: None, within: None }
    }

    /// Whose operation it is: a second one of the same caller joins the first. Default: the user of the current request's
    /// ticket, else "anonymous". 1 to 512 bytes.
    #[must_use]
    pub fn caller(self, caller: impl Into<Name>) -> Self {
        Self { caller: Some(caller.into()), ..self }
    }

    /// The caller waits no longer than this from when it is begun. Default: until the deadline of the current request's
    /// ticket; and never longer than `[batches.NAME]` says.
    #[must_use]
    pub fn within(self, span: Duration) -> Self {
        Self { within: Some(span), ..self }
    }

    /// What an operation of so many items would come to, begun now. `None`: nothing is registered under this name.
    #[must_use]
    pub fn plan(&self, items: u64) -> Option<Plan> {
        self.batches.read(|machine| machine.plan(&self.name, items))
    }

    /// Does the operation, or as much of it as its caller has time for: the report says how far it is, and the rest is
    /// done without them. If the caller has one running, it is that one's report, and `items` are not looked at.
    ///
    /// An operation that takes longer than the caller waits is written down before it is begun, in the database of its
    /// pool, and is then done to its end whatever happens to this process. Its items as JSON may have 256 KiB in all.
    ///
    /// **Cancel safety**: it goes on without the caller.
    ///
    /// # Errors
    /// [`Refused`]; where it says that it was not written down, nothing was begun, or what was done stays done and the
    /// rest is not promised.
    pub async fn run<T: Serialize + Sync>(&self, items: &[T]) -> Result<Report, Refused> {
        let Some(registered) = &self.registered else { return Err(Refused::Unknown) };
        let ticket = Ticket::current();
        let caller = self.caller_of(ticket.as_ref());
        let payload = serde_json::to_vec(items).map_err(|error| unfit(error.to_string()))?;
        let now = self.batches.now();
        let deadline = ticket.as_ref().and_then(Ticket::deadline);
        let deadline = self.within.map(|span| now + span).into_iter().chain(deadline).min();
        let (work, items) =
            registered.work(&payload, Whose { caller: Some(&caller), ticket }).map_err(unfit)?;
        let (kind, caller) = (Arc::clone(&self.name), (*caller).to_owned());
        let operation = Operation { kind, caller, items, payload, deadline, work };
        self.batches.run(operation, Arc::clone(&registered.journal)).await
    }

    /// How far the caller's operation is, now and whenever it gets on, until it is over. `None`: none runs in this
    /// process.
    #[must_use]
    pub fn progress(&self) -> Option<impl Stream<Item = Progress> + Send + 'static> {
        let caller = self.caller_of(Ticket::current().as_ref());
        let watched = self.batches.watch(&self.name, &caller)?;
        Some(stream::unfold(Some((watched, true)), |state| async move {
            let (mut watched, first) = state?;
            // Whoever shows it is gone once it is over, and what was shown last is still there.
            let alive = first || watched.changed().await.is_ok();
            let progress = *watched.borrow_and_update();
            alive.then(|| (progress, (!progress.over).then_some((watched, false))))
        }))
    }

    /// The caller's operation ends before its next part. What is done stays done; its job is dead. False: none runs in
    /// this process.
    pub fn cancel(&self) -> bool {
        self.batches.cancel(&self.name, &self.caller_of(Ticket::current().as_ref()))
    }

    /// Operations of this name that nobody waits for do nothing from now on, in this process. False: nothing is registered
    /// under this name.
    pub fn pause(&self) -> bool {
        self.batches.hold(&self.name, true)
    }

    /// They go on. False: nothing is registered under this name.
    pub fn resume(&self) -> bool {
        self.batches.hold(&self.name, false)
    }

    /// Waits until no operation of this name runs in this process. Cancel safe.
    pub async fn drained(&self) {
        self.batches.until(|machine: &Machine| !machine.runs(&self.name)).await;
    }

    fn caller_of(&self, ticket: Option<&Ticket>) -> Name {
        let user = || ticket.and_then(Ticket::user).cloned();
        self.caller.clone().or_else(user).unwrap_or_else(|| NOBODY.into())
    }
}

/// Its items are not what its handler takes.
const fn unfit(why: String) -> Refused {
    Refused::Failed { class: ErrorClass::Permanent, why }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("name", &self.name)
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}
