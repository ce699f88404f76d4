//! The fourth incident: API calls fail, with "too many clients", with a page, with nothing at all.
//!
//! The same callers and the same planted faults twice. Plain, a caller makes one call and can only show what came
//! back. Healed, the service tries again, gives what it last had, or says when to come back, and the caller does as
//! the frontend's helper does: it honours `retryAfter`.
//!
//! Where the incident's story has the circuit open after two failed attempts its rule says *more than five failures,
//! more than half of the calls*: the rule wins, and the drill measures it. The circuit stays open for two seconds
//! here instead of thirty, and a call may hang for one instead of ten, so that nobody waits for the end.

use std::{error::Error, sync::Arc, time::Duration};

use axum::http::Method;
use selfheal::{
    Heal,
    breaker::{self, Breaker},
    circuit::Circuit,
    clock::Tick,
    config::{Config, Source},
};
use tokio::task::JoinSet;

use super::{
    api_caller::{Called, Caller},
    api_figures::{Figures, Group, Scenario, With, Without, missed},
    comparison::Told,
    lab::Lab,
    pool::Setting,
    service::{self, Service},
};
use crate::{
    desk::{
        Faults, Guarded, app,
        faults::Mode::{self, Error as Fails, Hang, Html},
    },
    serve::CONFIG,
    web::Web,
};

/// The route of the incident.
pub(crate) const ASSISTANCE: &str = "/api/manager/assistance";
/// The database has too many clients for this long.
const EXHAUSTED_FOR: Duration = Duration::from_millis(2_600);
/// The other users come this long after the first one.
const OTHERS_AFTER: Duration = Duration::from_millis(1_500);
/// Users who have seen the page before, and users who have not.
const KNOWN: usize = 6;
const NEW: usize = 2;
/// How long the circuit stays open, and how long one call may take.
const OPEN_FOR: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the circuit is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// After the faults have passed the service has this long to be itself again.
const RECOVER_WITHIN: Duration = Duration::from_secs(10);

/// The single faults: what they are called in the figures, where they strike, and how.
const SINGLE: [(&str, &str, Mode); 3] =
    [("timeout", "/api/analytics", Hang), ("html", "/api/reports", Html), ("error", "/api/reports", Fails)];

/// Both runs, one after the other, on the same database.
pub(super) async fn replay(lab: &mut Lab, setting: &Setting) -> Result<Told<Figures>, Box<dyn Error>> {
    let database = lab.version().await?;
    let began_without = setting.clock.wall();
    let without = without(lab, setting).await?;
    let began_with = setting.clock.wall();
    let (with, said) = with(lab, setting).await?;
    let missed = missed(&without, &with);
    let figures = Figures::of("api", database, (without, with), missed);
    Ok(Told { figures, began_without, began_with, said })
}

async fn without(lab: &mut Lab, setting: &Setting) -> Result<Without, Box<dyn Error>> {
    let pool = service::plain_pool(lab.url())?;
    let faults = Faults::new(setting.clock.clone());
    let service = Service::start(app::plain(&pool, Duration::ZERO, Some(&faults))).await?;
    let start = setting.clock.now();
    let callers = Callers { url: service.url.clone(), healed: false, start, setting, faults };
    let scenarios = callers.all(None).await;
    service.stop().await?;
    service::close(&pool).await;
    Ok(Without { group: Group::of(&scenarios), scenarios })
}

async fn with(lab: &mut Lab, setting: &Setting) -> Result<(With, Vec<(i64, String)>), Box<dyn Error>> {
    let pool = Guarded::open(lab.url()).await?;
    let faults = Faults::new(setting.clock.clone());
    let (app, heal) = app::healed(&pool, config(setting)?, Duration::ZERO, Some(&faults)).await?;
    let circuit = heal.endpoint(ASSISTANCE);
    circuit.reconfigure(Arc::new(breaker::Policy { open_for: OPEN_FOR, ..breaker::Policy::default() }));
    let service = Service::start(app).await?;
    let start = setting.clock.now();
    let watch = Watch::start(circuit.clone(), setting, start);
    let callers = Callers { url: service.url.clone(), healed: true, start, setting, faults };
    let scenarios = callers.all(Some(&circuit)).await;
    wait_until_closed(&circuit, setting).await;
    let seen = watch.stop().await;
    end(service, &heal, &pool).await?;
    let said = setting.ear.since(start).into_iter().map(|(at, words)| (ms(at.since(start)), words)).collect();
    let with = With {
        mode: setting.mode.name(),
        group: Group::of(&scenarios),
        scenarios,
        failures_when_opened: seen.failures_when_opened,
        closed_after_two_failures: seen.closed_after_two,
        opened_ms: seen.opened_ms,
        recovered_ms: seen.closed_ms,
    };
    Ok((with, said))
}

async fn end(service: Service, heal: &Heal, pool: &Guarded) -> Result<(), Box<dyn Error>> {
    service.stop().await?;
    heal.shutdown().await;
    pool.close().await;
    Ok(())
}

