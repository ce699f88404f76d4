//! The desk put together: pool, runtime and routes. This is all that a host has to write.

use std::time::Duration;

use axum::Router;
use selfheal::{Heal, config::Config, http::Failure, transition::States as _};

use super::{
    Faults,
    capture::{self, Guards},
    message::Message,
    report,
    routes::{self, Verbatim},
    store::{Desk, Guarded, Plain},
};

/// What the desk's pool is called in config, metrics and incidents.
pub(crate) const POOL: &str = "main";

/// The desk behind the runtime, and the runtime. `faults` strike behind the guard, as real ones do.
///
/// # Errors
///
/// If the runtime cannot start.
pub(crate) async fn healed(
    pool: &Guarded,
    config: Config,
    hold: Duration,
    faults: Option<&Faults>,
) -> Result<(Router, Heal), Box<dyn std::error::Error>> {
    let declared = config.transitions.contains_key(Message::MACHINE);
    let builder = Heal::builder().config(config);
    let builder = if declared { builder } else { builder.transitions::<Message>() };
    let builder = match pool {
        Guarded::Postgres(pool) => builder.pool(POOL, pool),
        Guarded::Sqlite(pool) => builder.pool(POOL, pool),
    };
    let captures = Guards::default();
    let builder = builder.batch(capture::OPERATION, capture::handler(pool, &captures));
    let (name, handler) = report::handler(pool, hold);
    let heal = builder.deferred(name, handler).start().await?;
    let desk = Desk::healed(pool.clone(), heal.clone(), hold, faults.cloned(), &captures)?;
    let routes = routes::router::<Failure>(desk.clone()).merge(routes::later(desk));
    let app = struck(routes, faults).layer(heal.layer());
    Ok((app.merge(heal.jobs_router()).merge(heal.admin_router()), heal))
}

/// The desk as a host without the runtime would have it.
pub(crate) fn plain(pool: &Plain, hold: Duration, faults: Option<&Faults>) -> Router {
    struck(routes::router::<Verbatim>(Desk::plain(pool.clone(), hold, faults.cloned())), faults)
}

fn struck(routes: Router, faults: Option<&Faults>) -> Router {
    match faults {
        Some(faults) => faults.strike(routes),
        None => routes,
    }
}
