//! Reads lines, keeps the time, and gives each line to the part that it belongs to.

use std::{
    collections::VecDeque,
    io::{BufRead, Write},
};

use selfheal_actors::{clock::Tick, signal::Signal};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::Error;

/// One subject of the simulation: its lines, and the machines behind them.
pub(super) trait Part {
    /// The keys that say that a line belongs here.
    fn keys(&self) -> &'static [&'static str];

    /// Before the first line.
    fn begin(&mut self, out: &mut Output);

    /// When it next has something to do by itself.
    fn next_timer(&self) -> Option<Tick>;

    /// What is due at `now`.
    fn timer(&mut self, now: Tick, out: &mut Output);

    /// One of its lines.
    fn line(&mut self, key: &str, line: Line, now: Tick, out: &mut Output) -> Result<(), String>;

    /// Any line, before it is played, whomever it belongs to.
    fn overhear(&mut self, _: &Map<String, Value>, _: Tick) {}

    /// Something happened in another part.
    fn hear(&mut self, _: &Signal, _: Tick, _: &mut Output) {}
}

/// A line that has been read and belongs to a part.
pub(super) struct Line(Map<String, Value>);

impl Line {
    /// The line as the shape that its part wants.
    pub(super) fn parse<T: DeserializeOwned>(self) -> Result<T, String> {
        serde_json::from_value(Value::Object(self.0)).map_err(|error| error.to_string())
    }
}

/// What happened at the present moment, in order.
pub(super) struct Output {
    now: Tick,
    lines: Vec<String>,
    happened: VecDeque<Signal>,
}

#[derive(Serialize)]
struct Stamped<T> {
    at_ms: u64,
    #[serde(flatten)]
    what: T,
}

impl Output {
    /// Writes `what`, with the present moment as its `at_ms`.
    pub(super) fn write(&mut self, what: impl Serialize) {
        // What is written here are flat structs of strings and numbers, which always have a JSON form.
        if let Ok(line) = serde_json::to_string(&Stamped { at_ms: self.now.as_millis(), what }) {
            self.lines.push(line);
        }
    }

    /// Lets all parts hear of `signal`, once the part that says so has finished.
    pub(super) fn happened(&mut self, signal: Signal) {
        self.happened.push_back(signal);
    }
}

/// Plays a trace.
pub(super) struct Driver<W> {
    parts: Vec<Box<dyn Part>>,
    out: Output,
    to: W,
}

impl<W: Write> Driver<W> {
    pub(super) fn new(parts: Vec<Box<dyn Part>>, to: W) -> Self {
        Self { parts, out: Output { now: Tick::ZERO, lines: Vec::new(), happened: VecDeque::new() }, to }
    }

    pub(super) fn play(mut self, input: impl BufRead) -> Result<(), Error> {
        for part in &mut self.parts {
            part.begin(&mut self.out);
        }
        self.flush()?;
        for (index, line) in input.lines().enumerate() {
            let line = line?;
            let played = if line.trim().is_empty() { Ok(()) } else { self.line(&line) };
            self.flush()?;
            played.map_err(|problem| Error::Line { number: index + 1, problem })?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let object: Map<String, Value> = serde_json::from_str(line)
            .map_err(|error| format!("it is not one JSON object ({error}): write one object a line"))?;
        let at = object.get("at_ms").ok_or("it has no `at_ms`: say when it happens, in milliseconds")?;
        let at = at.as_u64().ok_or_else(|| format!("`at_ms` is {at}: use a whole number of milliseconds"))?;
        let (at, now) = (Tick::from_millis(at), self.out.now);
        if at < now {
            let (at, now) = (at.as_millis(), now.as_millis());
            return Err(format!("`at_ms` is {at} after {now}: time never falls, sort the lines by it"));
        }
        let mine = self.find(&object)?;
        self.pass(at);
        self.parts.iter_mut().for_each(|part| part.overhear(&object, at));
        match mine {
            Some((part, key)) => {
                let played = self.parts[part].line(key, Line(object), at, &mut self.out);
                self.spread();
                played
            }
            None => tick(object),
        }
    }

    /// All parts hear of what has happened.
    fn spread(&mut self) {
        while let Some(signal) = self.out.happened.pop_front() {
            for part in &mut self.parts {
                part.hear(&signal, self.out.now, &mut self.out);
            }
        }
    }

    /// The part that the line belongs to, and the key that says so; `None` for a tick.
    fn find(&self, object: &Map<String, Value>) -> Result<Option<(usize, &'static str)>, String> {
        let parts = self.parts.iter().enumerate();
        let keys = parts.flat_map(|(n, part)| part.keys().iter().map(move |key| Some((n, *key))));
        let all: Vec<_> = keys.chain([None]).collect();
        let name = |of: &Option<(usize, &'static str)>| of.map_or("tick", |(_, key)| key);
        let names = || all.iter().map(name).collect::<Vec<_>>().join("`, `");
        let mut found = all.iter().filter(|of| object.contains_key(name(of)));
        let first =
            found.next().ok_or_else(|| format!("it says not what it is: give it one of `{}`", names()))?;
        Ok(*first)
    }

    /// Time moves on to `to`; what is due by then happens first, each at its moment.
    fn pass(&mut self, to: Tick) {
        while let Some(due) =
            self.parts.iter().filter_map(|part| part.next_timer()).min().filter(|&due| due <= to)
        {
            self.out.now = self.out.now.max(due);
            for part in &mut self.parts {
                if part.next_timer().is_some_and(|at| at <= self.out.now) {
                    part.timer(self.out.now, &mut self.out);
                }
            }
            self.spread();
        }
        self.out.now = to;
    }

    fn flush(&mut self) -> std::io::Result<()> {
        for line in self.out.lines.drain(..) {
            writeln!(self.to, "{line}")?;
        }
        self.to.flush()
    }
}

/// A tick only lets the time pass.
fn tick(object: Map<String, Value>) -> Result<(), String> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Tick {
        #[serde(rename = "at_ms")]
        _at: u64,
        tick: bool,
    }
    let Tick { tick, .. } = Line(object).parse()?;
    if tick { Ok(()) } else { Err("`tick` is false: leave the line out, or say true".into()) }
}
