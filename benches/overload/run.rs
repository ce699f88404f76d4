//! One run: one contender under the load of one scenario.

use std::{error::Error, sync::Arc, time::Duration};

use selfheal::{
    clock::{Clock, Tick},
    gate::Histogram,
};
use selfheal_benches::{Busy, Dice};
use tokio::runtime::Runtime;

use crate::{
    SLOTS, client,
    contender::{self, Contender, Kind},
    figures::{self, AtGate, Figures, Setting},
    fixture::Fixture,
    load::{Query, Shot},
    scenario::{Scenario, Trouble},
};

/// What a run that has ended may still have to do at the server is given up after this.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// What critical work may wait at a gate.
const AT_GATE: Duration = Duration::from_millis(5);

/// Runs it, on a runtime of its own, so that nothing of it is left.
pub(crate) fn run(
    fixture: &Fixture,
    scenario: &Scenario,
    kind: Kind,
    seed: u64,
    shots: &Arc<Vec<Shot>>,
) -> Result<Figures, Box<dyn Error>> {
    let runtime = runtime()?;
    let figures = runtime.block_on(measure(fixture, scenario, kind, seed, shots));
    runtime.shutdown_timeout(STOP_WITHIN);
    figures
}

pub(crate) fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

async fn measure(
    fixture: &Fixture,
    scenario: &Scenario,
    kind: Kind,
    seed: u64,
    shots: &Arc<Vec<Shot>>,
) -> Result<Figures, Box<dyn Error>> {
    fixture.clear().await?;
    let contender = kind.build(fixture, scenario.open_before()).await?;
    let busy = Busy::start();
    let start = Clock::system().now() + Duration::from_millis(100);
    let (fates, troubled, at_gate) = tokio::join!(
        client::fire(shots, Arc::clone(&contender), start, scenario.retries),
        trouble(fixture, scenario, start),
        watch(contender.as_ref(), scenario, start)
    );
    troubled?;
    let share = busy.share();
    let written = fixture.written(&figures::acknowledged(shots, &fates)).await?;
    // What is still lent does not come back in time, or it does not matter.
    let _ = tokio::time::timeout(STOP_WITHIN, contender.stop()).await;
    let setting = Setting { scenario, contender: kind, seed };
    Ok(Figures { at_gate, ..figures::of(&setting, shots, &fates, written, share) })
}

/// The trouble of the scenario, at its time.
async fn trouble(fixture: &Fixture, scenario: &Scenario, start: Tick) -> Result<(), Box<dyn Error>> {
    let press = start + scenario.lead.length();
    match scenario.trouble {
        Trouble::None => return Ok(()),
        // It takes its time, and must have taken what it takes when the press begins.
        Trouble::Outsider(_) => sleep_until(start).await,
        Trouble::Stall => sleep_until(press).await,
    }
    let troubled = fixture.trouble(scenario.trouble).await?;
    sleep_until(press + scenario.press.length()).await;
    drop(troubled);
    Ok(())
}

/// Watches the gate, if there is one, from the beginning of the press to its end.
async fn watch(contender: &dyn Contender, scenario: &Scenario, start: Tick) -> Option<AtGate> {
    let press = start + scenario.lead.length();
    let end = press + scenario.press.length();
    sleep_until(press).await;
    let before = contender.gate()?;
    let (mut level, mut level_changes) = (before.level, 0);
    while Clock::system().now() < end {
        // A level stays for longer than this.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = contender.gate()?.level;
        level_changes += u32::from(now != level);
        level = now;
    }
    let (before, after) = (before.critical_waits, contender.gate()?.critical_waits);
    let soon = Histogram::BOUNDS.iter().filter(|&&bound| bound <= AT_GATE).count();
    let of_press = |bucket: usize| after.counts()[bucket] - before.counts()[bucket];
    let within = (0..soon).map(of_press).sum::<u64>() as f64 / (after.count() - before.count()) as f64;
    Some(AtGate { within, level_changes })
}

async fn sleep_until(moment: Tick) {
    tokio::time::sleep(moment.since(Clock::system().now())).await;
}

/// What the rig itself can do: as many workers as there are connections, each with the next query as soon as the last
/// is done. The share of the connections' time in which they work.
pub(crate) fn oracle(fixture: &Fixture, seed: u64, seconds: f64) -> Result<f64, Box<dyn Error>> {
    let runtime = runtime()?;
    let worked = runtime.block_on(async {
        fixture.clear().await?;
        let pool = contender::pool(fixture, Duration::from_secs(30)).await?;
        contender::warm(&pool, SLOTS).await?;
        let clock = Clock::system();
        let (start, until) = (clock.now(), clock.now() + Duration::from_secs_f64(seconds));
        let mut workers = tokio::task::JoinSet::new();
        for number in 0..SLOTS {
            let (pool, clock, mut dice) =
                (pool.clone(), clock.clone(), Dice::new(seed << 8 | u64::from(number)));
            workers.spawn(async move {
                let mut worked = 0.0;
                loop {
                    let query = Query::drawn(&mut dice, "oracle");
                    let sent = clock.now();
                    contender::run(&pool, query).await?;
                    if clock.now() >= until {
                        // Only what it did until then counts.
                        let part = until.since(sent).as_secs_f64().min(query.holds().as_secs_f64());
                        return Ok::<_, sqlx::Error>(worked + part);
                    }
                    worked += query.holds().as_secs_f64();
                }
            });
        }
        let mut worked = 0.0;
        while let Some(worker) = workers.join_next().await {
            worked += worker??;
        }
        Ok::<_, Box<dyn Error>>(worked / (until.since(start).as_secs_f64() * f64::from(SLOTS)))
    });
    runtime.shutdown_timeout(STOP_WITHIN);
    worked
}
