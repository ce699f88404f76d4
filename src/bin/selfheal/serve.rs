//! `selfheal serve`: the reference service, with the runtime embedded.
//!
//! Asked to end (SIGTERM, or Ctrl-C), it takes no new connections, finishes the requests it has, lets the runtime
//! write down what it knows, and ends; what has not finished within the grace is cut off. Asked a second time, it
//! ends at once.

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use selfheal::{
    clock::Clock,
    config::{Config, Environment, Source},
    runtime::{Ended, GRACE},
};
use tokio::net::TcpListener;

use crate::{
    desk::{Faults, Guarded, app},
    log,
    output::{self, Outcome},
};

/// The config of the reference service, for where its file is not.
pub(crate) const CONFIG: &str = include_str!("../../../config/selfheal.toml");
/// Where that file is, from the folder that the service is started in.
const CONFIG_FILE: &str = "config/selfheal.toml";
/// Where the service keeps its data unless it is told.
const DATA: &str = "data";

/// Where the service listens unless it is told.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The config; without it config/selfheal.toml, or what is built in if that is not there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The database, `sqlite://…` or `postgres://…`; without it an SQLite file under ./data/.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Where to listen; port 0 picks a free one.
    #[arg(long, value_name = "ADDR", default_value_t = LISTEN)]
    listen: SocketAddr,
    /// Lets anybody who reaches the service plant faults in it: POST /faults
    /// {"target":"db|/api/…","mode":"error|html|slow|hang|panic|off","for":"2s"}.
    #[arg(long)]
    faults: bool,
    /// How long requests may take to finish once the service is asked to end.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// How long each query of the desk holds its connection, besides the time it takes: for drills.
    #[arg(long, hide = true, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    hold: Duration,
}

impl Default for Args {
    /// What it is without arguments.
    fn default() -> Self {
        let (grace, hold) = (GRACE, Duration::ZERO);
        Self { config: None, database_url: None, listen: LISTEN, faults: false, grace, hold }
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    log::to_stderr();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(args));
    // Whatever still runs has had its time.
    runtime.shutdown_background();
    outcome
}

async fn serve(args: &Args) -> Outcome {
    let config = config(args.config.as_deref())?;
    let pool = Guarded::open(&database(args.database_url.as_deref())?).await?;
    let faults = args.faults.then(|| Faults::new(Clock::system()));
    let (mut app, heal) = app::healed(&pool, config, args.hold, faults.as_ref()).await?;
    if let Some(faults) = faults {
        tracing::warn!(target: "selfheal", "Faults can be planted: POST /faults; anybody who reaches this service can");
        app = app.merge(faults.router());
    }
    let listener =
        TcpListener::bind(args.listen).await.map_err(|error| format!("{}: {error}", args.listen))?;
    announce(listener.local_addr()?)?;

    let ended = heal.serve_with_grace(listener, app, args.grace).await?;
    match ended {
        Ended::Finished => {
            pool.close().await;
            Ok(ExitCode::SUCCESS)
        }
        Ended::CutOff => Ok(ExitCode::FAILURE),
    }
}

/// The config in `file`, else in the usual one, else the built-in one; with the environment on top.
///
/// # Errors
///
/// Every mistake in it.
pub(crate) fn config(file: Option<&Path>) -> Result<Config, Box<dyn Error>> {
    let source = match file {
        Some(file) => Source::file(file),
        None if Path::new(CONFIG_FILE).exists() => Source::file(CONFIG_FILE),
        None => Source::text("the built-in config", CONFIG),
    };
    Ok(Config::load(&source.with_environment(Environment::of_process()))?)
}

fn database(url: Option<&str>) -> Result<String, Box<dyn Error>> {
    match url {
        Some(url) if ["postgres:", "postgresql:", "sqlite:"].iter().any(|scheme| url.starts_with(scheme)) => {
            Ok(url.to_owned())
        }
        // It may bear a password, so it is not repeated.
        Some(_) => Err("the database's URL must begin with postgres:// or sqlite://".into()),
        None => {
            std::fs::create_dir_all(DATA).map_err(|error| format!("{DATA}/: {error}"))?;
            Ok(format!("sqlite://{DATA}/desk.db"))
        }
    }
}

/// The base URL first: scripts take the first one they see.
fn announce(address: SocketAddr) -> std::io::Result<()> {
    let base = format!("http://{address}");
    output::data(format!(
        "{base}\n  status   {base}/admin/self-healing/api/v1/status\n  metrics  {base}/metrics\n"
    ))
}
