//! The first incident: a dashboard exhausts the connection pool.
//!
//! Plain, the drill runs as many services as it takes to show what the incident's users saw. On PostgreSQL that
//! is two, because one pool of 100 fits a server that accepts 100, and a second one does not: the server says
//! "too many clients already", which the pool keeps to itself until its own timeout. On SQLite nothing but the
//! pool itself can run out, and one service does. Healed, it is one service, whose gate knows what the server
//! has left.

use std::{error::Error, time::Duration};

use selfheal::{
    clock::{Clock, Tick},
    config::{Config, Source},
    gate::{Histogram, Stats, Tally},
    level::Mode,
};

use super::{
    comparison::Told,
    figures::{self, Callers, Figures, With, Without, from_click, has_failed, is_reduced},
    lab::Lab,
    load::{self, Fate, LEAD},
    service::{self, HOLD, Service},
    watch::{Seen, Watch},
};
use crate::{
    desk::{Guarded, POOL_MAX, app},
    log::Ear,
    serve::CONFIG,
};

/// The words by which the runtime says that a level was reached, and that all is over.
const WARNING: &str = "Warning threshold";
const CRITICAL: &str = "CRITICAL: Connection pool";
const RECOVERED: &str = "System fully recovered";
/// After the load the healed service has this long to recover.
const RECOVER_WITHIN: Duration = Duration::from_secs(10);

/// What a drill is run with.
pub(super) struct Setting {
    pub(super) seed: u64,
    pub(super) mode: Mode,
    pub(super) ear: Ear,
    pub(super) clock: Clock,
}

/// Both runs, one after the other, on the same database.
pub(super) async fn replay(lab: &mut Lab, setting: &Setting) -> Result<Told<Figures>, Box<dyn Error>> {
    let clicked = || setting.clock.wall() + LEAD;
    let database = lab.version().await?;
    let began_without = clicked();
    let without = without(lab, setting).await?;
    lab.wipe().await?;
    let began_with = clicked();
    let (with, said) = with(lab, setting).await?;
    let missed = figures::missed(&without, &with);
    let figures = Figures::of("pool", database, (without, with), missed);
    Ok(Told { figures, began_without, began_with, said })
}

/// The plain run.
async fn without(lab: &mut Lab, setting: &Setting) -> Result<Without, Box<dyn Error>> {
    let clock = &setting.clock;
    let observer = lab.observer().await?;
    let (mut pools, mut services) = (Vec::new(), Vec::new());
    for _ in 0..if observer.is_some() { 2 } else { 1 } {
        let pool = service::plain_pool(lab.url())?;
        service::warm_plain(&pool).await?;
        services.push(Service::start(app::plain(&pool, HOLD, None)).await?);
        pools.push(pool);
    }
    let watch = match observer {
        Some(observer) => {
            let mut watch = Watch::server(observer, clock.clone()).await?;
            watch.knock(lab.url());
            watch
        }
        None => {
            let watched = pools.clone();
            Watch::pool(move || watched.iter().map(service::in_use).sum(), POOL_MAX, clock.clone())
        }
    };
    let urls: Vec<_> = services.iter().map(|service| service.url.clone()).collect();
    let start = clock.now();
    let fates = load::fire(load::schedule(setting.seed), &urls, start, clock).await;
    let seen = watch.stop();
    for service in services {
        service.stop().await?;
    }
    for pool in &pools {
        service::close(pool).await;
    }
    let callers = Callers::count(&fates, lab.doubled().await?);
    Ok(figures_without(pools.len(), callers, &fates, seen, start))
}

fn figures_without(services: usize, callers: Callers, fates: &[Fate], seen: Seen, start: Tick) -> Without {
    let failures = || fates.iter().filter(|fate| has_failed(fate)).map(Fate::known_at);
    Without {
        services,
        callers,
        cause: seen.cause,
        peak_in_use: seen.peak,
        limit: seen.limit,
        exhausted_ms: seen.exhausted.map(|at| from_click(at.since(start))),
        first_failure_ms: failures().min().map(from_click),
        last_failure_ms: failures().max().map(from_click),
    }
}

/// The healed run, and what the runtime said meanwhile.
async fn with(lab: &mut Lab, setting: &Setting) -> Result<(With, Vec<(i64, String)>), Box<dyn Error>> {
    let Setting { clock, ear, .. } = setting;
    let pool = Guarded::open(lab.url()).await?;
    service::warm_guarded(&pool).await?;
    let mut config = Config::load(&Source::text("config/selfheal.toml", CONFIG))?;
    config.runtime.mode = setting.mode;
    let (app, heal) = app::healed(&pool, config, HOLD, None).await?;
    let gate = heal.gate(app::POOL).ok_or("the runtime has lost its pool")?;
    let service = Service::start(app).await?;
    let watched = gate.clone();
    let watch = Watch::pool(move || watched.stats().real_in_use, gate.stats().limit, clock.clone());
    let start = clock.now();
    let fates =
        load::fire(load::schedule(setting.seed), std::slice::from_ref(&service.url), start, clock).await;
    wait_for_recovery(setting, start).await;
    let (stats, seen) = (gate.stats(), watch.stop());
    service.stop().await?;
    heal.shutdown().await;
    pool.close().await;
    let callers = Callers::count(&fates, lab.doubled().await?);
    let said: Vec<_> =
        ear.since(start).into_iter().map(|(at, words)| (from_click(at.since(start)), words)).collect();
    Ok((figures_with(setting.mode, callers, &fates, &stats, &seen, &said), said))
}

/// An incident that was opened is seen to its end.
async fn wait_for_recovery(Setting { clock, ear, .. }: &Setting, start: Tick) {
    let load_ended = clock.now();
    while ear.has_heard(WARNING, start)
        && !ear.has_heard(RECOVERED, start)
        && clock.now().since(load_ended) < RECOVER_WITHIN
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn figures_with(
    mode: Mode,
    callers: Callers,
    fates: &[Fate],
    stats: &Stats,
    seen: &Seen,
    said: &[(i64, String)],
) -> With {
    let refused = || fates.iter().filter(|fate| fate.is_refused());
    let heard = |words: &str| said.iter().find(|(_, line)| line.contains(words)).map(|(at, _)| *at);
    let tally = if mode == Mode::Observe { &stats.would } else { &stats.acted };
    let drained = waited(tally);
    With {
        mode: mode.name(),
        callers,
        refused: refused().count(),
        reduced_dashboards: fates.iter().filter(|fate| is_reduced(fate)).count(),
        deferred: drained + tally.abandoned,
        drained,
        would_refuse: stats.would.refused.total(),
        peak_in_use: seen.peak,
        limit: stats.limit,
        first_shed_ms: refused().map(Fate::known_at).min().map(from_click),
        warning_ms: heard(WARNING),
        critical_ms: heard(CRITICAL),
        recovered_ms: heard(RECOVERED),
    }
}

/// Those that were not given a connection at once but got one: all above the first bucket, half a millisecond.
fn waited(tally: &Tally) -> u64 {
    let above = |wait: &Histogram| wait.counts()[1..].iter().sum::<u64>();
    tally.wait.iter().map(above).sum()
}
