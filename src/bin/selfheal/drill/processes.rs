//! Several processes of the healed service on one PostgreSQL server.
//!
//! Each has a pool as large as the server, so that together they want far more than there is. The first one is loaded
//! alone until it holds all that the server has; then the others start, and the load goes to all of them. What is
//! promised: after the first second nobody is told that the server has too many clients, every critical request is
//! served, and the processes hold equal parts, by their own gates' count and by the server's.

use std::{
    error::Error,
    fmt::{self, Write as _},
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::http::Method;
use selfheal::{
    clock::{Clock, Tick},
    level::Mode,
};
use serde::Serialize;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use super::{
    figures::Callers,
    lab::Lab,
    load::{self, Fate, Load},
};
use crate::{desk::POOL_MAX, web::Web};

/// How long each query of the desk holds its connection: long enough that the server's slots run out before the
/// machine does.
const HOLD: Duration = Duration::from_millis(200);
/// The first process alone: it has all that the server has when the others come.
const ALONE: Load = Load {
    name: "alone-",
    base_for: Duration::from_millis(2_500),
    route: load::short_route,
    lead: Duration::from_millis(250),
    dashboards: 3,
    clicks_over: Duration::from_millis(1_500),
};
/// The others come so long after its beginning.
const OTHERS_COME: Duration = Duration::from_millis(1_500);
/// All of them: about one and a half times what the server can serve.
const TOGETHER: Load = Load {
    name: "together-",
    base_for: Duration::from_millis(7_000),
    route: load::short_route,
    lead: Duration::ZERO,
    dashboards: 7,
    clicks_over: Duration::from_millis(7_000),
};
/// So long after the last one came they may still be finding their parts.
const SETTLED: Duration = Duration::from_secs(1);
/// How often the server and the processes are asked what is in use.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// The parts may differ by so much of their mean.
const APART: f64 = 0.2;

const SLOTS: &str = "SELECT current_setting('max_connections')::bigint \
                     - current_setting('superuser_reserved_connections')::bigint";
/// Of each service, by its name.
const SESSIONS: &str = "SELECT (SELECT count(*) FROM pg_stat_activity WHERE application_name = name) \
                        FROM unnest($1::text[]) WITH ORDINALITY AS names (name, number) ORDER BY number";

/// What the drill is run with.
pub(super) struct Setting {
    pub(super) seed: u64,
    pub(super) processes: u32,
    pub(super) mode: Mode,
    pub(super) clock: Clock,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    drill: &'static str,
    database: String,
    processes: u32,
    /// Connections that each process's pool may have.
    pool_max: u32,
    /// Sessions that a normal role may have on the server.
    slots: i64,
    with: Callers,
    /// Refused at once, in JSON, with the time to come back.
    refused: usize,
    /// Callers who heard that there is no connection: while the processes found their parts, and after that.
    no_connection_at_first: usize,
    no_connection: usize,
    /// Each process, after the first second, over the time of the load.
    shares: Vec<Share>,
    /// How far the largest and the smallest part are apart, of their mean: in use, and open at the server.
    apart_in_use: f64,
    apart_sessions: f64,
    /// The promises that were not kept, in words.
    missed: Vec<String>,
    pub(super) passed: bool,
}

/// A process's part of the server: means.
#[derive(Clone, Debug, Default, Serialize)]
struct Share {
    /// What its gate let it use.
    limit: f64,
    /// What its gate had handed out.
    in_use: f64,
    /// What the server counted.
    sessions: f64,
}

/// One process of the service. It is killed when dropped, and its sessions end with it.
struct Process {
    child: Child,
    url: String,
    /// What its sessions are called.
    name: String,
}

/// Runs it.
pub(super) async fn share(lab: &mut Lab, setting: &Setting) -> Result<Figures, Box<dyn Error>> {
    let Setting { seed, processes, clock, .. } = setting;
    let database = lab.version().await?;
    let mut observer = lab.observer().await?.ok_or("there is no server to share")?;
    let slots = sqlx::query_scalar(SLOTS).fetch_one(&mut observer).await?;

    let mut all = vec![Process::start(lab.url(), 1, setting.mode).await?];
    let began = clock.now();
    let (first, own) = (all[0].url.clone(), clock.clone());
    let alone = ALONE.shots(*seed);
    let alone = tokio::runtime::Handle::current()
        .spawn(async move { load::fire(alone, &[first], began, &own).await });
    tokio::time::sleep(OTHERS_COME).await;
    for number in 2..=*processes {
        all.push(Process::start(lab.url(), number, setting.mode).await?);
    }
    let urls: Vec<_> = all.iter().map(|process| process.url.clone()).collect();
    let start = clock.now();
    let look = look(&all, observer, start, clock);
    let (together, looked) =
        tokio::join!(load::fire(TOGETHER.shots(seed.wrapping_add(1)), &urls, start, clock), look);
    let alone = alone.await?;
    drop(all);
    let shares = looked?;
    let fates = Fates { alone, began, together, start };
    let doubled = lab.doubled().await?;
    let mut figures = fates.figures(doubled);
    figures.database = database;
    figures.processes = *processes;
    figures.slots = slots;
    figures.apart_in_use = apart(shares.iter().map(|share| share.in_use));
    figures.apart_sessions = apart(shares.iter().map(|share| share.sessions));
    figures.shares = shares;
    figures.missed = missed(&figures);
    figures.passed = figures.missed.is_empty();
    Ok(figures)
}

impl Process {
    async fn start(database: &str, number: u32, mode: Mode) -> Result<Self, Box<dyn Error>> {
        let name = format!("drill-desk-{number}");
        let database = format!("{database}&application_name={name}");
        // A folder without a config: the one that is built in.
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", "--listen", "127.0.0.1:0", "--database-url", &database])
            .args(["--hold", &format!("{}ms", HOLD.as_millis())])
            .env("SELFHEAL__RUNTIME__MODE", mode.name())
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("its output is piped")?;
        let mut process = Self { child, url: String::new(), name };
        let said = tokio::task::spawn_blocking(move || BufReader::new(stdout).lines().next());
        let said = said.await?.ok_or("the service ended before it listened")??;
        process.url = said.trim().to_owned();
        Ok(process)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks at the processes and at the server, from when they should have settled to the end of the load.
async fn look(
    all: &[Process],
    observer: PgConnection,
    start: Tick,
    clock: &Clock,
) -> Result<Vec<Share>, Box<dyn Error>> {
    tokio::time::sleep(SETTLED).await;
    let end = start + TOGETHER.base_for;
    // Apart from each other: a process that is busy answers late, and the server should be looked at meanwhile.
    let (sessions, gates) = tokio::join!(sessions(all, observer, end, clock), gates(all, end, clock));
    let mut shares = gates?;
    for (share, sessions) in shares.iter_mut().zip(sessions?) {
        share.sessions = sessions;
    }
    Ok(shares)
}

/// The mean of each process's sessions, as the server counts them.
#[expect(clippy::cast_precision_loss, reason = "a server has fewer sessions than that")]
async fn sessions(
    all: &[Process],
    mut observer: PgConnection,
    end: Tick,
    clock: &Clock,
) -> Result<Vec<f64>, Box<dyn Error>> {
    let names: Vec<_> = all.iter().map(|process| process.name.clone()).collect();
    let (mut sums, mut looks) = (vec![0.0; all.len()], 0.0);
    while clock.now() < end {
        let counts = sqlx::query_scalar::<_, i64>(SESSIONS).bind(&names).fetch_all(&mut observer).await?;
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count as f64);
        looks += 1.0;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    observer.close().await?;
    Ok(sums.into_iter().map(|sum| sum / looks).collect())
}

/// The mean of what each process's gate says.
async fn gates(all: &[Process], end: Tick, clock: &Clock) -> Result<Vec<Share>, Box<dyn Error>> {
    let web = Web::new();
    let (mut sums, mut looks) = (vec![Share::default(); all.len()], 0.0);
    while clock.now() < end {
        for (process, sum) in all.iter().zip(&mut sums) {
            let url = format!("{}/admin/self-healing/api/v1/pools", process.url);
            let answer = web.send(Method::GET, &url, &[], None).await?;
            let answer: Value = serde_json::from_slice(&answer.body)?;
            let number = |key: &str| answer["pools"][0][key].as_f64().unwrap_or(0.0);
            sum.limit += number("limit");
            sum.in_use += number("real_in_use");
        }
        looks += 1.0;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let mean = |sum: Share| Share { limit: sum.limit / looks, in_use: sum.in_use / looks, sessions: 0.0 };
    Ok(sums.into_iter().map(mean).collect())
}

/// What became of both loads.
struct Fates {
    alone: Vec<Fate>,
    began: Tick,
    together: Vec<Fate>,
    /// When the second one began: all processes are there.
    start: Tick,
}

impl Fates {
    /// All that callers can tell.
    fn figures(mut self, doubled: i64) -> Figures {
        let no_connection = |fates: &[Fate], began: Tick, late: bool| {
            let is_late = |fate: &&Fate| (began + fate.known_at()).since(self.start) >= SETTLED;
            fates.iter().filter(|fate| heard_of_no_connection(fate) && is_late(fate) == late).count()
        };
        let in_all = |late| {
            no_connection(&self.alone, self.began, late) + no_connection(&self.together, self.start, late)
        };
        let (no_connection_at_first, no_connection) = (in_all(false), in_all(true));
        self.alone.append(&mut self.together);
        Figures {
            drill: "pool",
            database: String::new(),
            processes: 0,
            pool_max: POOL_MAX,
            slots: 0,
            refused: self.alone.iter().filter(|fate| fate.is_refused()).count(),
            with: Callers::count(&self.alone, doubled),
            no_connection_at_first,
            no_connection,
            shares: Vec::new(),
            apart_in_use: 0.0,
            apart_sessions: 0.0,
            missed: Vec::new(),
            passed: false,
        }
    }
}

/// The code of a reply for which the pool had no connection, SQLSTATE 53300 among the reasons.
fn heard_of_no_connection(fate: &&Fate) -> bool {
    let json = fate.reply.as_ref().and_then(|reply| reply.json.as_ref());
    json.is_some_and(|json| json["code"] == "pool_timeout")
}

/// The difference of the largest and the smallest, of the mean.
fn apart(parts: impl Iterator<Item = f64>) -> f64 {
    let parts: Vec<_> = parts.collect();
    let mean = parts.iter().sum::<f64>() / f64::from(u32::try_from(parts.len()).unwrap_or(1).max(1));
    let most = parts.iter().copied().fold(0.0, f64::max);
    let least = parts.iter().copied().fold(f64::INFINITY, f64::min);
    if mean > 0.0 { (most - least) / mean } else { f64::INFINITY }
}

fn missed(figures: &Figures) -> Vec<String> {
    let mut missed = Vec::new();
    let mut promise = |kept: bool, words: String| {
        if !kept {
            missed.push(words);
        }
    };
    let Figures { with, no_connection, apart_in_use, apart_sessions, .. } = figures;
    promise(
        *no_connection == 0,
        format!("{no_connection} callers heard of no connection after the first second"),
    );
    promise(*apart_in_use <= APART, format!("parts in use are {:.0} % apart", apart_in_use * 100.0));
    promise(
        *apart_sessions <= APART,
        format!("parts of the server are {:.0} % apart", apart_sessions * 100.0),
    );
    let failed = with.critical.sent - with.critical.ok;
    promise(failed == 0, format!("{failed} of {} critical requests were not served", with.critical.sent));
    promise(with.lost == 0, format!("{} requests got no reply", with.lost));
    promise(with.doubled == 0, format!("{} effects were doubled", with.doubled));
    promise(with.non_json == 0, format!("{} replies were not JSON", with.non_json));
    promise(with.failed == 0, format!("{} requests failed", with.failed));
    missed
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { database, processes, pool_max, slots, with, .. } = self;
        writeln!(
            f,
            "{processes} processes with a pool of {pool_max} each share {slots} slots, on {database}\n"
        )?;
        for (number, share) in self.shares.iter().enumerate() {
            let Share { limit, in_use, sessions, .. } = share;
            let number = number + 1;
            writeln!(
                f,
                "process {number}: {in_use:.1} in use of a limit of {limit:.1}, {sessions:.1} at the server"
            )?;
        }
        let mut words = String::new();
        // Writing to a string cannot fail.
        let _ = write!(words, "{:.0} % apart in use, ", self.apart_in_use * 100.0);
        let _ = write!(words, "{:.0} % at the server", self.apart_sessions * 100.0);
        writeln!(f, "{words}\n")?;
        let (first, later) = (self.no_connection_at_first, self.no_connection);
        writeln!(f, "no connection to be had: {first} callers in the first second, {later} after it")?;
        let (ok, sent) = (with.critical.ok, with.critical.sent);
        writeln!(f, "sign-in, assignment: {ok} of {sent} served")?;
        let (refused, requests) = (self.refused, with.requests);
        writeln!(f, "{} of {requests} failed, {refused} asked to come back", with.failed)?;
        with.errors.iter().try_for_each(|said| writeln!(f, "  {} times: {}", said.count, said.text))?;
        writeln!(f)?;
        match self.passed {
            true => writeln!(f, "✅ Every promise was kept."),
            false => self.missed.iter().try_for_each(|promise| writeln!(f, "❌ {promise}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_apart_by_their_difference_of_their_mean() {
        assert!((apart([44.0, 48.0].into_iter()) - 4.0 / 46.0).abs() < 1e-9);
        assert!(apart([0.0, 0.0].into_iter()).is_infinite(), "nothing was shared");
    }
}
