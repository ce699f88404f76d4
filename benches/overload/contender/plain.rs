//! sqlx alone: its pool is the only queue.

use futures_util::future::BoxFuture;
use selfheal::clock::Tick;
use sqlx::PgPool;

use super::{Contender, Fault, each, run};
use crate::load::Shot;

pub(crate) struct Plain(pub(crate) PgPool);

impl Contender for Plain {
    fn handle<'a>(&'a self, shot: &'a Shot, _: u32, _: Tick) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(each(shot, async |query| Ok(run(&self.0, query).await?)))
    }
}
