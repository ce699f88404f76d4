//! One connection that writes for all who ask.
//!
//! Whoever asks while nobody writes begins to write: what it asked for, then all that came meanwhile, round by round,
//! until nobody waits. There is no task that could die between two bursts, and nothing lingers. In a round all who accept
//! share one statement, and so do all who settle; if that fails because of what one of them asked for, each is tried by
//! itself, so that nobody pays for another's mistake.
//!
//! A connection that has given an error is closed: it may be half way through something, or be to a server that has
//! become a standby. The next round opens another one. A writer has no other memory, so it recovers when the database
//! does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_core::future::BoxFuture;
use parking_lot::Mutex;
use selfheal_actors::batch_executor::journal::{Accepted, Fence, JournalError, NewJob, Settle, Trouble};
use sqlx::{ConnectOptions as _, Database};
use tokio::{runtime::Handle, sync::oneshot};

use super::{answers, dialect::Dialect, migrations, trouble};
use crate::db::ConnectOptionsOf;

/// Who waits beyond this is told that too much is going on.
const MOST_WAITING: usize = 16_384;
/// Jobs in one statement, at most, unless one caller alone has more.
const ROUND: usize = 4_096;
/// A database that does not take a connection within this is down.
const DIAL: Duration = Duration::from_secs(2);
/// One that does not answer within this is, too, and nobody knows what it has written.
const ANSWER: Duration = Duration::from_secs(10);

type Outcome<T> = Result<T, JournalError>;
type Answer<T> = oneshot::Sender<Outcome<T>>;

/// Something else to do with the connection. It answers by itself.
pub(super) type Task<DB> = Box<
    dyn for<'c> FnOnce(&'c mut <DB as Database>::Connection) -> BoxFuture<'c, Result<(), sqlx::Error>> + Send,
>;

enum Request<DB: Dialect> {
    Accept(Vec<NewJob>, Answer<Vec<Accepted>>),
    Settle(Vec<Settle>, Answer<Vec<Fence>>),
    Other(Task<DB>, Answer<()>),
}

/// Cheap to clone; clones write over the same connection.
pub(super) struct Writer<DB: Dialect>(Arc<Shared<DB>>);

struct Shared<DB: Dialect> {
    options: ConnectOptionsOf<DB>,
    /// Where the connection lives.
    runtime: Handle,
    /// The tables are known to be there.
    ready: AtomicBool,
    desk: Mutex<Desk<DB>>,
}

struct Desk<DB: Dialect> {
    waiting: Vec<Request<DB>>,
    /// Somebody writes.
    busy: bool,
    connection: Option<DB::Connection>,
}

impl<DB: Dialect> Writer<DB> {
    pub(super) fn new(options: ConnectOptionsOf<DB>, runtime: Handle) -> Self {
        let desk = Mutex::new(Desk { waiting: Vec::new(), busy: false, connection: None });
        Self(Arc::new(Shared { options, runtime, ready: AtomicBool::new(false), desk }))
    }

    pub(super) async fn accept(&self, jobs: Vec<NewJob>) -> Outcome<Vec<Accepted>> {
        self.ask(|answer| Request::Accept(jobs, answer)).await
    }

    pub(super) async fn settle(&self, ends: Vec<Settle>) -> Outcome<Vec<Fence>> {
        self.ask(|answer| Request::Settle(ends, answer)).await
    }

    /// Does something else with the connection.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        question: impl for<'c> FnOnce(&'c mut DB::Connection) -> BoxFuture<'c, Result<T, sqlx::Error>>
        + Send
        + 'static,
    ) -> Outcome<T> {
        let (found, answer) = oneshot::channel();
        let task: Task<DB> = Box::new(move |conn| {
            let asked = question(conn);
            Box::pin(async move {
                // Nobody may be left to hear it.
                let _ = found.send(asked.await?);
                Ok(())
            })
        });
        self.ask(|answer| Request::Other(task, answer)).await?;
        answer.await.map_err(|_| trouble::silent())
    }

    /// Whether the tables are known to be there.
    pub(super) fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Acquire)
    }

    /// Waits until all is written that was asked for before.
    pub(super) async fn rest(&self) -> Outcome<()> {
        if !self.0.desk.lock().busy {
            return Ok(());
        }
        self.with(|_| Box::pin(async { Ok(()) })).await
    }

    /// Sees to it that the tables are there.
    pub(super) async fn ready(&self) -> Outcome<()> {
        if self.0.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        self.with(|_| Box::pin(async { Ok(()) })).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request<DB>) -> Outcome<T> {
        let (answer, answered) = oneshot::channel();
        if self.0.takes(request(answer))? {
            begin(Arc::clone(&self.0));
        }
        answered.await.unwrap_or_else(|_| Err(trouble::silent()))
    }
}

