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

use selfheal::{
    clock::Tick,
    config::{Config, Source},
    transition::{Table, Target, Trigger},
};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use super::{
    lab::Lab,
    pool::Setting,
    service::{self, Service},
    transitions_figures::{Figures, Run, Scan, With, invalid, missed, total},
    transitions_race,
};
use crate::{
    desk::{
        Guarded, Plain, app,
        message::{self, Message},
    },
    serve::CONFIG,
};

/// Messages that the writers race for.
const RACED: usize = 40;
/// What the runtime says about it.
const WARNING: &str = "code review recommended";
const PREVENTED: &str = "Prevented";
/// After the capture the runtime has this long to say that it is over.
const OVER_WITHIN: Duration = Duration::from_secs(30);

/// Everything, as the bug has it: the status is looked at by nobody.
const SCAN: &str = "SELECT id, body FROM messages ORDER BY id";
const RACED_FOR: &str =
    "SELECT id FROM messages WHERE status = 'READY' AND body NOT LIKE 'You have won %' ORDER BY id";

/// What both runs came to, and what the runtime said in the healed one, in milliseconds from the click.
pub(super) struct Told {
    pub(super) figures: Figures,
    pub(super) clicked_without: std::time::SystemTime,
    pub(super) clicked_with: std::time::SystemTime,
    pub(super) said: Vec<(i64, String)>,
}

/// Both runs, one after the other, on the same messages.
pub(super) async fn replay(lab: &mut Lab, setting: &Setting) -> Result<Told, Box<dyn Error>> {
    let database = lab.version().await?;
    lab.watch_messages().await?;
    let table = Table::of::<Message>()?;
    let clicked_without = setting.clock.wall();
    let without = without(lab, setting, &table).await?;
    lab.reset_messages().await?;
    let clicked_with = setting.clock.wall();
    let (with, said) = with(lab, setting, &table).await?;
    let missed = missed(&without, &with);
    let figures =
        Figures { drill: "transitions", database, without, with, passed: missed.is_empty(), missed };
    Ok(Told { figures, clicked_without, clicked_with, said })
}

async fn without(lab: &mut Lab, setting: &Setting, table: &Table) -> Result<Run, Box<dyn Error>> {
    let pool = service::plain_pool(lab.url())?;
    let service = Service::start(app::plain(&pool, Duration::ZERO, None)).await?;
    let start = setting.clock.now();
    let (spam, scanned) = matching(scanned_plain(&pool).await?);
    overwrite(&pool, &spam).await?;
    let scanned_ms = since(setting, start);
    let scan_invalid = total(&invalid(lab.changes().await?, table));
    let scan = Scan { scanned, applied: spam.len(), blocked: 0, scan_invalid, scanned_ms };
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
    let messages = message::guard(&heal)?.operation("Spam capture");
    let (spam, scanned) = matching(scanned_guarded(&pool).await?);
    let outcome = match &pool {
        Guarded::Postgres(pool) => messages.apply_many(pool, &spam, Message::SpamReview).await?,
        Guarded::Sqlite(pool) => messages.apply_many(pool, &spam, Message::SpamReview).await?,
    };
    let (applied, blocked) = (outcome.applied.len(), outcome.blocked.len());
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

/// The messages that match the spam rule, and how many were looked at.
fn matching(scanned: Vec<(i64, String)>) -> (Vec<i64>, usize) {
    let count = scanned.len();
    let is_spam = |(id, body): (i64, String)| body.starts_with("You have won ").then_some(id);
    (scanned.into_iter().filter_map(is_spam).collect(), count)
}

async fn scanned_plain(pool: &Plain) -> Result<Vec<(i64, String)>, sqlx::Error> {
    match pool {
        Plain::Postgres(pool) => sqlx::query_as(SCAN).fetch_all(pool).await,
        Plain::Sqlite(pool) => sqlx::query_as(SCAN).fetch_all(pool).await,
    }
}

async fn scanned_guarded(pool: &Guarded) -> Result<Vec<(i64, String)>, sqlx::Error> {
    match pool {
        Guarded::Postgres(pool) => sqlx::query_as(SCAN).fetch_all(pool).await,
        Guarded::Sqlite(pool) => sqlx::query_as(SCAN).fetch_all(pool).await,
    }
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

/// The change as the incident's code made it.
async fn overwrite(pool: &Plain, ids: &[i64]) -> Result<(), sqlx::Error> {
    match pool {
        Plain::Postgres(pool) => {
            let change = sqlx::query("UPDATE messages SET status = 'SPAM_REVIEW' WHERE id = ANY ($1)");
            change.bind(ids).execute(pool).await.map(drop)
        }
        Plain::Sqlite(pool) => {
            let change =
                "UPDATE messages SET status = 'SPAM_REVIEW' WHERE id IN (SELECT value FROM json_each(?1))";
            sqlx::query(change).bind(json!(ids).to_string()).execute(pool).await.map(drop)
        }
    }
}
