//! What the drill of invalid transitions measured, and whether it kept its promises.

use selfheal::transition::Table;
use serde::Serialize;

use super::{
    comparison::Comparison,
    transitions_lab::{Changed, SCANNED, VALID},
    transitions_race::{Race, Writers},
};
use crate::desk::PROMOTED_SPAM;

/// A whole drill.
pub(crate) type Figures = Comparison<Run, With>;

/// What came of one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    #[serde(flatten)]
    pub(crate) scan: Scan,
    #[serde(flatten)]
    pub(crate) race: Race,
    /// Changes that a witness in the database saw and that no table allows, in all.
    pub(crate) invalid: i64,
    pub(crate) invalid_changes: Vec<Changed>,
}

/// The run of the healed service.
#[derive(Debug, Serialize)]
pub(crate) struct With {
    pub(crate) mode: &'static str,
    #[serde(flatten)]
    pub(crate) run: Run,
    /// Whether the database itself held to the table, by its trigger.
    pub(crate) trigger: bool,
    /// When the runtime advised to review the code, and when it said that it was over, from the click.
    pub(crate) warning_ms: Option<i64>,
    pub(crate) prevented_ms: Option<i64>,
}

/// What came of the capture of spam.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Scan {
    pub(crate) scanned: usize,
    pub(crate) applied: usize,
    pub(crate) blocked: usize,
    /// Changes of it that no table allows, as a witness in the database saw them.
    pub(crate) scan_invalid: i64,
    pub(crate) scanned_ms: i64,
}

impl Run {
    /// A run by its parts, and by what the witness saw.
    pub(crate) fn of(scan: Scan, race: Race, seen: Vec<Changed>, table: &Table) -> Self {
        let invalid_changes = invalid(seen, table);
        let invalid = total(&invalid_changes);
        Self { scan, race, invalid, invalid_changes }
    }
}

/// Those changes that `table` does not allow.
pub(crate) fn invalid(seen: Vec<Changed>, table: &Table) -> Vec<Changed> {
    seen.into_iter().filter(|change| table.check(&change.from, &change.to).is_err()).collect()
}

pub(crate) fn total(changes: &[Changed]) -> i64 {
    changes.iter().map(|change| change.count).sum()
}

/// The promises that these two runs broke.
pub(crate) fn missed(without: &Run, with: &With) -> Vec<String> {
    let mut missed = Vec::new();
    let mut promise = |kept: bool, words: String| {
        if !kept {
            missed.push(words);
        }
    };
    let [scanned, valid, wrong] =
        [SCANNED, VALID, PROMOTED_SPAM].map(|n| usize::try_from(n).unwrap_or_default());
    promise(
        without.scan.scan_invalid == PROMOTED_SPAM && without.invalid > PROMOTED_SPAM,
        format!("without healing only {} changes were invalid, so there was little to heal", without.invalid),
    );
    let With { run: Run { scan, race, invalid, .. }, trigger, .. } = with;
    promise(*invalid == 0, format!("{invalid} invalid changes were made"));
    promise(scan.scanned == scanned, format!("{} of {scanned} messages were scanned", scan.scanned));
    promise(scan.applied == valid, format!("{} instead of {valid} valid changes were made", scan.applied));
    promise(
        scan.blocked == wrong,
        format!("{} instead of {wrong} invalid changes were blocked", scan.blocked),
    );
    let Race { messages, guarded, bypass } = race;
    let Writers { refused, failed, .. } = guarded;
    let changed = guarded.changed + bypass.map_or(0, |bypass| bypass.changed);
    promise(changed >= *messages, format!("{changed} changes of {messages} messages that were raced for"));
    promise(*refused > 0, "of those who raced nobody was refused".to_owned());
    promise(*failed == 0, format!("{failed} of those who raced got neither a change nor a refusal"));
    if let Some(bypass) = bypass.filter(|_| *trigger) {
        promise(
            bypass.refused > 0,
            "the database refused nothing that was written past the guard".to_owned(),
        );
        promise(bypass.failed == 0, format!("{} writes past the guard failed otherwise", bypass.failed));
    }
    promise(with.warning_ms.is_some(), "nobody was advised to review the code".to_owned());
    promise(with.prevented_ms.is_some(), format!("nobody was told that {wrong} were prevented"));
    missed
}
