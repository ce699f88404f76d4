//! The tables of `[transitions]`.
//!
//! A status that is only led to is final, and need not be listed: so a misspelt one makes a valid table that says
//! something else. What is one slip away from a status that *is* listed is therefore asked about; whoever means it
//! lists it, with nothing after it. More than one slip is a different word: `INACTIVE` is not `ACTIVE`.

use std::collections::BTreeMap;

use selfheal_actors::transition::MOST_STATES;

use super::{Rules, repeated};
use crate::config::{
    finding::Mistake,
    key::{Key, shown},
    policy::Transitions,
    suggest::fold,
};

/// Shorter words are too easily like others.
const LONG_ENOUGH: usize = 4;

pub(super) fn transitions(rules: &mut Rules<'_>, tables: &BTreeMap<String, Transitions>) {
    for (name, table) in tables {
        let at = Key::of(["transitions", name]);
        size(rules, &at, table);
        for (status, next) in table {
            targets(rules, &at.child(status), next, table);
        }
    }
}

fn size(rules: &mut Rules<'_>, at: &Key, table: &Transitions) {
    let mut states: Vec<_> = table.iter().flat_map(|(status, next)| next.iter().chain([status])).collect();
    states.sort();
    states.dedup();
    if states.is_empty() {
        let help = "READY = [\"DONE\"]".to_owned();
        rules.broken(
            std::slice::from_ref(at),
            Mistake::new("a table without a status", "at least one").help(help),
        );
    }
    if states.len() > MOST_STATES {
        let message = format!("a table of {} statuses", states.len());
        let help = "each pair of them can become a series of a metric".to_owned();
        rules.broken(
            std::slice::from_ref(at),
            Mistake::new(message, format!("{MOST_STATES} at most")).help(help),
        );
    }
}

fn targets(rules: &mut Rules<'_>, at: &Key, next: &[String], table: &Transitions) {
    for (first, again) in repeated(next.iter().enumerate()) {
        let message = format!("{} is listed twice", shown(&next[again]));
        let mistake = Mistake::new(message, "each status once").help("remove one of the two".to_owned());
        rules.broken(&[at.item(again), at.item(first)], mistake);
    }
    for (index, target) in next.iter().enumerate().filter(|(_, target)| !table.contains_key(*target)) {
        if let Some(meant) = table.keys().find(|listed| is_a_slip(target, listed)) {
            let message = format!("{} is not listed, and looks like {}", shown(target), shown(meant));
            let help =
                format!("did you mean {meant:?}? If it is a final status of its own, add {target} = []");
            rules
                .broken(&[at.item(index)], Mistake::new(message, "a listed status, or a new one").help(help));
        }
    }
}

/// Whether the two are one but for their case, or for one letter that is wrong, missing, too many or in the wrong
/// place.
fn is_a_slip(word: &str, listed: &str) -> bool {
    let (folded, meant) = (fold(word), fold(listed));
    let differ = |c: char| !c.is_ascii_digit();
    let is_numbered = folded.chars().filter(|c| differ(*c)).eq(meant.chars().filter(|c| differ(*c)));
    let is_long = folded.chars().count().min(meant.chars().count()) >= LONG_ENOUGH;
    folded == meant || (is_long && !is_numbered && strsim::osa_distance(&folded, &meant) == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_letter_is_a_slip_and_another_word_is_not() {
        for (word, listed) in [
            ("COMPLETD", "COMPLETED"),
            ("PRMOOTED", "PROMOTED"),
            ("READYY", "READY"),
            ("ready", "READY"),
            ("SPAM-REVIEW", "SPAM_REVIEW"),
        ] {
            assert!(is_a_slip(word, listed), "{word} {listed}");
        }
        for (word, listed) in [
            ("INACTIVE", "ACTIVE"),
            ("UNLOCKED", "LOCKED"),
            ("STEP_2", "STEP_1"),
            ("STEP_10", "STEP_1"),
            ("ORDER_PAID", "ORDER_NEW"),
            ("NEW", "NOW"),
            ("SPAM_REVIEW", "READY"),
        ] {
            assert!(!is_a_slip(word, listed), "{word} {listed}");
        }
    }
}
