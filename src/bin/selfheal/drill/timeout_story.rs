//! Tells the drill of a click that takes too long to a person.

use std::fmt::Write as _;

use super::{
    comparison::Told,
    timeline::{Moment, of_the_log, timeline, verdict},
    timeout_figures::{Click, Figures, With, Without},
};
use crate::desk::READY_SPAM;

/// So many lines of the runtime are told: three before, one a batch, and two at the end.
const LINES_TOLD: usize = 30;
/// The width of a column of the outcome table.
const COLUMN: usize = 52;

/// The whole story.
pub(super) fn tell(told: &Told<Figures>) -> String {
    let Figures { database, without, with, missed, .. } = &told.figures;
    let mut text =
        format!("Capture spam: {READY_SPAM} messages, 10 ms each, 10 s for a reply, on {database}\n");
    text.push_str("\nWithout self-healing\n");
    timeline(&mut text, told.began_without, moments_without(without));
    text.push_str(&format!("\nWith self-healing (mode {})\n", with.mode));
    let mut moments: Vec<Moment> = with.clicks.iter().flat_map(moments_of).collect();
    moments.extend(of_the_log(&told.said, LINES_TOLD));
    timeline(&mut text, told.began_with, moments);
    text.push('\n');
    outcome(&mut text, without, with);
    text.push('\n');
    verdict(&mut text, missed);
    text
}

fn moments_without(run: &Without) -> Vec<Moment> {
    let mut moments: Vec<Moment> = run.clicks.iter().flat_map(moments_of).collect();
    if let Some(first) = run.clicks.first() {
        let at = first.at_ms + first.took_ms;
        moments
            .push((at, format!("User sees an error, but {} of {READY_SPAM} were captured", run.after_first)));
    }
    moments
}

fn moments_of(click: &Click) -> [Moment; 2] {
    let mark = if click.in_time() { "✅" } else { "❌" };
    [
        (click.at_ms, "User clicks \"Capture Spam\"".to_owned()),
        (click.at_ms + click.took_ms, format!("{mark} User sees: {}", click.said)),
    ]
}

/// The incident's table, with what was measured.
fn outcome(text: &mut String, without: &Without, with: &With) {
    row(text, "Aspect", "Without self-healing", "With self-healing");
    row(text, "---", "---", "---");
    let slowest = |clicks: &[Click]| clicks.iter().map(|click| click.took_ms).max().unwrap_or(0);
    let first = |clicks: &[Click]| clicks.first().map(|click| click.said.clone()).unwrap_or_default();
    let [plain, healed] = [&without.clicks, &with.clicks];
    row(
        text,
        "Longest reply",
        &format!("❌ {} (page of the platform)", seconds(slowest(plain))),
        &format!("✅ {}", seconds(slowest(healed))),
    );
    row(text, "Message", &format!("❌ {}", first(plain)), &format!("✅ {}", first(healed)));
    let clicks = format!("❌ {} clicks, {} captured by the first", plain.len(), without.after_first);
    let one = format!("✅ one click: {} captured in {}", with.done, seconds(with.done_ms));
    row(text, "Completion", &clicks, &one);
    let integrity = match with.doubled {
        0 => "✅ all items processed, each once".to_owned(),
        doubled => format!("❌ {doubled} items processed more than once"),
    };
    row(text, "Data integrity", "⚠️ nobody knows which items are done", &integrity);
}

fn seconds(ms: i64) -> String {
    format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10)
}

fn row(text: &mut String, aspect: &str, without: &str, with: &str) {
    let fill = |cell: &str| if cell == "---" { "-".repeat(COLUMN) } else { format!("{cell:<COLUMN$}") };
    let first = if aspect == "---" { "-".repeat(15) } else { format!("{aspect:<15}") };
    let _ = writeln!(text, "| {first} | {} | {} |", fill(without), fill(with));
}