/// Begins to write, here and now, and leaves what is left of it to a task that no caller can drop.
fn begin<DB: Dialect>(shared: Arc<Shared<DB>>) {
    let runtime = shared.runtime.clone();
    let mut task: BoxFuture<'static, ()> = Box::pin(write(shared));
    let inside = runtime.enter();
    let polled = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    drop(inside);
    if polled == Poll::Pending {
        runtime.spawn(task);
    }
}

/// Writes until nobody waits.
async fn write<DB: Dialect>(shared: Arc<Shared<DB>>) {
    let at_work = AtWork(&shared);
    let mut connection = shared.desk.lock().connection.take();
    loop {
        let round = {
            let mut desk = shared.desk.lock();
            if desk.waiting.is_empty() {
                desk.connection = connection;
                desk.busy = false;
                break;
            }
            Round::of(std::mem::take(&mut desk.waiting))
        };
        connection = shared.serve(connection, round).await;
    }
    std::mem::forget(at_work);
}

/// If whoever writes is gone without an end, nobody waits for them for ever.
struct AtWork<'a, DB: Dialect>(&'a Shared<DB>);

impl<DB: Dialect> Drop for AtWork<'_, DB> {
    fn drop(&mut self) {
        let mut desk = self.0.desk.lock();
        desk.busy = false;
        desk.waiting.clear();
    }
}

/// All who waited at one moment, by what they want.
struct Round<DB: Dialect> {
    accepts: Vec<(Vec<NewJob>, Answer<Vec<Accepted>>)>,
    settles: Vec<(Vec<Settle>, Answer<Vec<Fence>>)>,
    others: Vec<(Task<DB>, Answer<()>)>,
}

impl<DB: Dialect> Round<DB> {
    fn of(waiting: Vec<Request<DB>>) -> Self {
        let mut round = Self { accepts: Vec::new(), settles: Vec::new(), others: Vec::new() };
        for request in waiting {
            match request {
                Request::Accept(jobs, answer) => round.accepts.push((jobs, answer)),
                Request::Settle(ends, answer) => round.settles.push((ends, answer)),
                Request::Other(task, answer) => round.others.push((task, answer)),
            }
        }
        round
    }

    fn refuse(self, error: &JournalError) {
        // Nobody may be left to hear it.
        self.accepts.into_iter().for_each(|(_, answer)| drop(answer.send(Err(error.clone()))));
        self.settles.into_iter().for_each(|(_, answer)| drop(answer.send(Err(error.clone()))));
        self.others.into_iter().for_each(|(_, answer)| drop(answer.send(Err(error.clone()))));
    }
}

impl<DB: Dialect> Shared<DB> {
    /// Puts a request with those that wait. Says whether somebody has to begin to write.
    fn takes(&self, request: Request<DB>) -> Outcome<bool> {
        let mut desk = self.desk.lock();
        if desk.waiting.len() >= MOST_WAITING {
            return Err(JournalError { trouble: Trouble::Busy, source: None });
        }
        desk.waiting.push(request);
        Ok(!std::mem::replace(&mut desk.busy, true))
    }

    /// Does all of a round; gives the connection back if it is still sound.
    async fn serve(&self, connection: Option<DB::Connection>, round: Round<DB>) -> Option<DB::Connection> {
        let mut line = Line { shared: self, connection };
        if let Err(error) = line.open().await {
            round.refuse(&error);
            return None;
        }
        line.accept_all(round.accepts).await;
        line.settle_all(round.settles).await;
        for (task, answer) in round.others {
            let outcome = line.run(task).await;
            let _ = answer.send(outcome);
        }
        line.connection
    }

    /// A connection to tables that are there.
    async fn dial(&self) -> Outcome<DB::Connection> {
        let dial = tokio::time::timeout(DIAL, self.options.connect()).await;
        let dial = dial.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
        let mut connection = dial.map_err(trouble::of_connecting)?;
        if !self.ready.load(Ordering::Acquire) {
            match migrations::migrate::<DB>(&mut connection).await {
                Ok(_) => self.ready.store(true, Ordering::Release),
                Err(migrations::MigrateError::Sqlx(error)) => {
                    let error = trouble::of_statement(error);
                    tracing::error!(target: "selfheal", %error, "The tables of durable work are not there; a role that may create them runs `selfheal migrate`");
                    return Err(error);
                }
                Err(error @ migrations::MigrateError::TooNew { .. }) => {
                    return Err(trouble::refused(error.to_string()));
                }
            }
        }
        Ok(connection)
    }
}

