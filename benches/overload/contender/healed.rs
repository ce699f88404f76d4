//! selfheal, as a host uses it: the runtime runs, each request has a ticket and enters the gate once, as the HTTP layer
//! does it, and its queries go through the guarded pool.

use std::error::Error;

use futures_util::future::BoxFuture;
use selfheal::{
    Heal, PgHealPool,
    clock::Tick,
    config::{Config, Source},
    gate::{Gate, Ticket},
    level::{Class, Mode},
};

use super::{Contender, Fault, GateSeen, each, run, warm};
use crate::{
    SLOTS,
    fixture::Fixture,
    load::{Shot, Work},
};

const POOL: &str = "main";
pub(crate) const STATIC: &str = "[pools.main]\nreserve = \"static\"\n";
pub(crate) const OBSERVE: &str = "[runtime]\nmode = \"observe\"\n";

pub(crate) struct Healed {
    pool: PgHealPool,
    gate: Gate,
    heal: Heal,
}

impl Healed {
    pub(crate) async fn start(
        fixture: &Fixture,
        open: u32,
        config: &str,
        ends: bool,
    ) -> Result<Self, Box<dyn Error>> {
        let pool = PgHealPool::builder().max(SLOTS).end_at_deadline(ends).connect(&fixture.url()).await?;
        warm(pool.unguarded(), open).await?;
        let config = Config::load(&Source::text("overload.toml", config))?;
        let heal = Heal::builder().config(config).pool(POOL, &pool).start().await?;
        let gate = heal.gate(POOL).ok_or("the runtime has lost its pool")?;
        Ok(Self { pool, gate, heal })
    }

    fn ticket(&self, shot: &Shot, attempt: u32, deadline: Tick) -> Ticket {
        let ticket = Ticket::new(shot.class)
            .with_user(shot.user.clone())
            .with_deadline(deadline)
            .with_attempt(attempt);
        match &shot.work {
            Work::Single(query) => ticket.with_operation(query.operation),
            Work::Dashboard { queries, .. } => {
                ticket.with_operation("dashboard").with_queries(queries.len() as u32)
            }
        }
    }
}

impl Contender for Healed {
    fn handle<'a>(
        &'a self,
        shot: &'a Shot,
        attempt: u32,
        deadline: Tick,
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let ticket = self.ticket(shot, attempt, deadline);
            let _inside = self.gate.enter(&ticket).map_err(|_| Fault::Refused)?;
            let pool = self.pool.with(ticket);
            each(shot, async |query| Ok(run(&pool, query).await?)).await
        })
    }

    /// In mode `observe` nobody waits at the gate.
    fn gate(&self) -> Option<GateSeen> {
        let (stats, level) = (self.gate.stats(), self.heal.level(POOL)?);
        let critical_waits = stats.acted.wait[Class::Critical.index()];
        (stats.mode == Mode::Act).then_some(GateSeen { critical_waits, level })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.heal.shutdown())
    }
}
