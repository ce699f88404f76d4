//! Work of one name, as a host defers it.

use std::{fmt, ops::DerefMut};

use selfheal_actors::{
    batch_executor::{
        Refused,
        journal::{JournalError, Key, KeyUntil, NewJob, Trouble},
    },
    error_class::ErrorClass,
    gate::Ticket,
    level::Class,
    signal::Name,
};
use serde::Serialize;
use sqlx::Connection;

use super::{
    accepted::{self, Accepted},
    handler::Registered,
};
use crate::store::{Dialect, Jobs, LONGEST};

/// Deferred work of one name, for one caller: [`Heal::deferred`](crate::Heal::deferred). Cheap to clone.
#[derive(Clone)]
pub struct Deferred {
    registered: Option<Registered>,
    caller: Option<Name>,
    key: Option<Name>,
    class: Class,
}

impl Deferred {
    pub(crate) const fn new(registered: Option<Registered>) -> Self {
        Self { registered, caller: None, key: None, class: Class::Background }
    }

    /// Who may ask about it, as the runtime's `http::Identity` names them. Default: the user of the
    /// current request's ticket; without one, nobody. 1 to 512 bytes.
    #[must_use]
    pub fn caller(self, caller: impl Into<Name>) -> Self {
        Self { caller: Some(caller.into()), ..self }
    }

    /// Under the same key the same caller has one job of this name: whoever defers it again, however often and to
    /// whichever process, is told of the first one, whatever the payload is by then, and nothing is enqueued. So it is for
    /// as long as that job is kept ([`Handler::keep`](super::Handler::keep), a week if it is dead). An equal key of another
    /// caller is another key; those who are nobody share theirs. Default: each call is a job of its own. 1 to 512 bytes.
    ///
    /// ```no_run
    /// # async fn example(heal: selfheal::Heal) -> Result<(), selfheal::batch_executor::Refused> {
    /// let report = heal.deferred("report").caller("ann").key("2026-11");
    /// let first = report.defer("2026-11").await?;
    /// assert_eq!(report.defer("2026-11").await?, first);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn key(self, key: impl Into<Name>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// Whose work it is: the better class goes first. Default: background.
    #[must_use]
    pub fn class(self, class: Class) -> Self {
        Self { class, ..self }
    }

    /// Accepts work for later: once this returns it is committed, and will be done whatever happens to this process. A
    /// payload has at most 256 KiB as JSON.
    ///
    /// If the connection ends before the database has answered, it is asked once more; so an error says that nothing was
    /// accepted, unless it is [unknown](Trouble::Unknown) even then.
    ///
    /// **Cancel safety**: dropped, it may or may not be accepted.
    ///
    /// # Errors
    /// [`Refused`]: nothing is registered under this name, its handler cannot read such a payload, or it could not be
    /// written down.
    pub async fn defer<T: Serialize + ?Sized>(&self, payload: &T) -> Result<Accepted, Refused> {
        let (registered, job, accepted) = self.job(payload)?;
        let accept = async || registered.journal.accept(vec![job.clone()]).await;
        let written = match accept().await {
            // Under its name it is the same job, if it was written the first time.
            Err(JournalError { trouble: Trouble::Unknown, .. }) => accept().await,
            written => written,
        };
        written.map_err(Refused::NotWritten)?;
        Ok(accepted)
    }

    /// The same within the transaction that is open on `tx`, of the database that the jobs are in: it is accepted if and
    /// when that commits, and nobody begins it before. `tx` is whatever leads to the connection: `&mut tx`, of a pool's
    /// transaction or of sqlx's, or `&mut conn` where `conn` is the `&mut` connection that a handler is given.
    ///
    /// **Cancel safety**: as that of any statement: dropped, roll back.
    ///
    /// # Errors
    /// As [`defer`](Self::defer). On PostgreSQL the transaction has then failed, too.
    pub async fn enqueue<C, T>(
        &self,
        tx: &mut impl DerefMut<Target = C>,
        payload: &T,
    ) -> Result<Accepted, Refused>
    where
        C: Connection,
        C::Database: Dialect<Connection = C>,
        T: Serialize + ?Sized,
    {
        let (registered, job, accepted) = self.job(payload)?;
        let Some(jobs) = registered.jobs.downcast_ref::<Jobs<C::Database>>() else {
            let other = format!("the jobs of {} are in another database", registered.name);
            return Err(Refused::NotWritten(JournalError::new(Trouble::Refused, other)));
        };
        jobs.enqueue(&mut **tx, &[job]).await.map_err(Refused::NotWritten)?;
        Ok(accepted)
    }

    fn job<T: Serialize + ?Sized>(&self, payload: &T) -> Result<(&Registered, NewJob, Accepted), Refused> {
        let Some(registered) = &self.registered else { return Err(Refused::Unknown) };
        let payload = serde_json::to_vec(payload).map_err(|error| unfit(error.to_string()))?;
        registered.check(&payload).map_err(unfit)?;
        let user = || Ticket::current().as_ref().and_then(Ticket::user).cloned();
        let caller = self.caller.clone().or_else(user);
        let name = self.name(&registered.name, caller.as_deref())?;
        let job = NewJob {
            key: Some(Key { text: name.clone(), until: KeyUntil::Forgotten }),
            owner: caller.map(|caller| caller.to_string()),
            class: self.class,
            keep: registered.keep(),
            ..NewJob::new(Name::clone(&registered.name), payload)
        };
        Ok((registered, job, Accepted::new(name)))
    }

    /// What its caller is to call the job.
    fn name(&self, operation: &str, caller: Option<&str>) -> Result<String, Refused> {
        match self.key.as_deref() {
            None => accepted::name().map_err(|error| unfit(format!("no name can be drawn: {error}"))),
            Some(key) if key.is_empty() || key.len() > LONGEST => {
                Err(unfit(format!("a key has {} bytes, and may have 1 to {LONGEST}", key.len())))
            }
            Some(key) => Ok(accepted::name_of(operation, caller, key)),
        }
    }
}

const fn unfit(why: String) -> Refused {
    Refused::Failed { class: ErrorClass::Permanent, why }
}

impl fmt::Debug for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferred")
            .field("name", &self.registered.as_ref().map(|registered| &registered.name))
            .field("caller", &self.caller)
            .field("key", &self.key)
            .field("class", &self.class)
            .finish_non_exhaustive()
    }
}
