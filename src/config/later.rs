//! Keys that are planned and do nothing yet. Accepting them would be a lie: a circuit that the file speaks of
//! would never open. So they are mistakes, of a kind that says why.

use super::key::Key;

/// Each by the names on its path.
const KEYS: [&[&str]; 9] = [
    &["breaker"],
    &["retry"],
    &["batches"],
    &["transitions"],
    &["alerts"],
    &["reports"],
    &["runtime", "store"],
    &["endpoints", "fallback"],
    &["endpoints", "breaker"],
];

/// Whether `key` (or the table it is in) only comes with a later version.
pub(super) fn is_planned(key: &Key) -> bool {
    let names: Vec<_> = key.names().collect();
    KEYS.iter().any(|planned| names.starts_with(planned))
}

/// What to say about it.
pub(super) fn message() -> String {
    format!("selfheal {} does not have this yet", env!("CARGO_PKG_VERSION"))
}
