//! An incident, replayed by the binary as a user runs it.

use std::process::Command;

use serde_json::Value;

/// What a replay came to.
pub(crate) struct Drill {
    /// What scripts read.
    pub(crate) figures: Value,
    /// What people read.
    pub(crate) story: String,
    /// Whether it says that it is passed.
    pub(crate) passed: bool,
}

impl Drill {
    /// Runs `selfheal drill` with `arguments`.
    pub(crate) fn run(arguments: &[&str]) -> Self {
        let mut drill = Command::new(env!("CARGO_BIN_EXE_selfheal"));
        let output = drill.arg("drill").args(arguments).arg("--json").output().expect("the binary runs");
        let story = String::from_utf8(output.stderr).expect("it is text");
        let figures = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {} {story}", String::from_utf8_lossy(&output.stdout)));
        Self { figures, story, passed: output.status.success() }
    }

    /// It has passed, and says so; then the runs without and with healing.
    #[track_caller]
    pub(crate) fn kept_its_promises(&self) -> (&Value, &Value) {
        let figures = &self.figures;
        assert_eq!(
            (&figures["missed"], &figures["passed"]),
            (&Value::Array(Vec::new()), &true.into()),
            "{figures}"
        );
        assert!(self.passed, "{figures}");
        (&figures["without"], &figures["with"])
    }

    /// Each of these is in what people read.
    #[track_caller]
    pub(crate) fn says(&self, words: &[&str]) {
        let story = &self.story;
        for words in words {
            assert!(story.contains(words), "{words:?} is missing in\n{story}");
        }
    }
}
