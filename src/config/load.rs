//! From layers to a config: defaults < file < environment.
//!
//! Each layer is checked by itself, so that a mistake is told with its own line or variable; what has passed is
//! merged, key by key (lists are replaced as a whole); and the rules between keys judge the merged config.
//!
//! This is the only file that reads the environment of the process.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use ::config::{ConfigError as MergeError, Map, Value};

use super::{
    document::{Document, MAX_BYTES},
    environment::{Environment, Layer},
    finding::{At, Finding, Mistake},
    key::Key,
    policy::Config,
    report::{ConfigError, Report},
    validate::validate,
};

/// Where a config comes from.
#[derive(Clone, Debug)]
pub struct Source {
    file: Text,
    environment: Environment,
}

#[derive(Clone, Debug)]
enum Text {
    None,
    At(PathBuf),
    Given { name: String, text: String },
}

impl Source {
    /// The defaults alone.
    #[must_use]
    pub const fn defaults() -> Self {
        Self { file: Text::None, environment: Environment::none() }
    }

    /// The file at `path`, at most 256 KiB of TOML. It is read when it is loaded.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { file: Text::At(path.into()), ..Self::defaults() }
    }

    /// A text that is called `name` in mistakes.
    #[must_use]
    pub fn text(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { file: Text::Given { name: name.into(), text: text.into() }, ..Self::defaults() }
    }

    /// With `environment` on top.
    #[must_use]
    pub fn with_environment(self, environment: Environment) -> Self {
        Self { environment, ..self }
    }
}

impl Environment {
    /// The variables of this process.
    #[must_use]
    pub fn of_process() -> Self {
        std::env::vars_os().collect()
    }
}

impl Config {
    /// The defaults alone: a service with no pools of a policy of its own and no endpoints.
    #[must_use]
    pub fn defaults() -> Self {
        Self::default()
    }

    /// The config in the file at `path`, with the environment of this process on top.
    ///
    /// # Errors
    /// Every mistake in the file and the environment, or that the file cannot be read.
    pub fn from_file(path: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        Self::load(&Source::file(path).with_environment(Environment::of_process()))
    }

    /// The config in `source`.
    ///
    /// # Errors
    /// Every mistake in it, or that its file cannot be read.
    pub fn load(source: &Source) -> Result<Self, ConfigError> {
        let (config, report) = read(source);
        if report.valid { Ok(config) } else { Err(ConfigError::new(report)) }
    }
}

/// What is wrong with the config in `source`.
#[must_use]
pub fn check(source: &Source) -> Report {
    read(source).1
}

/// The config as far as it was understood, and what is wrong with it.
fn read(source: &Source) -> (Config, Report) {
    let (name, text) = match source.file.read() {
        Ok(file) => file,
        Err(report) => return (Config::defaults(), *report),
    };
    let mut document = Document::read(&text, name.as_deref().unwrap_or_default());
    let layer = Layer::read(&source.environment, &document.values, &mut document.places);
    let mut findings = document.findings;
    findings.extend(layer.findings);
    let config = merged(document.values, layer.values).unwrap_or_else(|error| {
        // The layers were checked, so this is a bug of ours; it is told like any other mistake.
        let mistake = Mistake::new(error.to_string(), "a config that can be merged");
        findings.push(Finding::new(At::Nowhere, Key::default(), mistake));
        Config::defaults()
    });
    if !document.damaged {
        findings.extend(validate(&config, &document.places, &findings));
    }
    (config, Report::new(name.as_deref(), &text, &document.hidden, findings))
}

/// What stands in no layer gets its default here: `Config` and its parts are `#[serde(default)]`.
fn merged(file: Map<String, Value>, environment: Map<String, Value>) -> Result<Config, MergeError> {
    let layers = [file, environment].map(Checked);
    ::config::Config::builder().add_source(layers.to_vec()).build()?.try_deserialize()
}

/// The values of a layer that have passed. None of their keys has a bracket in it.
#[derive(Clone, Debug)]
struct Checked(Map<String, Value>);

impl ::config::Source for Checked {
    fn clone_into_box(&self) -> Box<dyn ::config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, MergeError> {
        Ok(self.0.clone())
    }
}

impl Text {
    /// The name and the text.
    fn read(&self) -> Result<(Option<String>, String), Box<Report>> {
        match self {
            Self::None => Ok((None, String::new())),
            Self::Given { name, text } => Ok((Some(name.clone()), text.clone())),
            Self::At(path) => {
                let name = path.display().to_string();
                let bytes = read_at_most(path).map_err(|error| Report::unreadable(&name, error))?;
                match String::from_utf8(bytes) {
                    Ok(text) => Ok((Some(name), text)),
                    Err(error) => {
                        let valid = error.utf8_error().valid_up_to();
                        Err(Box::new(Report::unreadable(&name, format!("byte {valid} is not UTF-8"))))
                    }
                }
            }
        }
    }
}

/// One byte more than is allowed at most, so that a file that never ends is refused as too large.
fn read_at_most(path: &PathBuf) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
