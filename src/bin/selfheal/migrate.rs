//! `selfheal migrate`: makes the tables of durable work, or prints what would.
//!
//! A service makes them itself when it first needs them, if its role may. Where it may not, this is run before it, under
//! a role that may.

use std::{error::Error, process::ExitCode};

use selfheal::store::{self, Dialect};
use sqlx::{ConnectOptions as _, Postgres, Sqlite, postgres::PgConnectOptions, sqlite::SqliteConnectOptions};

use crate::output::{self, Outcome};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The database, `sqlite://…` or `postgres://…`. With --print only its kind counts.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Print the statements instead of running them; without a database, those of PostgreSQL.
    #[arg(long)]
    print: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let is_sqlite = args.database_url.as_deref().is_some_and(|url| url.starts_with("sqlite:"));
    if args.print {
        output::data(if is_sqlite { store::script::<Sqlite>() } else { store::script::<Postgres>() })?;
        return Ok(ExitCode::SUCCESS);
    }
    let url = args.database_url.as_deref().ok_or("which database? --database-url URL, or --print")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let steps = runtime.block_on(async {
        if is_sqlite {
            let options: SqliteConnectOptions = url.parse()?;
            migrate::<Sqlite>(&mut options.create_if_missing(true).connect().await?).await
        } else {
            let options: PgConnectOptions = url.parse()?;
            migrate::<Postgres>(&mut options.connect().await?).await
        }
    })?;
    output::data(steps)?;
    Ok(ExitCode::SUCCESS)
}

async fn migrate<DB: Dialect>(conn: &mut DB::Connection) -> Result<String, Box<dyn Error>> {
    let steps = store::migrate::<DB>(conn).await?;
    if steps.is_empty() {
        return Ok("nothing to do: the tables are there\n".to_owned());
    }
    Ok(steps.iter().map(|step| format!("{}: {}\n", step.version, step.name)).collect())
}
