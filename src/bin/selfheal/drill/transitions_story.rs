//! Tells the drill of invalid transitions to a person.

use std::fmt::Write as _;

use super::{
    comparison::Told,
    timeline::{Moment, of_the_log, timeline, verdict},
    transitions_figures::{Figures, Run, Scan, With},
    transitions_race::{Race, WRITERS, Writers},
};
use crate::output::grouped;

/// So many lines of the runtime are told.
const LINES_TOLD: usize = 40;
/// The width of a column of the outcome table.
const COLUMN: usize = 46;

/// The whole story.
pub(super) fn tell(told: &Told<Figures>) -> String {
    let Figures { database, without, with, missed, .. } = &told.figures;
    let mut text = format!("Invalid status transitions, on {database}\n\nWithout self-healing\n");
    timeline(&mut text, told.began_without, moments_without(without));
    text.push_str(&format!("\nWith self-healing (mode {})\n", with.mode));
    let mut moments = moments_with(with);
    moments.extend(of_the_log(&told.said, LINES_TOLD));
    timeline(&mut text, told.began_with, moments);
    text.push_str(&format!("{}\n\n", raced(&with.run.race, with.trigger)));
    outcome(&mut text, without, with);
    text.push('\n');
    verdict(&mut text, missed);
    text
}

fn moments_without(run: &Run) -> Vec<Moment> {
    let Scan { scanned, applied, scan_invalid, scanned_ms, .. } = run.scan;
    vec![
        (0, "User runs spam capture".to_owned()),
        (0, format!("Spam capture scans PROMOTED messages, too (bug): {} messages", grouped(scanned as u64))),
        (scanned_ms, format!("Status changed of {applied} messages")),
        (scanned_ms, format!("❌ {scan_invalid} of them invalid: PROMOTED → SPAM_REVIEW")),
        (
            scanned_ms,
            format!("{}; ❌ {} of them invalid", raced(&run.race, false), run.invalid - scan_invalid),
        ),
    ]
}

fn moments_with(with: &With) -> Vec<Moment> {
    let Scan { scanned, applied, blocked, scanned_ms, .. } = with.run.scan;
    let complete = format!(
        "Scan complete. Scanned: {} messages, valid updates: {applied} (READY → SPAM_REVIEW), blocked invalid: {blocked}",
        grouped(scanned as u64)
    );
    vec![
        (0, "User runs spam capture".to_owned()),
        (0, "System starts scanning messages".to_owned()),
        (scanned_ms, complete),
    ]
}

fn raced(race: &Race, trigger: bool) -> String {
    let Race { messages, guarded: Writers { changed, refused, failed, .. }, bypass } = race;
    let mut text = format!(
        "{WRITERS} writers raced for {messages} messages: {changed} changes, {refused} refused, {failed} failed"
    );
    if let Some(Writers { changed, refused, .. }) = bypass {
        let by = if trigger { " by the database itself" } else { "" };
        let _ = write!(text, "; one more wrote past the service: {changed} changes, {refused} refused{by}");
    }
    text
}

/// The incident's table, with what was measured.
fn outcome(text: &mut String, without: &Run, with: &With) {
    row(text, "Aspect", "Without self-healing", "With self-healing");
    row(text, "---", "---", "---");
    let integrity = |run: &Run| match run.invalid {
        0 => "✅ All states valid".to_owned(),
        invalid => format!("❌ {invalid} invalid changes made"),
    };
    row(text, "Data integrity", &integrity(without), &integrity(&with.run));
    let confusion = |run: &Run| {
        let wrong: i64 = run
            .invalid_changes
            .iter()
            .filter(|change| change.to == "SPAM_REVIEW")
            .map(|change| change.count)
            .sum();
        match wrong {
            0 => "✅ Only valid messages in spam queue".to_owned(),
            wrong => format!("❌ {wrong} times a wrong message in spam queue"),
        }
    };
    row(text, "User confusion", &confusion(without), &confusion(&with.run));
    let Scan { blocked, .. } = with.run.scan;
    let detection = match with.warning_ms {
        Some(ms) => format!("✅ Warning after {ms} ms: {blocked} blocked"),
        None => "❌ nobody was warned".to_owned(),
    };
    row(text, "Detection", "❌ User reports the issue", &detection);
    let correction =
        if with.run.invalid == 0 { "✅ Automatic prevention" } else { "❌ Manual database cleanup" };
    row(text, "Correction", "❌ Manual database cleanup", correction);
    let layers = if with.trigger { "validation layer + trigger" } else { "validation layer" };
    row(text, "Root cause", "❌ Code bug", &format!("✅ Code bug + {layers}"));
}

fn row(text: &mut String, aspect: &str, without: &str, with: &str) {
    let fill = |cell: &str| if cell == "---" { "-".repeat(COLUMN) } else { format!("{cell:<COLUMN$}") };
    let first = if aspect == "---" { "-".repeat(15) } else { format!("{aspect:<15}") };
    let _ = writeln!(text, "| {first} | {} | {} |", fill(without), fill(with));
}
