//! The operator's commands: they ask the admin API of a running service, and show its answer as a table.

use std::{error::Error, process::ExitCode};

use axum::http::{HeaderName, HeaderValue, Method, header};
use clap::ValueEnum;
use serde_json::Value;

use crate::{
    output::{self, Outcome},
    table::{Table, seconds, text},
    web::Web,
};

/// Below this stands the API.
const API: &str = "/admin/self-healing/api/v1";

/// Where the service is, and by which right it is asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Service {
    /// The service's base URL.
    #[arg(long, env = "SELFHEAL_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The admin token; not needed from the service's own machine unless it asks for one.
    #[arg(long, env = "SELFHEAL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Print the API's answer as it is.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pools {
    #[command(flatten)]
    service: Service,
    /// Also list who holds a connection, the longest first.
    #[arg(long)]
    holders: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetMode {
    /// How far the runtime may go.
    mode: Mode,
    /// Why; whoever looks into it later will want to know.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    service: Service,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// Decide and count, act on nothing.
    Observe,
    /// Heal.
    Act,
    /// Pass everything through at once.
    Off,
}

/// `selfheal status`
pub(crate) fn status(service: &Service) -> Outcome {
    show(service, "/status", |status| {
        let mut all = Table::new(["service", "mode", "severity", "level", "children", "up for"]);
        let children =
            format!("{} of {} up", text(&status["children"]["up"]), text(&status["children"]["total"]));
        all.row([
            text(&status["service"]),
            text(&status["mode"]),
            text(&status["severity"]),
            text(&status["level"]),
            children,
            seconds(&status["uptime_seconds"]),
        ]);
        let mut pools = Table::new(["pool", "level", "in use", "max", "waiting"]);
        for pool in list(&status["pools"]) {
            pools.row(["name", "level", "in_use", "max", "waiting"].map(|key| text(&pool[key])));
        }
        let open = list(&status["open_incidents"]);
        let incidents = if open.is_empty() { "No open incident.\n".to_owned() } else { incident_table(open) };
        format!("{all}\n{pools}\n{incidents}")
    })
}

/// `selfheal pools`
pub(crate) fn pools(args: &Pools) -> Outcome {
    if !args.holders {
        return show(&args.service, "/pools", pool_table);
    }
    ask_all(&args.service, async |api| {
        let pools = api.get("/pools").await?;
        let mut answers = vec![pools.clone()];
        let mut shown = pool_table(&pools);
        for pool in list(&pools["pools"]) {
            let holders = api.get(&format!("/pools/{}/holders", text(&pool["name"]))).await?;
            shown.push_str(&format!("\n{}", holder_table(&holders)));
            answers.push(holders);
        }
        Ok((Value::from(answers), shown))
    })
}

/// `selfheal breakers`
pub(crate) fn breakers(service: &Service) -> Outcome {
    show(service, "/breakers", breaker_table)
}

/// `selfheal queues`
pub(crate) fn queues(service: &Service) -> Outcome {
    show(service, "/queues", |answer| {
        let mut table = Table::new([
            "queue", "pool", "pending", "leased", "oldest", "accepted", "done", "dead", "paused",
        ]);
        for queue in list(&answer["queues"]) {
            table.row([
                text(&queue["name"]),
                text(&queue["pool"]),
                text(&queue["pending"]),
                text(&queue["leased"]),
                seconds(&queue["oldest_age_seconds"]),
                text(&queue["accepted"]),
                text(&queue["done"]),
                text(&queue["dead"]),
                text(&queue["paused"]),
            ]);
        }
        table.to_string()
    })
}

/// `selfheal incidents`
pub(crate) fn incidents(service: &Service) -> Outcome {
    show(service, "/incidents", |answer| incident_table(list(&answer["incidents"])))
}

/// `selfheal children`
pub(crate) fn children(service: &Service) -> Outcome {
    show(service, "/children", |answer| {
        let mut table =
            Table::new(["child", "supervisor", "state", "starts", "restarts", "last exit", "since"]);
        for child in list(&answer["children"]) {
            let keys = ["id", "supervisor", "state", "starts", "restarts", "last_exit", "since"];
            table.row(keys.map(|key| text(&child[key])));
        }
        table.to_string()
    })
}

