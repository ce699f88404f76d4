//! The third incident: a capture of spam changes messages that were promoted to tasks long ago.
//!
//! The same capture twice, with the incident's bug in it: it scans a thousand messages and takes every one that matches
//! the rule, whatever its status. Plain, all of them change. Healed, those change that may, and the rest is left alone.
//! Then eight writers race for other messages, over HTTP; and on PostgreSQL one more writes past the service, where the
//! database itself holds to the table.
//!
//! What changed is not asked of either service: a witness in the database writes down every change, and the table
//! judges.

use std::{error::Error, time::Duration};

use axum::http::Method;
use selfheal::{
    clock::Tick,
    config::{Config, Source},
    transition::{Table, Target, Trigger},
};
use sqlx::{Connection as _, PgConnection};

use super::{
    comparison::Told,
    lab::Lab,
    pool::Setting,
    service::{self, Service},
    transitions_figures::{Figures, Run, Scan, With, invalid, missed, total},
    transitions_race,
};
use crate::{
    desk::{Guarded, Plain, app, message::Message},
    serve::CONFIG,
    web::Web,
};

/// Messages that the writers race for.
const RACED: usize = 40;
/// What the runtime says about it.
const WARNING: &str = "code review recommended";
const PREVENTED: &str = "Prevented";
/// After the capture the runtime has this long to say that it is over.
const OVER_WITHIN: Duration = Duration::from_secs(30);

const RACED_FOR: &str =
    "SELECT id FROM messages WHERE status = 'READY' AND body NOT LIKE 'You have won %' ORDER BY id";

/// Both runs, one after the other, on the same messages.
pub(super) async fn replay(lab: &mut Lab, setting: &Setting) -> Result<Told<Figures>, Box<dyn Error>> {
    let database = lab.version().await?;
    lab.watch_messages().await?;
    let table = Table::of::<Message>()?;
    let began_without = setting.clock.wall();
    let without = without(lab, setting, &table).await?;
    lab.reset_messages().await?;
    let began_with = setting.clock.wall();
    let (with, said) = with(lab, setting, &table).await?;
    let missed = missed(&without, &with);
    let figures = Figures::of("transitions", database, (without, with), missed);
    Ok(Told { figures, began_without, began_with, said })
}

async fn without(lab: &mut Lab, setting: &Setting, table: &Table) -> Result<Run, Box<dyn Error>> {
    let pool = service::plain_pool(lab.url())?;
    let service = Service::start(app::plain(&pool, Duration::ZERO, None)).await?;
    let start = setting.clock.now();
    let (scanned, applied, blocked) = captured(&service.url).await?;
    let scanned_ms = since(setting, start);
    let scan_invalid = total(&invalid(lab.changes().await?, table));
    let scan = Scan { scanned, applied, blocked, scan_invalid, scanned_ms };
    let past = matches!(lab, Lab::Postgres(_)).then(|| lab.url().to_owned());
    let race = transitions_race::run(&service.url, &raced_plain(&pool).await?, past.as_deref()).await?;
    service.stop().await?;
    service::close(&pool).await;
    Ok(Run::of(scan, race, lab.changes().await?, table))
}

async fn with(
    lab: &mut Lab,
    setting: &Setting,
    table: &Table,
) -> Result<(With, Vec<(i64, String)>), Box<dyn Error>> {
    let pool = Guarded::open(lab.url()).await?;
    let mut config = Config::load(&Source::text("config/selfheal.toml", CONFIG))?;
    config.runtime.mode = setting.mode;
    let (app, heal) = app::healed(&pool, config, Duration::ZERO, None).await?;
    let service = Service::start(app).await?;
    let past = matches!(lab, Lab::Postgres(_)).then(|| lab.url().to_owned());
    if let Some(database) = &past {
        let mut connection = PgConnection::connect(database).await?;
        Trigger::new(table, &Target::new("messages")?).install(&mut connection).await?;
        connection.close().await?;
    }
    let start = setting.clock.now();
    let (scanned, applied, blocked) = captured(&service.url).await?;
    let scanned_ms = since(setting, start);
    let scan_invalid = total(&invalid(lab.changes().await?, table));
    let scan = Scan { scanned, applied, blocked, scan_invalid, scanned_ms };
    wait_until_told(setting, start).await;
    let of_capture = said(setting, start);
    let race = transitions_race::run(&service.url, &raced_guarded(&pool).await?, past.as_deref()).await?;
    service.stop().await?;
    heal.shutdown().await;
    pool.close().await;
    let heard = |words: &str| of_capture.iter().find(|(_, line)| line.contains(words)).map(|(at, _)| *at);
    let with = With {
        mode: setting.mode.name(),
        run: Run::of(scan, race, lab.changes().await?, table),
        trigger: past.is_some(),
        warning_ms: heard(WARNING),
        prevented_ms: heard(&format!("{PREVENTED} {blocked} ")),
    };
    Ok((with, said(setting, start)))
}

/// Captures spam as the bug has it: everything is scanned. Says how many messages were, how many changed, and how many
/// were kept from it.
async fn captured(service: &str) -> Result<(usize, usize, usize), Box<dyn Error>> {
    let url = format!("{service}/api/spam/capture?scan=all");
    let answer = Web::new().send(Method::POST, &url, &[], None).await?;
    let reply: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let number = |name: &str| reply[name].as_u64().and_then(|number| usize::try_from(number).ok());
    let numbers = number("scanned").zip(number("captured")).zip(number("blocked"));
    let ((scanned, captured), blocked) = numbers.ok_or_else(|| format!("the capture answers {reply}"))?;
    Ok((scanned, captured, blocked))
}

/// The capture's refusals are one incident, which is seen to its end.
async fn wait_until_told(Setting { clock, ear, .. }: &Setting, start: Tick) {
    let captured = clock.now();
    while !ear.has_heard(PREVENTED, start) && clock.now().since(captured) < OVER_WITHIN {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn said(Setting { ear, .. }: &Setting, start: Tick) -> Vec<(i64, String)> {
    ear.since(start).into_iter().map(|(at, words)| (super::api::ms(at.since(start)), words)).collect()
}

fn since(setting: &Setting, start: Tick) -> i64 {
    super::api::ms(setting.clock.now().since(start))
}

async fn raced_plain(pool: &Plain) -> Result<Vec<i64>, sqlx::Error> {
    let mut ids: Vec<i64> = match pool {
        Plain::Postgres(pool) => sqlx::query_scalar(RACED_FOR).fetch_all(pool).await?,
        Plain::Sqlite(pool) => sqlx::query_scalar(RACED_FOR).fetch_all(pool).await?,
    };
    ids.truncate(RACED);
    Ok(ids)
}

async fn raced_guarded(pool: &Guarded) -> Result<Vec<i64>, sqlx::Error> {
    let mut ids: Vec<i64> = match pool {
        Guarded::Postgres(pool) => sqlx::query_scalar(RACED_FOR).fetch_all(pool).await?,
        Guarded::Sqlite(pool) => sqlx::query_scalar(RACED_FOR).fetch_all(pool).await?,
    };
    ids.truncate(RACED);
    Ok(ids)
}
