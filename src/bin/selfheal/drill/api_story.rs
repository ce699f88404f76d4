//! Tells the drill of failing API calls to a person.

use std::fmt::Write as _;

use super::{
    api_caller::Called,
    api_figures::{Figures, Group, Scenario, With, Without},
    comparison::Told,
    timeline::{Moment, of_the_log, timeline, verdict},
};

/// So many lines of the runtime are told.
const LINES_TOLD: usize = 40;
/// The width of a column of the outcome table.
const COLUMN: usize = 46;

/// The whole story.
pub(super) fn tell(told: &Told<Figures>) -> String {
    let Figures { database, without, with, missed, .. } = &told.figures;
    let mut text = format!("API calls fail, on {database}\n\nWithout self-healing\n");
    timeline(&mut text, told.began_without, callers(&without.scenarios));
    text.push_str(&format!("\nWith self-healing (mode {})\n", with.mode));
    let mut moments = callers(&with.scenarios);
    moments.extend(of_the_log(&told.said, LINES_TOLD));
    moments.extend(circuit(with));
    timeline(&mut text, told.began_with, moments);
    text.push('\n');
    outcome(&mut text, without, with);
    text.push('\n');
    verdict(&mut text, missed);
    text
}

/// What each caller does and sees.
fn callers(scenarios: &[Scenario]) -> Vec<Moment> {
    let called =
        scenarios.iter().flat_map(|scenario| scenario.calls.iter().map(move |called| (scenario, called)));
    called.flat_map(|(scenario, called)| moments(scenario, called)).collect()
}

fn moments(scenario: &Scenario, called: &Called) -> Vec<Moment> {
    let user = &called.user;
    let mut moments = vec![(called.from_ms, format!("{user} calls {}", scenario.path))];
    for reply in &called.replies {
        let what = match (reply.status, &reply.code, reply.retry_after) {
            (None, _, _) => "no reply".to_owned(),
            (Some(status), Some(code), Some(after)) => {
                format!("{status} {code}, valid JSON: come back in {after} s")
            }
            (Some(status), _, _) if reply.cached => format!("{status} with cached data"),
            (Some(status), _, _) => format!("{status}{}", if reply.json { "" } else { ", not JSON" }),
        };
        moments.push((reply.at_ms, format!("{user} receives {what}")));
    }
    if let Some(error) = &called.error {
        let at = called.replies.last().map_or(called.from_ms, |reply| reply.at_ms);
        moments.push((at, format!("{user} sees an error: \"{error}\"")));
    }
    moments
}

fn circuit(with: &With) -> Vec<Moment> {
    let opened = with.opened_ms.zip(with.failures_when_opened);
    let opened = opened.map(|(at, failures)| {
        (at, format!("The circuit is open: {failures} calls have failed (after two it was closed)"))
    });
    let closed = with.recovered_ms.map(|at| (at, "The circuit is closed again: fresh data".to_owned()));
    opened.into_iter().chain(closed).collect()
}

/// The incident's table, with what was measured.
fn outcome(text: &mut String, without: &Without, with: &With) {
    row(text, "Aspect", "Without self-healing", "With self-healing");
    row(text, "---", "---", "---");
    for (plain, healed) in without.scenarios.iter().zip(&with.scenarios) {
        row(text, title(plain.name), &served(plain), &served(healed));
    }
    row(text, "Error messages", &errors(&without.scenarios), &errors(&with.scenarios));
    let json = |group: &Group| {
        let bad = group.non_json + group.lost;
        format!("{} {bad} of {} replies were not valid JSON", mark(bad == 0), group.requests)
    };
    row(text, "Replies", &json(&without.group), &json(&with.group));
    let recovered = with.opened_ms.zip(with.recovered_ms).map_or_else(
        || "❌ not recovered when the drill ended".to_owned(),
        |(opened, closed)| format!("✅ automatic, {} after the circuit opened", seconds(closed - opened)),
    );
    row(text, "Recovery", "❌ Manual refresh required", &recovered);
    let state =
        format!("✅ {} given cached data, {} asked to come back", with.group.cached, with.group.refused);
    row(text, "Application state", "❌ White screen", &state);
}

fn row(text: &mut String, aspect: &str, without: &str, with: &str) {
    let fill = |cell: &str| if cell == "---" { "-".repeat(COLUMN) } else { format!("{cell:<COLUMN$}") };
    let first = if aspect == "---" { "-".repeat(21) } else { format!("{aspect:<21}") };
    let _ = writeln!(text, "| {first} | {} | {} |", fill(without), fill(with));
}

fn title(name: &str) -> &'static str {
    match name {
        "pool" => "Pool exhausted",
        "timeout" => "Network timeout",
        "html" => "HTML instead of JSON",
        _ => "500 Internal error",
    }
}

fn served(scenario: &Scenario) -> String {
    let Group { served, callers, .. } = scenario.group;
    let slowest = scenario.slowest_ms().map(|ms| format!(", at the latest after {}", seconds(ms)));
    format!("{} {served} of {callers} see data{}", mark(served == callers), slowest.unwrap_or_default())
}

fn errors(scenarios: &[Scenario]) -> String {
    let shown =
        scenarios.iter().flat_map(|scenario| &scenario.calls).find_map(|called| called.error.as_deref());
    match shown {
        Some(error) => format!("❌ {}", error.chars().take(COLUMN - 2).collect::<String>()),
        None => "✅ none".to_owned(),
    }
}

const fn mark(sound: bool) -> &'static str {
    if sound { "✅" } else { "❌" }
}

#[expect(clippy::cast_precision_loss, reason = "a drill takes seconds")]
fn seconds(ms: i64) -> String {
    format!("{:.2} s", ms as f64 / 1_000.0)
}
