//! What it costs to do a long operation durably: 1,418 rows that are no work, in one operation, beside 15 statements by
//! hand.
//!
//! All on one private PostgreSQL that syncs its commits. A part is `insert into effects select unnest($1)` with 100 rows,
//! the last one with 18; where parts may grow, with up to 500.
//!
//! - *statements*: 15 statements on one connection, each committed by itself: no operation at all. Whoever is killed in
//!   between does not know how far they were.
//! - *with a cursor*: the same in transactions, each of which also updates a row that says how far it is, and three more
//!   writes: accepted before, done after. The least that one can do by hand for the same guarantees, without leases.
//! - *operation*: `heal.batch(…).run(…)` with `batch::run_tx`, from the call until it is written down that it is done.
//!   Each time in a runtime of its own, so that nothing is known of it but that a row is taken to cost 10 ms. By default
//!   its parts grow as the rows turn out cheap: 100, 200, 400, 500 and 218. *In parts of 100* they must not (`most =
//!   100`): that is the one to compare with the 15 by hand, part by part.
//!
//! Each round does all four in random order; the ratio is that of two times of one round.

use std::{env, error::Error, process::ExitCode, time::Duration};

use selfheal::{
    Heal, PgHealPool,
    batch::{self, Part, Results},
    batch_executor::journal::{Counts, End, Journal, Key, KeyUntil, NewJob, Settle},
    clock::Clock,
    config::{Config, Source},
};
use selfheal_benches::{Busy, Dice, Machine, Spread, Table};
use sqlx::{Connection as _, Executor as _, PgConnection};

#[path = "../../tests/pg/keeper.rs"]
#[expect(clippy::expect_used, reason = "it is shared with the tests, which fail so")]
mod keeper;
#[path = "../../tests/pg/server.rs"]
#[expect(
    dead_code,
    clippy::expect_used,
    reason = "it is shared with the tests, which need more of it and fail so"
)]
mod server;

const ROWS: i64 = 1_418;
const PART: usize = 100;
const CONFIG: &str =
    "[pools.main]\n[batches.effects]\ndeadline = \"10s\"\nper_item = \"10ms\"\nreply = \"fill\"\n";
const INSERT: &str = "insert into effects select unnest($1::int8[])";

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Statements,
    Cursor,
    FixedParts,
    Operation,
}

const WAYS: [Way; 4] = [Way::Statements, Way::Cursor, Way::FixedParts, Way::Operation];

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Statements => "15 statements",
            Self::Cursor => "15 transactions with a cursor",
            Self::FixedParts => "operation (run_tx), in parts of 100",
            Self::Operation => "operation (run_tx)",
        }
    }
}

