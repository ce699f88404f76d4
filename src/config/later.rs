//! Keys that are planned and do nothing yet. Accepting them would be a lie: a circuit that the file speaks of
//! would never open. So they are mistakes, of a kind that says why.

use super::finding::Mistake;

/// Each by the names on its path.
const KEYS: [&[&str]; 3] = [&["alerts"], &["reports"], &["runtime", "store"]];

/// Whether the key with these names on its path, or the table it is in, only comes with a later version.
pub(super) fn is_planned(names: &[&str]) -> bool {
    KEYS.iter().any(|planned| names.starts_with(planned))
}

/// What to say about it.
pub(super) fn mistake(name: &str, expected: impl Into<String>) -> Mistake {
    let version = env!("CARGO_PKG_VERSION");
    let message = format!("this version of selfheal ({version}) does not have {name} yet");
    Mistake::new(message, expected).help(format!("remove {name}: nothing would come of it"))
}
