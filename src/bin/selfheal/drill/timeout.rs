//! The second incident: a click that takes longer than the platform lets a reply take.
//!
//! The same click twice: 1,418 messages at 10 ms each, behind a platform that gives up after 10 s and answers with a page
//! of its own, as the incident's did. Plain, the caller reads a page, and nobody knows what was done; they click again.
//! Healed, every click is answered in time with how far it is, and one of them is enough.
//!
//! What was done is not asked of either service: a witness in the database writes down every change.

use std::{error::Error, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{Method, StatusCode, header::CONTENT_TYPE},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use selfheal::{
    clock::Tick,
    config::{Config, Source},
};
use serde_json::Value;

use super::{
    comparison::Told,
    lab::Lab,
    pool::Setting,
    service::{self, Service},
    timeout_figures::{Click, Figures, With, Without, missed},
};
use crate::{
    desk::{Guarded, app},
    serve::CONFIG,
    web::Web,
};

/// What the platform lets a reply take.
pub(super) const PLATFORM: Duration = Duration::from_secs(10);
/// What it says then.
const PAGE: &str = "<HTML><HEAD><TITLE>Inactivity Timeout</TITLE></HEAD><BODY>Too much time has passed without sending any data</BODY></HTML>";
/// When the second click comes: while the rest is being done.
const SECOND_CLICK: Duration = Duration::from_secs(3);
/// The rest has this long.
const OVER_WITHIN: Duration = Duration::from_secs(60);
/// The words by which the runtime says that all is done.
const COMPLETE: &str = "Operation complete";

/// Both runs, one after the other, on the same messages.
pub(super) async fn replay(lab: &mut Lab, setting: &Setting) -> Result<Told<Figures>, Box<dyn Error>> {
    let database = lab.version().await?;
    lab.watch_captures().await?;
    let began_without = setting.clock.wall();
    let without = without(lab, setting).await?;
    lab.reset_messages().await?;
    let began_with = setting.clock.wall();
    let (with, said) = with(lab, setting).await?;
    let missed = missed(&without, &with);
    let figures = Figures::of("timeout", database, (without, with), missed);
    Ok(Told { figures, began_without, began_with, said })
}

async fn without(lab: &mut Lab, setting: &Setting) -> Result<Without, Box<dyn Error>> {
    let pool = service::plain_pool(lab.url())?;
    let service = Service::start(behind_platform(app::plain(&pool, Duration::ZERO, None))).await?;
    let start = setting.clock.now();
    let mut clicks = vec![click(setting, &service, start).await?];
    let after_first = lab.captured().await?;
    clicks.push(click(setting, &service, start).await?);
    let (done, doubled) = (lab.captured().await?, lab.captured_twice().await?);
    service.stop().await?;
    service::close(&pool).await;
    Ok(Without { clicks, after_first, done, doubled })
}

async fn with(lab: &mut Lab, setting: &Setting) -> Result<(With, Vec<(i64, String)>), Box<dyn Error>> {
    let pool = Guarded::open(lab.url()).await?;
    let mut config = Config::load(&Source::text("config/selfheal.toml", CONFIG))?;
    config.runtime.mode = setting.mode;
    let (app, heal) = app::healed(&pool, config, Duration::ZERO, None).await?;
    let service = Service::start(behind_platform(app)).await?;
    let start = setting.clock.now();
    let mut clicks = vec![click(setting, &service, start).await?];
    tokio::time::sleep(SECOND_CLICK.saturating_sub(setting.clock.now().since(start))).await;
    clicks.push(click(setting, &service, start).await?);
    while !setting.ear.has_heard(COMPLETE, start) && setting.clock.now().since(start) < OVER_WITHIN {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let done_ms = since(setting, start);
    // What is done is done: a third click finds nothing to do.
    clicks.push(click(setting, &service, start).await?);
    let (done, doubled) = (lab.captured().await?, lab.captured_twice().await?);
    let metrics = Web::new().send(Method::GET, &format!("{}/metrics", service.url), &[], None).await?;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    service.stop().await?;
    heal.shutdown().await;
    pool.close().await;
    let said: Vec<_> = setting.ear.since(start);
    let said: Vec<_> = said.into_iter().map(|(at, words)| (super::api::ms(at.since(start)), words)).collect();
    let (overruns, prevented) = (
        value_of(&metrics, "selfheal_invariant_violations_total{id=\"batch_deadline\"}"),
        value_of(&metrics, "selfheal_preventions_total{kind=\"timeout\"}"),
    );
    let batches = batches(&said);
    let mode = setting.mode.name();
    Ok((With { mode, clicks, done, doubled, done_ms, batches, overruns, prevented }, said))
}

/// What the platform does to a service, whichever it is.
fn behind_platform(app: Router) -> Router {
    app.layer(axum::middleware::from_fn(async |request: Request, next: Next| -> Response {
        match tokio::time::timeout(PLATFORM, next.run(request)).await {
            Ok(reply) => reply,
            Err(_) => (StatusCode::BAD_GATEWAY, [(CONTENT_TYPE, "text/html")], PAGE).into_response(),
        }
    }))
}

async fn click(setting: &Setting, service: &Service, start: Tick) -> Result<Click, Box<dyn Error>> {
    let clicked = setting.clock.now();
    let url = format!("{}/api/spam/capture", service.url);
    let answer = Web::new().send(Method::POST, &url, &[], None).await?;
    let took_ms = since(setting, clicked);
    let reply: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let number = |name: &str| reply.as_ref().and_then(|reply| reply[name].as_u64());
    Ok(Click {
        at_ms: super::api::ms(clicked.since(start)),
        took_ms,
        status: answer.status.as_u16(),
        json: reply.is_some(),
        captured: number("captured"),
        total: number("total"),
        remaining: number("remaining"),
        job: reply.as_ref().and_then(|reply| reply["job"].as_str().map(str::to_owned)),
        said: match &reply {
            Some(reply) => reply["message"].as_str().or(reply["error"].as_str()).unwrap_or("?").to_owned(),
            None => format!(
                "Unexpected token '<', \"{}\"... is not valid JSON",
                String::from_utf8_lossy(&answer.body).chars().take(9).collect::<String>()
            ),
        },
    })
}

/// The sizes of the batches that the runtime told of.
fn batches(said: &[(i64, String)]) -> Vec<u32> {
    let size = |words: &str| -> Option<u32> {
        let (_, rest) = words.strip_prefix("Batch ")?.split_once(" completed: ")?;
        rest.split(' ').next()?.parse().ok()
    };
    said.iter().filter_map(|(_, words)| size(words)).collect()
}

fn value_of(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
}

fn since(setting: &Setting, start: Tick) -> i64 {
    super::api::ms(setting.clock.now().since(start))
}
