//! Tells a drill to a person: what happened when, and how the two runs compare.

use std::fmt::Write as _;

use super::{
    comparison::Told,
    figures::{Callers, Figures, With, Without},
    load::DASHBOARDS,
    timeline::{Moment, of_the_log, timeline, verdict},
};
use crate::desk::PANELS;

/// So many lines of the runtime are told; an incident has six.
const LINES_TOLD: usize = 30;
/// The width of a column of the outcome table.
const COLUMN: usize = 46;

/// The whole story.
pub(crate) fn tell(told: &Told<Figures>) -> String {
    let Figures { database, without, with, missed, .. } = &told.figures;
    let mut text = format!("The dashboard exhausts the connection pool, on {database}\n");
    let plain = if without.services == 1 { "one service" } else { "two services, one server" };
    text.push_str(&format!("\nWithout self-healing ({plain})\n"));
    timeline(&mut text, told.began_without, moments_without(without));
    text.push_str(&format!("\nWith self-healing (mode {})\n", with.mode));
    timeline(&mut text, told.began_with, moments_with(with, &told.said));
    text.push('\n');
    text.push_str(&outcome(without, with));
    text.push('\n');
    verdict(&mut text, missed);
    text
}

fn opening() -> Vec<Moment> {
    vec![
        (0, "User opens WOD/IVCS dashboard".to_owned()),
        (0, format!("Dashboard makes {PANELS} database queries ({DASHBOARDS} users do, within 500 ms)")),
    ]
}

fn moments_without(run: &Without) -> Vec<Moment> {
    let mut moments = opening();
    let mut tell = |at: Option<i64>, what: String| moments.extend(at.map(|at| (at, what)));
    let Without { limit, callers, .. } = run;
    tell(run.exhausted_ms, format!("Connection pool exhausted ({limit}/{limit} connections used)"));
    let said = callers.errors.first().map_or("", |said| said.text.as_str());
    tell(run.first_failure_ms, format!("Next API call fails: \"{said}\""));
    if let Some(cause) = &run.cause {
        tell(run.first_failure_ms, format!("The database says meanwhile: \"{cause}\""));
    }
    let Callers { failed, requests, .. } = callers;
    tell(run.last_failure_ms, format!("Last of {failed} failed API calls ({requests} in all)"));
    moments
}

fn moments_with(run: &With, said: &[Moment]) -> Vec<Moment> {
    let mut moments = opening();
    moments.extend(of_the_log(said, LINES_TOLD));
    let mut tell = |at: Option<i64>, what: String| moments.extend(at.map(|at| (at, what)));
    tell(run.first_shed_ms, "First non-critical request is told to come back later".to_owned());
    let Callers { dashboards, last_dashboard_ms, .. } = &run.callers;
    let reduced = match run.reduced_dashboards {
        0 => "all data displayed".to_owned(),
        reduced => format!("{reduced} with reduced functionality"),
    };
    let loaded = format!("Dashboards loaded ({} of {}), {reduced}", dashboards.completed, dashboards.sent);
    tell(*last_dashboard_ms, loaded);
    moments
}

/// The incident's table, with what was measured.
fn outcome(without: &Without, with: &With) -> String {
    let mut text = String::new();
    row(&mut text, "Aspect", "Without self-healing", "With self-healing");
    row(&mut text, "---", "---", "---");
    for (aspect, of_plain, of_healed) in aspects(without, with) {
        row(&mut text, aspect, &of_plain, &of_healed);
    }
    text
}

fn row(text: &mut String, aspect: &str, without: &str, with: &str) {
    let fill = |cell: &str| if cell == "---" { "-".repeat(COLUMN) } else { format!("{cell:<COLUMN$}") };
    let first = if aspect == "---" { "-".repeat(19) } else { format!("{aspect:<19}") };
    let _ = writeln!(text, "| {first} | {} | {} |", fill(without), fill(with));
}