/// `selfheal mode`
pub(crate) fn mode(args: &SetMode) -> Outcome {
    let mode = match args.mode {
        Mode::Observe => "observe",
        Mode::Act => "act",
        Mode::Off => "off",
    };
    let wanted = serde_json::json!({ "mode": mode, "reason": args.reason }).to_string();
    ask_all(&args.service, async |api| {
        let answer = api.ask(Method::POST, "/mode", Some(wanted)).await?;
        let shown = format!("{} → {}\n", text(&answer["before"]), text(&answer["mode"]));
        Ok((answer, shown))
    })
}

fn pool_table(answer: &Value) -> String {
    let mut table = Table::new([
        "pool", "level", "in use", "limit", "max", "open", "waiting", "oldest", "parked", "refused",
        "in force",
    ]);
    for pool in list(&answer["pools"]) {
        table.row([
            text(&pool["name"]),
            text(&pool["level"]),
            text(&pool["in_use"]),
            text(&pool["limit"]),
            text(&pool["max"]),
            text(&pool["open"]),
            sum(&pool["waiting"]).to_string(),
            seconds(&pool["oldest_wait_seconds"]),
            text(&pool["parked"]),
            sum(&pool["refused"]).to_string(),
            in_force(&pool["in_force"]),
        ]);
    }
    table.to_string()
}

fn breaker_table(answer: &Value) -> String {
    let mut table = Table::new([
        "circuit",
        "state",
        "calls",
        "failed",
        "rate",
        "slow",
        "in a row",
        "again in",
        "rejected",
        "pinned by",
    ]);
    for breaker in list(&answer["breakers"]) {
        table.row([
            text(&breaker["name"]),
            text(&breaker["state"]),
            text(&breaker["calls"]),
            text(&breaker["failures"]),
            percent(&breaker["failure_rate"]),
            text(&breaker["slow"]),
            text(&breaker["consecutive_failures"]),
            seconds(&breaker["retry_after_seconds"]),
            text(&breaker["total"]["rejected"]),
            text(&breaker["pinned_by"]),
        ]);
    }
    table.to_string()
}

fn percent(share: &Value) -> String {
    share.as_f64().map_or_else(|| text(&Value::Null), |share| format!("{:.0} %", share * 100.0))
}

fn holder_table(answer: &Value) -> String {
    let mut table = Table::new(["operation", "user", "class", "held", "leaked", "taken at"]);
    let mut holders: Vec<_> = list(&answer["holders"]).iter().collect();
    let held = |holder: &Value| holder["held_seconds"].as_f64().unwrap_or_default();
    holders.sort_by(|a, b| held(b).total_cmp(&held(a)));
    for holder in holders {
        table.row([
            text(&holder["operation"]),
            text(&holder["user"]),
            text(&holder["class"]),
            seconds(&holder["held_seconds"]),
            text(&holder["leaked"]),
            text(&holder["site"]),
        ]);
    }
    format!("Connections held of {}\n{table}", text(&answer["pool"]))
}

fn incident_table(incidents: &[Value]) -> String {
    let mut table = Table::new([
        "incident",
        "kind",
        "subject",
        "severity",
        "phase",
        "opened",
        "recovered in",
        "peak",
        "impact",
    ]);
    for incident in incidents {
        let peak = &incident["peak"];
        let peak = if peak.is_null() {
            text(peak)
        } else {
            format!("{}/{}", text(&peak["in_use"]), text(&peak["max"]))
        };
        table.row([
            text(&incident["id"]),
            text(&incident["kind"]),
            text(&incident["subject"]),
            text(&incident["severity"]),
            text(&incident["phase"]),
            text(&incident["opened_at"]),
            seconds(&incident["recovered_in_seconds"]),
            peak,
            impact(&incident["impact"]),
        ]);
    }
    table.to_string()
}

