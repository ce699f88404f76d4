//! What a variable of the environment can address, and what its name was meant for if it addresses nothing.

use std::collections::{BTreeMap, BTreeSet};

use ::config::{Map, Value, ValueKind};

use super::{
    finding::Mistake,
    key::Key,
    later,
    shape::{Kind, Shape},
    suggest::{fold, nearest},
};

/// What the names of all variables of the config begin with. `SELFHEAL_URL` and `SELFHEAL_TOKEN`, with one
/// underscore, are the operator client's own and are not looked at.
pub(super) const PREFIX: &str = "selfheal__";

/// Every name that a variable may have, without the prefix and folded, and what it stands for.
pub(super) struct Targets(BTreeMap<String, Vec<Target>>);

/// A key that is there.
pub(super) struct Target {
    pub(super) key: Key,
    pub(super) shape: &'static Shape,
}

impl Targets {
    /// The keys with defaults, and those in tables of the file.
    pub(super) fn of(file: &Map<String, Value>) -> Self {
        let mut targets = Self(BTreeMap::new());
        targets.collect(Shape::config(), Some(file), &Key::default(), "");
        targets
    }

    fn collect(&mut self, shape: &'static Shape, file: Option<&Map<String, Value>>, at: &Key, prefix: &str) {
        let chosen = file.into_iter().flat_map(Map::keys).map(String::as_str);
        let declared = shape.keys().map(|(name, _)| name.as_str());
        let is_map = matches!(shape.kind, Kind::Map(_));
        let names: BTreeSet<_> = if is_map { chosen.collect() } else { declared.collect() };
        for name in names {
            let Some(inner) = shape.key(name) else { continue };
            let variable = format!("{prefix}{}", fold(name));
            let key = at.child(name);
            let below = file.and_then(|file| table(file.get(name)?));
            self.collect(inner, below, &key, &format!("{variable}__"));
            self.0.entry(variable).or_default().push(Target { key, shape: inner });
        }
    }

    /// The one value that the variable `name` can set.
    pub(super) fn find(&self, name: &str) -> Result<&Target, Mistake> {
        let folded = fold(name).split_off(PREFIX.len());
        match self.0.get(&folded).map(Vec::as_slice) {
            Some([target]) if target.shape.is_value() => Ok(target),
            Some([target]) => Err(self.not_a_value(target, &folded)),
            Some(several) => {
                let keys: Vec<_> = several.iter().map(|target| target.key.to_string()).collect();
                let message = format!("it could mean each of {}", keys.join(", "));
                Err(Mistake::new(message, "a name for one key")
                    .help("rename one of them in the file".to_owned()))
            }
            None => Err(self.list_above(&folded).unwrap_or_else(|| self.unknown(&folded))),
        }
    }

    fn not_a_value(&self, target: &Target, folded: &str) -> Mistake {
        if target.is_list() {
            return target.no_items();
        }
        let help = self.nearest(&format!("{folded}__")).map(|name| format!("one of them is {name}"));
        Mistake::new(format!("{} is a table", target.key), "the name of a key in it").help(help)
    }

    /// The list of which the variable would address an item, or a key of one.
    fn list_above(&self, folded: &str) -> Option<Mistake> {
        let above = folded.match_indices("__").filter_map(|(end, _)| self.0.get(&folded[..end]));
        above.flatten().find(|target| target.is_list()).map(Target::no_items)
    }

    fn unknown(&self, folded: &str) -> Mistake {
        if folded.contains(['[', ']']) {
            let help = "items of lists cannot be set: write them in the file".to_owned();
            return Mistake::new("a name must not contain \"[\" or \"]\"", "the names of a key").help(help);
        }
        let names: Vec<_> = folded.split("__").collect();
        if later::is_planned(&names) {
            return later::mistake(&names.join("."), "a key of this version");
        }
        let meant = self.nearest(folded).map(|name| format!("did you mean {name}?"));
        let no_pool = || {
            let is_pool = names.first() == Some(&"pools");
            is_pool.then(|| {
                "name the pool in the file: a variable can only set keys of a [pools.NAME]".to_owned()
            })
        };
        Mistake::new("it stands for no key", "a key with a default, or of a table in the file")
            .help(meant.or_else(no_pool))
    }

    /// The variable that can set a value and looks most like `folded`.
    fn nearest(&self, folded: &str) -> Option<String> {
        let is_value = |targets: &[Target]| targets.iter().any(|target| target.shape.is_value());
        let settable =
            || self.0.iter().filter(|(_, targets)| is_value(targets)).map(|(name, _)| name.as_str());
        // The right key without its table, or something like the whole name.
        let key = format!("__{folded}");
        let name = settable().find(|name| name.ends_with(&key)).or_else(|| nearest(folded, settable()))?;
        Some(format!("{PREFIX}{name}").to_uppercase())
    }
}

impl Target {
    fn is_list(&self) -> bool {
        matches!(self.shape.kind, Kind::List(_))
    }

    fn no_items(&self) -> Mistake {
        let message = format!("{} is a list, and the environment cannot set lists", self.key);
        Mistake::new(message, "a key that is in no list").help(format!("write [[{}]] in the file", self.key))
    }
}

fn table(value: &Value) -> Option<&Map<String, Value>> {
    if let ValueKind::Table(table) = &value.kind { Some(table) } else { None }
}