fn config(setting: &Setting) -> Result<Config, Box<dyn Error>> {
    let mut config = Config::load(&Source::text("config/selfheal.toml", CONFIG))?;
    config.runtime.mode = setting.mode;
    for endpoint in &mut config.endpoints {
        endpoint.attempt_timeout = Some(CALL_TIMEOUT);
    }
    Ok(config)
}

async fn wait_until_closed(circuit: &Breaker, setting: &Setting) {
    let ended = setting.clock.now();
    while circuit.shows() != Circuit::Closed && setting.clock.now().since(ended) < RECOVER_WITHIN {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

pub(super) fn ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Whoever calls in a run.
struct Callers<'a> {
    url: String,
    healed: bool,
    start: Tick,
    setting: &'a Setting,
    faults: Faults,
}

impl Callers<'_> {
    /// The incident, and then each single fault.
    async fn all(&self, circuit: Option<&Breaker>) -> Vec<Scenario> {
        let mut scenarios = vec![Scenario::of("pool", ASSISTANCE, self.exhausted(circuit).await)];
        for (name, path, mode) in SINGLE {
            self.faults.plant(path, mode, None, Some(1));
            let called = self.caller("manager-1", path).call().await;
            self.faults.plant(path, Mode::Off, None, None);
            scenarios.push(Scenario::of(name, path, vec![called]));
        }
        scenarios
    }

    /// The database has too many clients: one user calls, and then all the others.
    async fn exhausted(&self, circuit: Option<&Breaker>) -> Vec<Called> {
        let known: Vec<_> = (1..=KNOWN).map(|n| format!("manager-{n}")).collect();
        for user in &known {
            // They have seen the page before: what they saw is what may be given again.
            drop(self.caller(user, ASSISTANCE).call().await);
        }
        self.faults.plant("db", Fails, Some(EXHAUSTED_FOR), None);
        let first = self.spawn(&known[0]);
        tokio::time::sleep(OTHERS_AFTER).await;
        let mut others = JoinSet::new();
        for user in known.iter().skip(1).cloned().chain((1..=NEW).map(|n| format!("newcomer-{n}"))) {
            others.spawn(self.caller(&user, ASSISTANCE).call());
        }
        let mut called: Vec<_> = first.await.into_iter().collect();
        called.extend(others.join_all().await);
        tokio::time::sleep(EXHAUSTED_FOR.saturating_sub(OTHERS_AFTER)).await;
        if let Some(circuit) = circuit {
            // A last call, once the circuit may be tried: fresh data for everybody from here on.
            while circuit.view().retry_after.is_some_and(|after| after < RECOVER_WITHIN)
                && circuit.shows() == Circuit::Open
            {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            called.push(self.caller(&known[0], ASSISTANCE).call().await);
        }
        called
    }

    fn spawn(&self, user: &str) -> tokio::task::JoinHandle<Called> {
        tokio::runtime::Handle::current().spawn(self.caller(user, ASSISTANCE).call())
    }

    fn caller(&self, user: &str, path: &str) -> Caller {
        Caller {
            web: Web::new(),
            method: Method::GET,
            url: format!("{}{path}", self.url),
            user: user.to_owned(),
            healed: self.healed,
            clock: self.setting.clock.clone(),
            start: self.start,
        }
    }
}

/// Looks at the circuit while the callers call.
struct Watch(tokio::task::JoinHandle<Seen>, tokio::sync::oneshot::Sender<()>);

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Whether it was closed still when two calls had failed.
    closed_after_two: bool,
    opened_ms: Option<i64>,
    failures_when_opened: Option<u64>,
    closed_ms: Option<i64>,
}

impl Watch {
    fn start(circuit: Breaker, setting: &Setting, start: Tick) -> Self {
        let clock = setting.clock.clone();
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let looked = tokio::runtime::Handle::current().spawn(async move {
            let mut seen = Seen::default();
            while stopped.try_recv().is_err() {
                seen.look(&circuit, || ms(clock.now().since(start)));
                tokio::time::sleep(LOOK_EVERY).await;
            }
            seen.look(&circuit, || ms(clock.now().since(start)));
            seen
        });
        Self(looked, stop)
    }

    async fn stop(self) -> Seen {
        // A watch that has ended by itself has seen nothing.
        let _ = self.1.send(());
        self.0.await.unwrap_or_default()
    }
}

impl Seen {
    fn look(&mut self, circuit: &Breaker, now: impl Fn() -> i64) {
        let (shows, failures) = (circuit.shows(), circuit.view().totals.failures);
        match (shows, self.opened_ms) {
            (Circuit::Closed, None) => self.closed_after_two |= failures >= 2,
            (Circuit::Closed, Some(_)) => self.closed_ms = self.closed_ms.or_else(|| Some(now())),
            (_, None) => {
                self.opened_ms = Some(now());
                self.failures_when_opened = Some(failures);
            }
            (_, Some(_)) => {}
        }
    }
}
