//! What is asked for on the command line.

use std::time::Duration;

use crate::lap::Cell;

/// What to measure.
pub(crate) struct Args {
    /// How often.
    pub(crate) rounds: usize,
    /// For how long callers call.
    pub(crate) lap: Duration,
    /// Only what has one of these words in its name; all if there are none.
    only: Vec<String>,
}

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Self { rounds: 7, lap: Duration::from_millis(600), only: Vec::new() };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match &*word {
                "--rounds" => args.rounds = value()?.parse().map_err(|_| "--rounds needs a number")?,
                "--lap-ms" => {
                    let ms = value()?.parse().map_err(|_| "--lap-ms needs a number")?;
                    args.lap = Duration::from_millis(ms);
                }
                "--only" => args.only.extend(value()?.split(',').map(str::to_owned)),
                "--smoke" => (args.rounds, args.lap) = (1, Duration::from_millis(150)),
                // Cargo says it.
                "--bench" => {}
                _ => {
                    return Err(format!(
                        "{word}: only --rounds N, --lap-ms N, --only WORD,… and --smoke are known"
                    ));
                }
            }
        }
        Ok(args)
    }

    pub(crate) fn wants(&self, cell: &Cell) -> bool {
        let name = cell.to_string();
        self.only.is_empty() || self.only.iter().any(|only| name.contains(only))
    }

    pub(crate) fn wants_pickup(&self) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == "pickup")
    }
}
