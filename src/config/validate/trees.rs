//! The trees to try out: OTP's rules for children, and that the supervisors really form trees.

use std::collections::{BTreeMap, BTreeSet};

use super::{Rules, repeated};
use crate::config::{
    finding::Mistake,
    key::{Key, shown},
    suggest::nearest,
    supervision::{AutoShutdown, Child, Restart, Tree},
};

pub(super) fn trees(rules: &mut Rules<'_>, trees: &[Tree]) {
    let at = |index| Key::of(["tree"]).item(index);
    for (first, again) in repeated(trees.iter().map(|tree| &tree.name).enumerate()) {
        let message = format!("two trees are called {}", shown(&trees[again].name));
        rules.broken(&[at(again).child("name"), at(first).child("name")], once(message));
    }
    for (index, tree) in trees.iter().enumerate() {
        if let Some(backoff) = &tree.backoff {
            rules.backoff(&at(index).child("backoff"), backoff.initial, backoff.max);
        }
    }
    let places: Vec<_> = places(trees).collect();
    for place in &places {
        place.check(rules);
    }
    ids(rules, &places);
    supervisors(rules, trees, &places);
}

fn once(message: String) -> Mistake {
    Mistake::new(message, "each name once").help("rename one of the two".to_owned())
}

/// A child and where it stands.
struct Place<'a> {
    key: Key,
    tree: &'a Tree,
    child: &'a Child,
}

fn places(trees: &[Tree]) -> impl Iterator<Item = Place<'_>> {
    trees.iter().enumerate().flat_map(|(t, tree)| {
        let children = Key::of(["tree"]).item(t).child("children");
        tree.children.iter().enumerate().map(move |(c, child)| Place { key: children.item(c), tree, child })
    })
}

impl Place<'_> {
    fn key(&self, name: &str) -> Key {
        self.key.child(name)
    }

    fn check(&self, rules: &mut Rules<'_>) {
        let id = shown(&self.child.id);
        if self.child.significant && self.child.restart == Restart::Permanent {
            let message = format!("{id} is permanent, so it never ends by itself and cannot be significant");
            let help = "make it transient or temporary".to_owned();
            let mistake = Mistake::new(message, "significant = false").help(help);
            rules.broken(&[self.key("significant"), self.key("restart")], mistake);
        }
        if self.child.significant && self.tree.auto_shutdown == AutoShutdown::Never {
            let message = format!("{id} is significant, and its supervisor never shuts down by itself");
            let help =
                "set the tree's auto_shutdown to \"any_significant\" or \"all_significant\"".to_owned();
            rules.broken(&[self.key("significant")], Mistake::new(message, "significant = false").help(help));
        }
        if self.child.start.is_empty() {
            let message = format!("{id} has no result for its first start");
            let help = "start = [\"ok\"]".to_owned();
            rules.broken(
                &[self.key("start")],
                Mistake::new(message, "at least one of \"ok\", \"fail\"").help(help),
            );
        }
    }
}

/// A trace names a child by its id alone, so an id stands once in all trees.
fn ids(rules: &mut Rules<'_>, places: &[Place<'_>]) {
    for (first, again) in repeated(places.iter().map(|place| &place.child.id).enumerate()) {
        let (first, again) = (&places[first], &places[again]);
        let message =
            format!("two children are called {}, and a trace could mean either", shown(&again.child.id));
        rules.broken(&[again.key("id"), first.key("id")], once(message));
    }
}

fn supervisors(rules: &mut Rules<'_>, trees: &[Tree], places: &[Place<'_>]) {
    let names: BTreeSet<_> = trees.iter().map(|tree| tree.name.as_str()).collect();
    let nested: Vec<_> =
        places.iter().filter_map(|place| Some((place, place.child.supervisor.as_deref()?))).collect();
    for (place, name) in nested.iter().filter(|(_, name)| !names.contains(name)) {
        let help = nearest(name, names.iter().copied()).map_or_else(
            || format!("add a [[tree]] with name = {}", shown(name)),
            |meant| format!("did you mean {meant:?}?"),
        );
        let mistake = Mistake::new(format!("there is no tree {}", shown(name)), "the name of a [[tree]]");
        rules.broken(&[place.key("supervisor")], mistake.help(help));
    }
    for (first, again) in repeated(nested.iter().map(|(_, name)| name).enumerate()) {
        let ((first, name), (again, _)) = (nested[first], nested[again]);
        let message = format!("{} is already under {}", shown(name), shown(&first.tree.name));
        let mistake =
            Mistake::new(message, "one parent for each supervisor").help("keep one of the two".to_owned());
        rules.broken(&[again.key("supervisor"), first.key("supervisor")], mistake);
    }
    let parents = nested.iter().map(|(place, name)| (*name, *place)).collect();
    for place in cycles(&parents) {
        let message = format!("{} would be above itself", shown(&place.tree.name));
        let mistake = Mistake::new(message, "a tree without cycles").help("remove this child".to_owned());
        rules.broken(&[place.key("supervisor")], mistake);
    }
}

/// One child of each cycle, given the place of each supervisor under its parent.
fn cycles<'a, 'b>(parents: &BTreeMap<&'b str, &'a Place<'b>>) -> Vec<&'a Place<'b>> {
    let (mut cycles, mut settled) = (Vec::new(), BTreeSet::new());
    for &start in parents.keys() {
        let (mut name, mut walked) = (start, BTreeSet::new());
        while let Some(&place) = parents.get(name).filter(|_| !settled.contains(name)) {
            if !walked.insert(name) {
                cycles.push(place);
                break;
            }
            name = &place.tree.name;
        }
        settled.extend(walked);
    }
    cycles
}
