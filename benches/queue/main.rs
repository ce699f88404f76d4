//! Durable jobs: how many a second are accepted and done, and how soon an idle worker has one.
//!
//! Everybody works on one private PostgreSQL that syncs each commit, each contender in a database of its own, in turns
//! whose order is shuffled anew in each round. What a contender does is compared with statements written by hand that do
//! as little as can be: a narrow table with one index.

mod apalis;
mod args;
mod backlog;
mod floor;
mod graphile;
#[path = "../../tests/pg/keeper.rs"]
#[expect(clippy::expect_used, reason = "it is shared with the tests, which fail so")]
mod keeper;
mod lap;
mod ours;
mod pickup;
mod report;
#[path = "../../tests/pg/server.rs"]
#[expect(
    dead_code,
    clippy::expect_used,
    reason = "it is shared with the tests, which need more of it and fail so"
)]
mod server;
mod sqlite;

use std::{error::Error, process::ExitCode, time::Instant};

use selfheal_benches::{Busy, Dice, Machine};

use crate::{args::Args, lap::Cell, report::Figures};

/// What goes wrong ends the benchmark.
pub(crate) type Done<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let measured = Args::parse(std::env::args().skip(1)).map_err(Into::into).and_then(|args| measure(&args));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn measure(args: &Args) -> Done {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = server::server().ok_or("PostgreSQL is needed: install the package `postgresql`")?.durable();
    let version: String = runtime.block_on(async {
        sqlx::query_scalar("show server_version").fetch_one(&mut server.admin().await).await
    })?;
    println!("{}, PostgreSQL {version}, fsync on", Machine::here());
    let busy = Busy::start();
    let folder = sqlite::Folder::new()?;
    let mut cells = Vec::new();
    runtime.block_on(async {
        cells.extend(floor::cells(&server).await?);
        cells.extend(ours::cells(&server).await?);
        cells.extend(apalis::cells(&server).await?);
        cells.extend(graphile::cells(&server).await?);
        cells.extend(sqlite::cells(&folder).await?);
        cells.retain(|cell| args.wants(cell));
        Done::Ok(())
    })?;
    let figures = runtime.block_on(rounds(&cells, args))?;
    println!("\n{figures}");
    if args.wants_pickup() {
        println!("{}", runtime.block_on(pickup::measure(&server, &folder, args))?);
    }
    let share = busy.share();
    println!(
        "The machine was {:.0} % busy, {:.0} % by this program.",
        share.machine * 100.0,
        share.own * 100.0
    );
    Ok(())
}

/// Every cell once a round, in an order of its own.
async fn rounds(cells: &[Cell], args: &Args) -> Done<Figures> {
    let mut figures = Figures::of(cells);
    let mut dice = Dice::new(7);
    for round in 0..=args.rounds {
        let mut order: Vec<_> = (0..cells.len()).collect();
        dice.shuffle(&mut order);
        for at in order {
            let begun = Instant::now();
            let rate = (cells[at].lap)(args.lap).await.map_err(|error| format!("{}: {error}", cells[at]))?;
            eprintln!(
                "{round}/{}: {}: {rate:.0} (lap of {:.1} s)",
                args.rounds,
                cells[at],
                begun.elapsed().as_secs_f64()
            );
            // The first round fills caches and files.
            if round > 0 {
                figures.add(at, rate);
            }
        }
    }
    Ok(figures)
}
