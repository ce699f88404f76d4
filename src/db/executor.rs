//! `sqlx::query(…).fetch_all(&pool)`, guarded.
//!
//! `describe` is part of sqlx's trait if sqlx is built with `macros`. This crate always builds it so: features are
//! unified over a whole build, and without it a host that turns them on could not compile us.

use std::{panic::Location, sync::Arc};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{FutureExt, TryStreamExt, future, stream};
use sqlx::{Describe, Either, Error, Execute, Executor, SqlStr};

use super::{
    backend::{Backend, Step},
    call::Run,
    pool::HealPool,
    statement::Owned,
};

/// Each call waits for its turn when it is polled, as the ticket of the task that polls it.
///
/// **Cancel safety**: a dropped call has either left the queue, or its query goes on to its end at the server,
/// and its connection is free for others only then. What it wrote is written.
///
/// # Errors
/// A refusal of the gate is an I/O error of kind `ResourceBusy`; see [`refusal`](super::refusal).
impl<'p, DB: Backend> Executor<'p> for &'p HealPool<DB> {
    type Database = DB;

    #[track_caller]
    fn execute<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<DB::QueryResult, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        self.first(query, |conn, query| {
            let results = DB::fetch_many(conn, query).try_filter_map(|step| future::ok(Either::left(step)));
            results.try_collect().boxed()
        })
    }

    #[track_caller]
    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step<DB>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        match Owned::take(query) {
            Ok(query) => self.clone().stream(Location::caller(), query),
            Err(error) => Box::pin(stream::once(future::err(error))),
        }
    }

    #[track_caller]
    fn fetch_all<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Vec<DB::Row>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        self.first(query, |conn, query| {
            let rows = DB::fetch_many(conn, query).try_filter_map(|step| future::ok(Either::right(step)));
            rows.try_collect().boxed()
        })
    }

    #[track_caller]
    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<DB::Row>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        self.first(query, DB::fetch_optional)
    }

    #[track_caller]
    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [DB::TypeInfo],
    ) -> BoxFuture<'e, Result<DB::Statement, Error>>
    where
        'p: 'e,
    {
        let parameters = parameters.to_vec();
        let call = self.clone().call(Location::caller(), move |lease| {
            async move {
                let shared = Arc::clone(lease.shared());
                shared.answered(DB::prepare(&mut lease.connection, sql, &parameters)).await?
            }
            .boxed()
        });
        call.boxed()
    }

    #[doc(hidden)]
    #[track_caller]
    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<DB>, Error>>
    where
        'p: 'e,
    {
        let call = self.clone().call(Location::caller(), move |lease| {
            async move {
                let shared = Arc::clone(lease.shared());
                shared.answered(DB::describe(&mut lease.connection, sql)).await?
            }
            .boxed()
        });
        call.boxed()
    }
}

impl<DB: Backend> HealPool<DB> {
    /// Runs a statement whose outcome comes in one piece.
    #[track_caller]
    fn first<'q, T: Send + 'static>(
        &self,
        query: impl Execute<'q, DB>,
        run: Run<DB, T>,
    ) -> BoxFuture<'static, Result<T, Error>> {
        match Owned::take(query) {
            Ok(query) => {
                let call =
                    self.clone().call(Location::caller(), move |lease| lease.first(query, run).boxed());
                call.boxed()
            }
            Err(error) => Box::pin(future::err(error)),
        }
    }
}
