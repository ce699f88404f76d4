//! Services of tower around the query: what everybody has at hand.

use futures_util::future::BoxFuture;
use selfheal::clock::Tick;
use sqlx::PgPool;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

use super::{Contender, Fault, each, run};
use crate::{
    SLOTS,
    load::{Query, Shot},
};

/// A stack of layers around the query.
pub(crate) type Stack = BoxCloneSyncService<Query, (), BoxError>;

/// Every query goes through the stack.
pub(crate) struct Layered(pub(crate) Stack);

/// The concurrency of the pool's size; whoever exceeds it is refused at once.
pub(crate) fn limited(pool: PgPool) -> Layered {
    let stack = ServiceBuilder::new().load_shed().concurrency_limit(SLOTS as usize).service(query(pool));
    Layered(Stack::new(stack))
}

/// The innermost service: runs a query.
pub(crate) fn query(
    pool: PgPool,
) -> impl Service<Query, Response = (), Error = sqlx::Error, Future = BoxFuture<'static, Result<(), sqlx::Error>>>
+ Clone
+ Send
+ Sync
+ 'static {
    tower::service_fn(move |query: Query| {
        let pool = pool.clone();
        let done: BoxFuture<'static, Result<(), sqlx::Error>> =
            Box::pin(async move { run(&pool, query).await });
        done
    })
}

impl Contender for Layered {
    fn handle<'a>(&'a self, shot: &'a Shot, _: u32, _: Tick) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(each(shot, async |query| match self.0.clone().oneshot(query).await {
            Ok(()) => Ok(()),
            Err(error) => Err(fault(&*error)),
        }))
    }
}

/// The database's own error, if there is one within; else a layer has refused.
fn fault(error: &(dyn std::error::Error + 'static)) -> Fault {
    match error.downcast_ref::<sqlx::Error>() {
        Some(error) => error.into(),
        None => Fault::Refused,
    }
}
