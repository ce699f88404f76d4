//! Habits that can be tests are tests.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use selfheal::telemetry;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every Rust file below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of this project") {
        let path = entry.expect("an entry of it").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

fn folders(of: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(root().join(of))
        .expect("a folder of this project")
        .map(|entry| entry.expect("an entry of it").path())
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().expect("it has a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn the_folders_of_the_kernel_meet_in_the_vocabulary_and_never_import_one_another() {
    let folders = folders("actors");
    assert!(folders.len() >= 5, "{folders:?}");
    // The gate keeps the per-user counts: one lock for one decision. That is the only arrow.
    let allowed = [("gate", "user_limit")];
    for folder in &folders {
        for file in sources(&root().join("actors").join(folder)) {
            let text = fs::read_to_string(&file).expect("it is text");
            for other in folders.iter().filter(|other| *other != folder) {
                let arrow = allowed.contains(&(folder.as_str(), other.as_str()));
                assert!(arrow || !text.contains(&format!("{other}::")), "{} uses {other}", file.display());
            }
        }
    }
}

#[test]
fn arrows_between_the_rooms_of_the_library_never_turn() {
    // Each room may use those to its left. `runtime` wires all of them; the binary is outside.
    let order = ["config", "db", "store", "batch", "deferred", "transition", "http", "admin", "runtime"];
    for (i, room) in order.iter().enumerate() {
        for file in sources(&root().join("src").join(room)) {
            let text = fs::read_to_string(&file).expect("it is text");
            for later in &order[i + 1..] {
                assert!(!text.contains(&format!("crate::{later}")), "{} uses {later}", file.display());
            }
        }
    }
}

#[test]
fn each_folder_of_the_kernel_has_the_same_nouns() {
    for folder in folders("actors") {
        for noun in ["mod.rs", "policy.rs"] {
            assert!(root().join("actors").join(&folder).join(noun).is_file(), "actors/{folder}/{noun}");
        }
    }
}

#[test]
fn the_top_level_is_the_card_and_little_more() {
    let found: BTreeSet<_> = fs::read_dir(root())
        .expect("the project")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !["target", "data"].contains(&name.as_str()))
        .collect();
    let expected = "ARCHITECTURE.md Cargo.lock Cargo.toml LICENSE-APACHE LICENSE-MIT README.md actors benches \
                    config src tests";
    for name in &found {
        assert!(expected.split_whitespace().any(|e| e == name), "{name} is new at the top level");
    }
}

#[test]
fn every_metric_in_the_readme_exists_and_every_metric_is_in_the_readme() {
    let readme = read("README.md");
    let names: BTreeSet<_> = telemetry::ALL.iter().map(|metric| metric.name).collect();
    for name in &names {
        assert!(readme.contains(name), "{name} is missing in the README");
    }
    let words = readme.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for word in words.filter(|word| word.starts_with("selfheal_") && *word != "selfheal_actors") {
        assert!(names.contains(word), "the README speaks of {word}, which does not exist");
    }
}

#[test]
fn every_file_that_the_documents_name_exists() {
    for document in ["README.md", "ARCHITECTURE.md"] {
        let text = read(document);
        let ticked = text.split('`').skip(1).step_by(2);
        for path in ticked
            .filter(|t| t.contains('/') && !t.contains('*') && (t.ends_with(".rs") || t.ends_with(".toml")))
        {
            let path = path.split_whitespace().next_back().unwrap_or(path);
            assert!(root().join(path).exists(), "{document} names {path}");
        }
    }
}

#[test]
fn the_map_stays_short() {
    let lines = read("ARCHITECTURE.md").lines().count();
    assert!(lines <= 150, "ARCHITECTURE.md has {lines} lines");
}

#[test]
fn every_crate_keeps_unsafe_code_out() {
    assert!(read("Cargo.toml").contains("unsafe_code = \"forbid\""));
    for manifest in ["Cargo.toml", "actors/Cargo.toml"] {
        assert!(read(manifest).contains("[lints]\nworkspace = true"), "{manifest} inherits the lints");
    }
}
