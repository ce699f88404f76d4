//! The path of a key, as people write it: `pools.main.warning`, `endpoints[0].path`.

use std::fmt;

/// A path from the root of the config to a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(Vec<Step>);

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Name(String),
    /// The place in a list, from 0.
    Index(usize),
}

impl Key {
    /// The path to `names` from the root.
    pub(super) fn of<const N: usize>(names: [&str; N]) -> Self {
        Self(names.into_iter().map(|name| Step::Name(name.to_owned())).collect())
    }

    pub(super) fn child(&self, name: &str) -> Self {
        self.then(Step::Name(name.to_owned()))
    }

    pub(super) fn item(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// The path without its last step; `None` at the root.
    pub(super) fn parent(&self) -> Option<Self> {
        let (_, before) = self.0.split_last()?;
        Some(Self(before.to_vec()))
    }

    /// The names on the path, without places in lists.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|step| match step {
            Step::Name(name) => Some(name.as_str()),
            Step::Index(_) => None,
        })
    }

    /// Whether one of the two lies on the way to the other (or they are the same).
    pub(super) fn touches(&self, other: &Self) -> bool {
        let shared = self.0.len().min(other.0.len());
        self.0[..shared] == other.0[..shared]
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Name(name) => {
                    f.write_str(if i == 0 { "" } else { "." })?;
                    f.write_str(&quoted(name))?;
                }
            }
        }
        Ok(())
    }
}

/// A name as TOML writes it as a key, and never longer than a line.
fn quoted(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.len() <= 64 && name.chars().all(is_bare) {
        name.to_owned()
    } else {
        shown(name)
    }
}

/// A text from outside as it may be shown: in quotes, without control characters, at most 64 characters of it.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((cut, _)) => format!("\"{}…\"", text[..cut].escape_debug()),
        None => format!("\"{}\"", text.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_as_toml_writes_it() {
        let key = Key::of(["pools", "read replica"]).child("max");
        assert_eq!(key.to_string(), r#"pools."read replica".max"#);
        assert_eq!(Key::of(["tree"]).item(1).child("children").item(0).to_string(), "tree[1].children[0]");
    }

    #[test]
    fn what_comes_from_outside_cannot_fake_a_line_of_the_report() {
        assert_eq!(Key::of(["a\nb\u{1b}[31m"]).to_string(), r#""a\nb\u{1b}[31m""#);
        assert!(shown(&"x".repeat(10_000)).len() < 80);
    }
}