/// What people noticed, without what they did not.
fn impact(noticed: &Value) -> String {
    let count =
        |key: &str| noticed[key].as_u64().filter(|count| *count > 0).map(|count| format!("{count} {key}"));
    let parts: Vec<_> =
        ["shed", "late", "failed", "omitted", "users"].iter().filter_map(|key| count(key)).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// The measures in force, by name.
fn in_force(measures: &Value) -> String {
    let names = measures.as_object().into_iter().flatten().filter_map(|(name, value)| match value {
        Value::Bool(true) => Some(name.replace('_', " ")),
        Value::Number(number) => Some(format!("{} {number}", name.replace('_', " "))),
        Value::Bool(false) | Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    });
    let names: Vec<_> = names.collect();
    names.join(", ")
}

/// All numbers in `value`, however deep, added up.
fn sum(value: &Value) -> u64 {
    match value {
        Value::Number(number) => number.as_u64().unwrap_or_default(),
        Value::Object(map) => map.values().map(sum).sum(),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::String(_) => 0,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Asks for one thing and shows it.
fn show(service: &Service, path: &str, tell: impl FnOnce(&Value) -> String) -> Outcome {
    ask_all(service, async |api| {
        let answer = api.get(path).await?;
        let shown = tell(&answer);
        Ok((answer, shown))
    })
}

/// Asks, and shows the answer as people or as scripts want it.
fn ask_all<'a>(
    service: &'a Service,
    ask: impl AsyncFnOnce(Api<'a>) -> Result<(Value, String), Box<dyn Error>>,
) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (answer, shown) = runtime.block_on(ask(Api { service, web: Web::new() }))?;
    output::data(if service.json { format!("{answer}\n") } else { shown })?;
    Ok(ExitCode::SUCCESS)
}

/// The API of one service.
struct Api<'a> {
    service: &'a Service,
    web: Web,
}

impl Api<'_> {
    async fn get(&self, path: &str) -> Result<Value, Box<dyn Error>> {
        self.ask(Method::GET, path, None).await
    }

    async fn ask(&self, method: Method, path: &str, json: Option<String>) -> Result<Value, Box<dyn Error>> {
        let base = self.service.url.trim_end_matches('/');
        let answer = self.web.send(method, &format!("{base}{API}{path}"), &self.headers()?, json).await;
        let answer = answer.map_err(|error| format!("{base} does not answer: {error}"))?;
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if answer.status.is_success() && !value.is_null() {
            return Ok(value);
        }
        let said =
            value["error"].as_str().unwrap_or("no reason was given, so it may not be a selfheal service");
        Err(format!("{base} answers {}: {said}", answer.status).into())
    }

    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, Box<dyn Error>> {
        let Some(token) = &self.service.token else { return Ok(Vec::new()) };
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| "the token has characters that no header can carry")?;
        bearer.set_sensitive(true);
        Ok(vec![(header::AUTHORIZATION, bearer)])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_incident_is_shown_on_one_line_with_what_people_noticed() {
        let incident = json!([{
            "id": "i-1", "kind": "pool", "subject": "main", "severity": "critical", "phase": "resolved",
            "opened_at": "2025-11-25T09:40:20.200Z", "recovered_in_seconds": 0.8,
            "peak": { "in_use": 92, "max": 100 },
            "impact": { "shed": 7, "late": 0, "failed": 0, "omitted": 80, "users": 3 }
        }]);
        let shown = incident_table(list(&incident));
        assert!(shown.contains("0.80 s"), "{shown}");
        assert!(shown.contains("92/100"), "{shown}");
        assert!(shown.contains("7 shed, 80 omitted, 3 users"), "{shown}");
    }

    #[test]
    fn a_circuit_is_shown_on_one_line_and_a_rate_that_is_none_as_none() {
        let breaker = json!({ "breakers": [{
            "name": "/api/x", "state": "open", "calls": 8, "failures": 6, "failure_rate": 0.75, "slow": 0,
            "consecutive_failures": 6, "retry_after_seconds": 12.5, "total": { "rejected": 40 }, "pinned_by": null
        }, { "name": "/api/y", "state": "closed", "failure_rate": null }] });
        let shown = breaker_table(&breaker);
        assert!(shown.contains("75 %") && shown.contains("40"), "{shown}");
        assert_eq!(percent(&Value::Null), text(&Value::Null));
    }

    #[test]
    fn only_measures_in_force_are_named() {
        let calm = json!({ "shed": false, "user_limit": null, "batch": 10 });
        assert_eq!(in_force(&calm), "batch 10");
        let pressed = json!({ "shed": true, "user_limit": 5, "batch": 50 });
        let mut names: Vec<_> = in_force(&pressed).split(", ").map(str::to_owned).collect();
        names.sort();
        assert_eq!(names, ["batch 50", "shed", "user limit 5"]);
    }

    #[test]
    fn refusals_of_all_classes_and_reasons_are_added_up() {
        assert_eq!(sum(&json!({ "normal": {}, "sheddable": { "shed": 4, "queue_full": 1 } })), 5);
    }
}
