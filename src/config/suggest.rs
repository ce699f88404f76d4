//! What was probably meant.

/// How alike two words must be, from 0 to 1, for one to be suggested for the other.
///
/// "crit" and "critical" are 0.90 alike, "warnign" and "warning" 0.97, "store" and "mode" 0.63.
const ALIKE: f64 = 0.78;

/// The candidate that looks most like `word`, if one does. Case and `-` for `_` make no difference.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = fold(word);
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word, &fold(candidate)), candidate))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// How names are compared where their spelling is free: without case, and with `_` for `-`.
pub(super) fn fold(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_different_word_is_not() {
        let keys = ["max", "warning", "warning_exit", "critical", "critical_exit", "smoothing"];
        for (slip, meant) in [
            ("warnign", Some("warning")),
            ("wran", Some("warning")),
            ("warning-exit", Some("warning_exit")),
            ("CRITICAL", Some("critical")),
            ("crit", Some("critical")),
            ("smothing", Some("smoothing")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(slip, keys), meant, "{slip}");
        }
    }
}