fn main() -> ExitCode {
    let mut words = env::args().skip(1).filter(|word| word != "--bench");
    let rounds = match (words.next().as_deref(), words.next().and_then(|rounds| rounds.parse().ok())) {
        (None, _) => 51,
        (Some("--rounds"), Some(rounds)) => rounds,
        _ => {
            eprintln!("usage: [--rounds N]");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(measure(rounds))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(rounds: usize) -> Result<(), Box<dyn Error>> {
    let server = server::server().ok_or("PostgreSQL is needed: install the package `postgresql`")?.durable();
    let database = server.alone().await;
    let mut by_hand = PgConnection::connect_with(&database.options()).await?;
    by_hand.execute("create table effects (item int8)").await?;
    by_hand
        .execute("create table cursors (id int8 primary key, payload bytea, done int8, over bool)")
        .await?;
    let pool = PgHealPool::builder().max(4).connect_with(database.options()).await?;
    let fsync: String = sqlx::query_scalar("show fsync").fetch_one(&mut by_hand).await?;
    let version: String = sqlx::query_scalar("show server_version").fetch_one(&mut by_hand).await?;
    println!("{}\nPostgreSQL {version}, fsync {fsync}; {rounds} rounds in random order\n", Machine::here());
    let (busy, mut dice, clock) = (Busy::start(), Dice::new(1), Clock::system());
    let items: Vec<i64> = (0..ROWS).collect();
    let mut found: Vec<[f64; 4]> = Vec::new();
    // The first round is for nothing, so that whatever is there only once is there.
    for round in 0..=rounds {
        let (mut turns, mut times) = (WAYS, [f64::NAN; 4]);
        dice.shuffle(&mut turns);
        for way in turns {
            let took = match way {
                Way::Statements => {
                    let began = clock.now();
                    statements(&mut by_hand, &items).await?;
                    clock.now().since(began)
                }
                Way::Cursor => {
                    let began = clock.now();
                    with_a_cursor(&mut by_hand, round as i64, &items).await?;
                    clock.now().since(began)
                }
                Way::FixedParts => {
                    operation(&pool, &items, &format!("{CONFIG}most = {PART}\n"), &clock).await?
                }
                Way::Operation => operation(&pool, &items, CONFIG, &clock).await?,
            };
            let rows: i64 =
                sqlx::query_scalar("select count(*) from effects").fetch_one(&mut by_hand).await?;
            if rows != ROWS {
                return Err(format!("{way:?} has written {rows} rows").into());
            }
            by_hand.execute("truncate effects").await?;
            times[way as usize] = took.as_secs_f64() * 1e3;
        }
        found.push(times);
    }
    found.remove(0);
    let column = |way: Way| found.iter().map(move |times| times[way as usize]);
    let ratio = |of: Way, to: Way| found.iter().map(move |times| times[of as usize] / times[to as usize]);
    let mut table = Table::new(["", "ms", "x statements", "x with a cursor"]);
    for way in WAYS {
        let cell = |spread: Option<Spread>| spread.map_or("-".to_owned(), |spread| format!("{spread:.2}"));
        table.row([
            way.name().to_owned(),
            cell(Spread::of(column(way))),
            cell(Spread::of(ratio(way, Way::Statements))),
            cell(Spread::of(ratio(way, Way::Cursor))),
        ]);
    }
    println!("{ROWS} rows:\n\n{table}");
    let share = busy.share();
    println!(
        "The machine was busy for {:.0} %, {:.0} % with this.",
        share.machine * 100.0,
        share.own * 100.0
    );
    Ok(())
}

async fn statements(conn: &mut PgConnection, items: &[i64]) -> Result<(), sqlx::Error> {
    for part in items.chunks(PART) {
        sqlx::query(INSERT).bind(part).execute(&mut *conn).await?;
    }
    Ok(())
}

async fn with_a_cursor(conn: &mut PgConnection, id: i64, items: &[i64]) -> Result<(), Box<dyn Error>> {
    let accept = sqlx::query("insert into cursors values ($1, $2, 0, false)");
    accept.bind(id).bind(serde_json::to_vec(items)?).execute(&mut *conn).await?;
    for part in items.chunks(PART) {
        let mut tx = conn.begin().await?;
        sqlx::query(INSERT).bind(part).execute(&mut *tx).await?;
        let advance = sqlx::query("update cursors set done = done + $2 where id = $1");
        advance.bind(id).bind(part.len() as i64).execute(&mut *tx).await?;
        tx.commit().await?;
    }
    sqlx::query("update cursors set over = true where id = $1").bind(id).execute(&mut *conn).await?;
    Ok(())
}

async fn operation(
    pool: &PgHealPool,
    items: &[i64],
    config: &str,
    clock: &Clock,
) -> Result<Duration, Box<dyn Error>> {
    let insert = batch::run_tx(pool, |conn, part: Part<i64>| {
        Box::pin(async move {
            sqlx::query(INSERT).bind(&part[..]).execute(conn).await?;
            Ok(Results::done())
        })
    });
    let config = Config::load(&Source::text("bench.toml", config))?;
    let heal = Heal::builder().config(config).pool("main", pool).batch("effects", insert).start().await?;
    warm(&*heal.journal("main").ok_or("there is a pool")?).await?;
    let began = clock.now();
    let report = heal.batch("effects").caller("bench").run(items).await?;
    let took = clock.now().since(began);
    if report.counts.done != ROWS as u64 || report.job.is_none() {
        return Err(format!("the operation was not done durably: {report:?}").into());
    }
    heal.shutdown().await;
    Ok(took)
}

/// A service that has been running has its connections, to tables that are there, and its statements prepared: writes
/// something down as an operation is, and ends it.
async fn warm(journal: &dyn Journal) -> Result<(), Box<dyn Error>> {
    let span = Duration::from_secs(60);
    let key = Some(Key { text: "warm".to_owned(), until: KeyUntil::Over });
    let job = NewJob { key, hold: Some(span), keep: span, ..NewJob::new("nothing", Vec::new()) };
    let accepted = journal.accept(vec![job]).await?;
    let lease = accepted.first().and_then(|job| job.lease).ok_or("it was to be held")?;
    journal.settle(vec![Settle { lease, end: End::Done { counts: Counts::default() } }]).await?;
    Ok(())
}