/// A connection that is opened when it is needed.
struct Line<'a, DB: Dialect> {
    shared: &'a Shared<DB>,
    connection: Option<DB::Connection>,
}

impl<DB: Dialect> Line<'_, DB> {
    async fn open(&mut self) -> Outcome<&mut DB::Connection> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.shared.dial().await?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Asks something, and closes the connection if that fails.
    async fn ask<T>(
        &mut self,
        question: impl for<'c> AsyncFnOnce(&'c mut DB::Connection) -> Result<T, sqlx::Error>,
    ) -> Outcome<T> {
        let connection = self.open().await?;
        let outcome = match tokio::time::timeout(ANSWER, question(connection)).await {
            Ok(outcome) => outcome.map_err(trouble::of_statement),
            Err(_) => Err(trouble::silent()),
        };
        if let Err(error) = &outcome {
            self.connection = None;
            // The tables may be gone: a database that was set back has lost them.
            if error.trouble == Trouble::Refused {
                self.shared.ready.store(false, Ordering::Release);
            }
        }
        outcome
    }

    async fn run(&mut self, task: Task<DB>) -> Outcome<()> {
        self.ask(async move |conn| task(conn).await).await
    }

    async fn accept_all(&mut self, mut waiting: Vec<(Vec<NewJob>, Answer<Vec<Accepted>>)>) {
        while !waiting.is_empty() {
            let rest = waiting.split_off(together(&waiting));
            let set = std::mem::replace(&mut waiting, rest);
            let (lists, askers): (Vec<_>, Vec<_>) = set.into_iter().unzip();
            let sizes: Vec<_> = lists.iter().map(Vec::len).collect();
            let jobs: Vec<_> = lists.into_iter().flatten().collect();
            let outcome = self.accept(&jobs).await;
            self.answer_accepted(outcome, &jobs, &sizes, askers).await;
        }
    }

    async fn answer_accepted(
        &mut self,
        outcome: Outcome<Vec<Accepted>>,
        jobs: &[NewJob],
        sizes: &[usize],
        askers: Vec<Answer<Vec<Accepted>>>,
    ) {
        let alone = askers.len() == 1;
        let (mut from, mut accepted) = (0, outcome);
        for (answer, size) in askers.into_iter().zip(sizes) {
            let to = from + size;
            let own = match &mut accepted {
                Ok(all) => Ok(all[from..to].to_vec()),
                Err(error) if error.trouble == Trouble::Refused && !alone => {
                    self.accept(&jobs[from..to]).await
                }
                Err(error) => Err(error.clone()),
            };
            let _ = answer.send(own);
            from = to;
        }
    }

    async fn accept(&mut self, jobs: &[NewJob]) -> Outcome<Vec<Accepted>> {
        let answers = self.ask(async move |conn| answers::accept::<DB>(conn, jobs).await).await?;
        // A key that is taken and let go all the time: somebody else is at it.
        let busy = || JournalError { trouble: Trouble::Busy, source: None };
        answers.into_iter().collect::<Option<Vec<_>>>().ok_or_else(busy)
    }

    async fn settle_all(&mut self, mut waiting: Vec<(Vec<Settle>, Answer<Vec<Fence>>)>) {
        while !waiting.is_empty() {
            let rest = waiting.split_off(together(&waiting));
            let set = std::mem::replace(&mut waiting, rest);
            let (lists, askers): (Vec<_>, Vec<_>) = set.into_iter().unzip();
            let sizes: Vec<_> = lists.iter().map(Vec::len).collect();
            let ends: Vec<_> = lists.into_iter().flatten().collect();
            let ends = &ends[..];
            let outcome = self.ask(async move |conn| answers::settle::<DB>(conn, ends).await).await;
            let mut from = 0;
            for (answer, size) in askers.into_iter().zip(sizes) {
                let to = from + size;
                let own = outcome.as_ref().map(|all| all[from..to].to_vec()).map_err(JournalError::clone);
                let _ = answer.send(own);
                from = to;
            }
        }
    }
}

/// How many of the first lists fit into one statement; at least one.
fn together<T, A>(waiting: &[(Vec<T>, A)]) -> usize {
    let mut jobs = 0;
    let fits = waiting.iter().take_while(|(list, _)| {
        jobs += list.len();
        jobs <= ROUND
    });
    fits.count().max(1)
}

impl<DB: Dialect> Clone for Writer<DB> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
