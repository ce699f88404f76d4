//! How the binary logs: a line an event, on stderr, in the words of the runtime.
//!
//! ```text
//! [09:40:20.300] [SELF-HEAL] Connection pool at 85% (85/100) - Warning threshold
//! [09:40:21.007]  WARN sqlx::query: slow statement: execution time exceeded alert threshold
//! ```
//!
//! Times are UTC. There are no colours, so that a file and a terminal show the same. `RUST_LOG` chooses.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use selfheal::clock::{Clock, Tick};
use tracing::{Event, Level, Subscriber, field::Visit};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

/// The target of what the runtime itself says.
const OURS: &str = "selfheal";
/// An [`Ear`] remembers so many lines; later ones are not kept.
const LINES_KEPT: usize = 10_000;

/// Logs to stderr from here on.
pub(crate) fn to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,selfheal=info"));
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Line { clock: Clock::system() })
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // Whoever has installed a subscriber before keeps it.
    let _ = tracing_subscriber::registry().with(lines).with(filter).try_init();
}

/// The time of day of `moment`, in UTC, to the millisecond.
pub(crate) fn time_of_day(moment: SystemTime) -> String {
    let since_epoch = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since_epoch.as_secs() % 86_400;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", since_epoch.subsec_millis())
}

/// The format of a line.
struct Line {
    clock: Clock,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(to, "[{}] ", time_of_day(self.clock.wall()))?;
        let about = event.metadata();
        if about.target() == OURS {
            return writeln!(to, "[SELF-HEAL] {}", message(event));
        }
        write!(to, "{:>5} {}: ", about.level(), about.target())?;
        context.format_fields(to.by_ref(), event)?;
        writeln!(to)
    }
}

/// The words of an event, without its fields.
fn message(event: &Event<'_>) -> String {
    struct Words(String);
    impl Visit for Words {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
            if field.name() == "message" {
                self.0 = format!("{value:?}");
            }
        }
    }
    let mut words = Words(String::new());
    event.record(&mut words);
    words.0
}

/// Hears what the runtime says, and when. Clones hear the same.
#[derive(Clone)]
pub(crate) struct Ear {
    lines: Arc<Mutex<Vec<(Tick, String)>>>,
    clock: Clock,
}

impl Ear {
    /// Listens from here on, instead of writing to stderr.
    pub(crate) fn open(clock: Clock) -> Self {
        let ear = Self { lines: Arc::default(), clock };
        let _ = tracing_subscriber::registry().with(ear.clone()).try_init();
        ear
    }

    /// Whether something with these words was said since `start`.
    pub(crate) fn has_heard(&self, words: &str, start: Tick) -> bool {
        self.lines.lock().iter().any(|(at, line)| *at >= start && line.contains(words))
    }

    /// What was said since `start`, in order.
    pub(crate) fn since(&self, start: Tick) -> Vec<(Tick, String)> {
        self.lines.lock().iter().filter(|(at, _)| *at >= start).cloned().collect()
    }
}

impl<S: Subscriber> Layer<S> for Ear {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let about = event.metadata();
        if about.target() != OURS || *about.level() > Level::INFO {
            return;
        }
        let line = (self.clock.now(), message(event));
        let mut lines = self.lines.lock();
        if lines.len() < LINES_KEPT {
            lines.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_counts_from_midnight() {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_millis(3 * 86_400_000 + 34_820_200);
        assert_eq!(time_of_day(moment), "09:40:20.200");
    }
}
