//! `selfheal drill`: the incidents of the reference service, replayed for real.
//!
//! Each drill puts the same load on the same service twice, over real HTTP and on a real database: first plain,
//! as most hosts are built, then healed. It prints what happened, with measured times, and fails if the plain
//! service did not fail (then nothing was shown) or the healed one broke a promise.

mod api;
mod api_caller;
mod api_figures;
mod api_story;
mod comparison;
mod figures;
mod lab;
mod load;
mod pool;
mod processes;
mod service;
mod story;
mod timeline;
mod timeout;
mod timeout_figures;
mod timeout_story;
mod transitions;
mod transitions_figures;
mod transitions_lab;
mod transitions_race;
mod transitions_story;
mod watch;

use std::{error::Error, process::ExitCode};

use clap::ValueEnum;
use selfheal::{clock::Clock, level};
use serde::Serialize;

use self::{
    comparison::{Comparison, Told},
    lab::Lab,
};
use crate::{
    log::Ear,
    output::{self, Outcome},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The incident to replay.
    #[arg(default_value = "all")]
    incident: Incident,
    /// Replay it on this PostgreSQL server, in a schema of its own that is dropped afterwards, instead of on
    /// SQLite in a temporary folder.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Print the figures, one JSON object a drill; the story goes to stderr.
    #[arg(long)]
    json: bool,
    /// Feeds the arrivals of the load; the same seed is the same load.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Replay it on so many processes of the healed service, which share the PostgreSQL server: first one of them
    /// alone takes all that the server has, then the others come.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    processes: u32,
    /// How far healing may go: "observe" decides and counts, and acts on nothing.
    #[arg(long, default_value = "act")]
    mode: Mode,
}

/// A mode in which there is something to see.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// Heal.
    Act,
    /// Only count what would have been done.
    Observe,
}

impl From<Mode> for level::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Act => Self::Act,
            Mode::Observe => Self::Observe,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Incident {
    /// Ten users open a dashboard of 160 queries each, on a pool of 100 connections.
    Pool,
    /// A capture of 1,418 messages takes longer than a reply may take.
    Timeout,
    /// A capture of spam asks for changes of status that are not allowed, and eight writers race.
    Transitions,
    /// API calls fail: too many clients, a timeout, a page instead of JSON, a bare 500.
    Api,
    /// All of them.
    All,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let clock = Clock::system();
    let ear = Ear::open(clock.clone());
    let setting = pool::Setting { seed: args.seed, mode: args.mode.into(), ear, clock };
    let passed = match args.incident {
        Incident::Pool | Incident::All if args.processes > 1 => runtime.block_on(share_server(args))?,
        Incident::Pool => runtime.block_on(replay_pool(args, &setting))?,
        Incident::Timeout => runtime.block_on(replay_timeout(args, &setting))?,
        Incident::Transitions => runtime.block_on(replay_transitions(args, &setting))?,
        Incident::Api => runtime.block_on(replay_api(args, &setting))?,
        Incident::All => {
            let pool = runtime.block_on(replay_pool(args, &setting))?;
            let timeout = runtime.block_on(replay_timeout(args, &setting))?;
            let transitions = runtime.block_on(replay_transitions(args, &setting))?;
            runtime.block_on(replay_api(args, &setting))? && pool && timeout && transitions
        }
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn replay_api(args: &Args, setting: &pool::Setting) -> Result<bool, Box<dyn Error>> {
    replay(args, async |lab: &mut Lab| api::replay(lab, setting).await, api_story::tell).await
}

async fn replay_timeout(args: &Args, setting: &pool::Setting) -> Result<bool, Box<dyn Error>> {
    replay(args, async |lab: &mut Lab| timeout::replay(lab, setting).await, timeout_story::tell).await
}

async fn replay_transitions(args: &Args, setting: &pool::Setting) -> Result<bool, Box<dyn Error>> {
    replay(args, async |lab: &mut Lab| transitions::replay(lab, setting).await, transitions_story::tell).await
}

async fn replay_pool(args: &Args, setting: &pool::Setting) -> Result<bool, Box<dyn Error>> {
    replay(args, async |lab: &mut Lab| pool::replay(lab, setting).await, story::tell).await
}

/// Replays an incident and tells of it; whether it is passed.
async fn replay<Without: Serialize, With: Serialize>(
    args: &Args,
    drill: impl AsyncFnOnce(&mut Lab) -> Result<Told<Comparison<Without, With>>, Box<dyn Error>>,
    tell: fn(&Told<Comparison<Without, With>>) -> String,
) -> Result<bool, Box<dyn Error>> {
    let told = in_lab(args.database_url.as_deref(), drill).await?;
    say(args, &told.figures, &tell(&told))?;
    Ok(told.figures.passed)
}

/// Does `drill` in a lab. What was made for it goes, however it went.
async fn in_lab<T>(
    url: Option<&str>,
    drill: impl AsyncFnOnce(&mut Lab) -> Result<T, Box<dyn Error>>,
) -> Result<T, Box<dyn Error>> {
    let mut lab = Lab::open(url).await?;
    let done = tokio::select! {
        done = drill(&mut lab) => done,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    lab.close().await?;
    done
}

/// Prints the story; if they were asked for, the figures, and the story beside them.
fn say(args: &Args, figures: &impl Serialize, story: &str) -> Result<(), Box<dyn Error>> {
    if !args.json {
        return Ok(output::data(story)?);
    }
    output::aside(story);
    Ok(output::data(format!("{}\n", serde_json::to_string(figures)?))?)
}

async fn share_server(args: &Args) -> Result<bool, Box<dyn Error>> {
    let Some(url) = args.database_url.as_deref() else {
        return Err(
            "--processes needs a database server to share: name a PostgreSQL server by --database-url \
                    (SQLite is a file, and has no connections to run out of)"
                .into(),
        );
    };
    let setting = processes::Setting {
        seed: args.seed,
        processes: args.processes,
        mode: args.mode.into(),
        clock: Clock::system(),
    };
    let figures = in_lab(Some(url), async |lab: &mut Lab| processes::share(lab, &setting).await).await?;
    say(args, &figures, &figures.to_string())?;
    Ok(figures.passed)
}
