//! `selfheal transitions`: the tables of statuses, held to by PostgreSQL itself.

use std::{error::Error, path::PathBuf, process::ExitCode};

use selfheal::transition::{Installed, Table, Target, Trigger};
use serde::Serialize;
use sqlx::{Connection as _, PgConnection};

use crate::{
    output::{self, Outcome},
    serve, table,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Have the database refuse what the config does not list; also when something else writes.
    Install(Args),
    /// Take that away again.
    Remove(Args),
    /// Show whether the database holds to what the config says. Exit code 1 if it holds to something else.
    Status(Args),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The PostgreSQL database.
    #[arg(long, value_name = "URL")]
    database_url: String,
    /// The config with the tables; without it config/selfheal.toml, or what is built in if that is not there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only the table of statuses of this name; all of them without it.
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// Where its statuses stand: TABLE or SCHEMA.TABLE; without it the table called NAME or NAMEs.
    #[arg(long, value_name = "TABLE", requires = "machine")]
    table: Option<String>,
    /// The column of statuses.
    #[arg(long, value_name = "COLUMN", default_value = "status")]
    column: String,
    /// Print one JSON object a table.
    #[arg(long)]
    json: bool,
}

/// What is said of one table.
#[derive(Serialize)]
struct Said {
    machine: String,
    target: String,
    version: String,
    state: &'static str,
    /// The version in the database, if it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    installed_version: Option<String>,
    /// What was done, if anything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<&'static str>,
}

pub(crate) fn run(command: &Command) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let said = runtime.block_on(command.perform())?;
    let (Command::Install(args) | Command::Remove(args) | Command::Status(args)) = command;
    output::data(if args.json { lines(&said)? } else { told(&said) })?;
    let drifted =
        said.iter().any(|said| said.done.is_none() && !["installed", "absent"].contains(&said.state));
    Ok(if drifted { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Command {
    async fn perform(&self) -> Result<Vec<Said>, Box<dyn Error>> {
        let (Self::Install(args) | Self::Remove(args) | Self::Status(args)) = self;
        let tables = args.tables()?;
        if !args.database_url.starts_with("postgres") {
            return Err("triggers are for PostgreSQL: --database-url postgres://…".into());
        }
        let mut connection = PgConnection::connect(&args.database_url).await?;
        let mut said = Vec::new();
        for table in &tables {
            let target = args.target(table, &mut connection).await?;
            said.push(self.one(table, &target, &mut connection).await?);
        }
        connection.close().await?;
        Ok(said)
    }

    async fn one(
        &self,
        table: &Table,
        target: &Target,
        connection: &mut PgConnection,
    ) -> Result<Said, Box<dyn Error>> {
        let trigger = Trigger::new(table, target);
        let (before, done) = match self {
            Self::Install(_) => match trigger.install(connection).await? {
                before @ Installed::AsDeclared => (before, Some("nothing")),
                before @ Installed::Absent => (before, Some("installed")),
                before @ (Installed::Drifted { .. } | Installed::Altered | Installed::Disabled) => {
                    (before, Some("replaced"))
                }
            },
            Self::Remove(_) => {
                let before = trigger.remove(connection).await?;
                let done = if before == Installed::Absent { "nothing" } else { "removed" };
                (before, Some(done))
            }
            Self::Status(_) => (trigger.installed(connection).await?, None),
        };
        let now = if done.is_some() { trigger.installed(connection).await? } else { before };
        let installed_version = match &now {
            Installed::Drifted { version } => version.clone(),
            Installed::Absent | Installed::AsDeclared | Installed::Altered | Installed::Disabled => None,
        };
        Ok(Said {
            machine: table.machine().to_string(),
            target: target.to_string(),
            version: format!("{:016x}", table.version()),
            state: now.name(),
            installed_version,
            done,
        })
    }
}

impl Args {
    /// The tables that are asked for.
    fn tables(&self) -> Result<Vec<Table>, Box<dyn Error>> {
        let mut tables = serve::config(self.config.as_deref())?.transitions()?;
        if let Some(machine) = &self.machine {
            tables.retain(|table| **table.machine() == **machine);
        }
        match (tables.is_empty(), &self.machine) {
            (false, _) => Ok(tables),
            (true, Some(machine)) => Err(format!("the config has no [transitions.{machine}]").into()),
            (true, None) => Err("the config has no [transitions.NAME]".into()),
        }
    }

    /// Where the statuses of `table` stand.
    async fn target(&self, table: &Table, connection: &mut PgConnection) -> Result<Target, Box<dyn Error>> {
        if let Some(name) = &self.table {
            return Ok(Target::new(name)?.status(&self.column)?);
        }
        let machine = table.machine();
        let names = [machine.to_string(), format!("{machine}s")];
        for name in &names {
            let exists = sqlx::query_scalar("SELECT to_regclass(quote_ident($1)) IS NOT NULL");
            if exists.bind(name).fetch_one(&mut *connection).await? {
                return Ok(Target::new(name)?.status(&self.column)?);
            }
        }
        Err(format!(
            "the database has neither a table {} nor {}: name it, --machine {machine} --table TABLE",
            names[0], names[1]
        )
        .into())
    }
}

fn lines(said: &[Said]) -> Result<String, serde_json::Error> {
    said.iter().map(|said| Ok(serde_json::to_string(said)? + "\n")).collect()
}

fn told(said: &[Said]) -> String {
    let mut rows = table::Table::new(["machine", "column", "version", "state", "done"]);
    for Said { machine, target, version, state, installed_version, done } in said {
        let state = match installed_version {
            Some(other) => format!("{state} (version {other})"),
            None => (*state).to_owned(),
        };
        rows.row([machine.clone(), target.clone(), version.clone(), state, done.unwrap_or("-").to_owned()]);
    }
    rows.to_string()
}
