//! Overload, on a real PostgreSQL: what different guards keep of the work, and of the work that matters.
//!
//! Queries sleep in the server for a time that was drawn beforehand, so the capacity is known: 90 connections do 90
//! seconds of work a second, and not more. The load is open (arrivals do not wait for answers), fixed by a seed before
//! it is sent, and the same for every contender; times count from the moment at which a request was *meant* to be
//! sent. How much of the capacity the rig itself can reach is measured too, by a closed loop ("oracle").

mod args;
mod client;
mod contender;
mod figures;
mod fixture;
#[path = "../../tests/pg/keeper.rs"]
#[expect(clippy::expect_used, reason = "it is shared with the tests, which fail so")]
mod keeper;
mod load;
mod plan;
mod report;
mod run;
mod scenario;
#[path = "../../tests/pg/server.rs"]
#[expect(
    dead_code,
    clippy::expect_used,
    reason = "it is shared with the tests, which need more of it and fail so"
)]
mod server;
mod smoke;

use std::{collections::BTreeMap, error::Error, fs, process::ExitCode};

use selfheal_benches::Machine;

use crate::{args::Args, figures::Figures, fixture::Fixture, plan::Plan};

/// Connections of every pool. The server has 97 for all.
pub(crate) const SLOTS: u32 = 90;

fn main() -> ExitCode {
    let measured = Args::parse(std::env::args().skip(1)).map_err(Into::into).and_then(|args| measure(&args));
    match measured {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// All that was measured.
#[derive(Default, serde::Serialize)]
struct Measured {
    /// What the rig itself can do, by seed.
    oracles: BTreeMap<u64, f64>,
    runs: Vec<Figures>,
}

/// Whether all holds that was to be checked.
fn measure(args: &Args) -> Result<bool, Box<dyn Error>> {
    let control = run::runtime()?;
    let fixture = control.block_on(Fixture::start())?;
    println!("{}, PostgreSQL {}", Machine::here(), control.block_on(fixture.version())?);
    let plan = Plan::new(args);
    println!("{plan}");
    let measured = plan.perform(&fixture)?;
    for (scenario, _) in &plan.scenarios {
        println!("\n{}", report::table(scenario, &measured.runs, &measured.oracles));
        print!("{}", report::beside(scenario, &measured.runs));
    }
    if let Some(file) = &args.json {
        fs::write(file, serde_json::to_string_pretty(&measured)?)?;
    }
    let violated = if args.smoke { smoke::violated(&measured.runs) } else { Vec::new() };
    violated.iter().for_each(|what| println!("VIOLATED: {what}"));
    Ok(violated.is_empty())
}