fn aspects(without: &Without, with: &With) -> [(&'static str, String, String); 6] {
    let (plain, healed) = (&without.callers, &with.callers);
    let dashboards = |run: &Callers| {
        let slowest = run.slowest_dashboard_ms.map(|ms| format!(", slowest {}", seconds(ms)));
        let (completed, sent) = (run.dashboards.completed, run.dashboards.sent);
        format!("{} {completed} of {sent} dashboards{}", mark(completed == sent), slowest.unwrap_or_default())
    };
    let critical = |run: &Callers| {
        let (ok, sent) = (run.critical.ok, run.critical.sent);
        format!("{} {ok} of {sent} served", mark(ok == sent))
    };
    let failed = |run: &Callers, refused: usize| {
        let sound = run.failed == 0;
        let refused = if refused == 0 { String::new() } else { format!(", {refused} asked to come back") };
        format!("{} {} of {} failed{refused}", mark(sound), run.failed, run.requests)
    };
    let data = |run: &Callers| {
        let sound = run.lost == 0 && run.doubled == 0 && run.critical.ok == run.critical.sent;
        let failed = run.critical.sent - run.critical.ok;
        format!("{} {} lost, {} doubled, {failed} not done", mark(sound), run.lost, run.doubled)
    };
    [
        ("User experience", dashboards(plain), dashboards(healed)),
        ("Sign-in, assignment", critical(plain), critical(healed)),
        ("Failed API calls", failed(plain, 0), failed(healed, with.refused)),
        ("Downtime", downtime_without(without), downtime_with(with)),
        ("Data loss", data(plain), data(healed)),
        ("Alert level", "❌ User reports the issue".to_owned(), alert(with)),
    ]
}

fn downtime_without(run: &Without) -> String {
    match (run.first_failure_ms, run.last_failure_ms) {
        (Some(first), Some(last)) => {
            format!("❌ {} of failures, then a reload by hand", seconds(last - first))
        }
        _ => "✅ none".to_owned(),
    }
}

fn downtime_with(run: &With) -> String {
    match (run.warning_ms, run.recovered_ms) {
        (Some(warning), Some(recovered)) => {
            format!("✅ none; {} until fully recovered", seconds(recovered - warning))
        }
        (Some(_), None) => "❌ not recovered when the drill ended".to_owned(),
        (None, _) => "✅ none".to_owned(),
    }
}

fn alert(run: &With) -> String {
    match run.warning_ms {
        Some(ms) if ms < 0 => format!("✅ Warning {} before the first click", seconds(-ms)),
        Some(ms) => format!("✅ Warning {} after the first click", seconds(ms)),
        None => "no level was reached".to_owned(),
    }
}

const fn mark(sound: bool) -> &'static str {
    if sound { "✅" } else { "❌" }
}

#[expect(clippy::cast_precision_loss, reason = "a drill takes seconds")]
fn seconds(ms: i64) -> String {
    format!("{:.2} s", ms as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{super::figures::*, *};

    fn run(ok: usize, completed: usize) -> Callers {
        Callers {
            requests: 100,
            critical: Critical { sent: 20, ok },
            dashboards: Dashboards { sent: 10, completed },
            failed: 20 - ok,
            errors: vec![Said { text: "500 Error: pool timed out".to_owned(), count: 20 - ok }],
            slowest_dashboard_ms: Some(1_250),
            last_dashboard_ms: Some(1_700),
            ..Callers::default()
        }
    }

    fn told() -> Told<Figures> {
        let without = Without {
            services: 2,
            callers: run(3, 0),
            cause: Some("FATAL: sorry, too many clients already (SQLSTATE 53300)".to_owned()),
            peak_in_use: 97,
            limit: 97,
            exhausted_ms: Some(100),
            first_failure_ms: Some(600),
            last_failure_ms: Some(2_600),
        };
        let with = With {
            mode: "act",
            callers: run(20, 10),
            refused: 7,
            reduced_dashboards: 0,
            deferred: 40,
            drained: 40,
            would_refuse: 0,
            peak_in_use: 97,
            limit: 97,
            first_shed_ms: Some(320),
            warning_ms: Some(300),
            critical_ms: None,
            recovered_ms: Some(2_000),
        };
        let missed = missed(&without, &with);
        let figures = Figures::of("pool", "postgresql 15.1".to_owned(), (without, with), missed);
        let clicked = SystemTime::UNIX_EPOCH + Duration::from_millis(34_820_000);
        let said = vec![(300, "Connection pool at 85% (83/97) - Warning threshold".to_owned())];
        Told { figures, began_without: clicked, began_with: clicked, said }
    }

    #[test]
    fn the_incident_is_told_in_its_own_words_with_measured_times() {
        let text = tell(&told());
        let lines = [
            "09:40:20.000 - User opens WOD/IVCS dashboard",
            "09:40:20.100 - Connection pool exhausted (97/97 connections used)",
            "09:40:20.600 - Next API call fails: \"500 Error: pool timed out\"",
            "too many clients already (SQLSTATE 53300)",
            "09:40:20.300 - [SELF-HEAL] Connection pool at 85% (83/97) - Warning threshold",
            "09:40:21.700 - Dashboards loaded (10 of 10), all data displayed",
            "✅ Every promise was kept.",
        ];
        for line in lines {
            assert!(text.contains(line), "{line:?} is missing in\n{text}");
        }
    }

    #[test]
    fn a_level_that_was_not_reached_is_not_told() {
        let text = tell(&told());
        assert!(!text.to_lowercase().contains("critical:"), "{text}");
    }

    #[test]
    fn a_broken_promise_is_named_and_fails_the_drill() {
        let Told { mut figures, .. } = told();
        figures.with.callers.critical.ok -= 1;
        figures.with.callers.lost = 2;
        let missed = missed(&figures.without, &figures.with);
        assert_eq!(missed, ["1 of 20 critical requests were not served", "2 requests got no reply"]);
    }

    #[test]
    fn a_plain_run_that_does_not_fail_proves_nothing() {
        let Told { mut figures, .. } = told();
        figures.without.callers = run(20, 10);
        assert_eq!(missed(&figures.without, &figures.with).len(), 1);
    }
}
