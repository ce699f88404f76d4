//! A process that accepts jobs and works on them is killed with SIGKILL, again and again, wherever it is.
//!
//! The victim is this test binary itself. It says on its output what it has acknowledged, so that the one who kills it
//! knows what must not be lost. Each job writes one row into a table that has no unique key, in the transaction that also
//! ends the job: a job that was done twice would show. Half of the kills strike at a named point, half whenever.

use std::{collections::BTreeSet, io::Write as _, process::Stdio, time::Duration};

use futures_core::future::BoxFuture;
use selfheal::{
    HealPool,
    batch_executor::journal::{Claimed, Fence, NewJob, Settle},
    store::{Dialect, Jobs},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use super::{accept, books, claim, done};
use crate::guarded::seed;

/// Where the victim finds its database.
pub(crate) const DATABASE: &str = "SELFHEAL_VICTIM_DATABASE";
/// The first item that it accepts.
pub(crate) const FIRST: &str = "SELFHEAL_VICTIM_FIRST";
/// Where it stops, and after how many times that it was there.
const POINT: &str = "SELFHEAL_VICTIM_POINT";

const POINTS: [&str; 6] =
    ["before accept", "before ack", "after claim", "after effect", "before commit", "after commit"];

/// Short, so that what a victim had is soon another's.
const TTL: Duration = Duration::from_millis(300);
const AT_ONCE: u32 = 4;

/// Writes the row of an item.
pub(crate) type Effect<DB> =
    for<'c> fn(&'c mut <DB as sqlx::Database>::Connection, i64) -> BoxFuture<'c, Result<(), sqlx::Error>>;

#[expect(clippy::disallowed_methods, reason = "the victim is told by its environment what to do")]
pub(crate) fn told(key: &str) -> Option<String> {
    std::env::var(key).ok()
}

/// How often is killed: `KILLS=…` in the long form.
pub(crate) fn kills(default: usize) -> usize {
    told("KILLS").and_then(|kills| kills.parse().ok()).unwrap_or(default)
}

pub(crate) fn say(line: &str) {
    // Whoever listens may be gone; then so is this process, soon.
    let _ = writeln!(std::io::stdout(), "VICTIM {line}");
    let _ = std::io::stdout().flush();
}

/// A point at which to be killed.
pub(crate) struct Point {
    name: String,
    times: u32,
}

impl Point {
    pub(crate) fn told() -> Self {
        let told = told(POINT).unwrap_or_default();
        let (name, times) = told.split_once('/').unwrap_or(("", "0"));
        Self { name: name.to_owned(), times: times.parse().expect("a number") }
    }

    /// Stops the whole process here, if this is the point.
    pub(crate) fn pass(&mut self, name: &str) {
        if self.name == name {
            self.times = self.times.saturating_sub(1);
            if self.times == 0 {
                say("here");
                std::thread::sleep(Duration::from_secs(3_600));
            }
        }
    }
}

/// What the victim does until it is killed.
pub(crate) async fn victim<DB: Dialect>(pool: &HealPool<DB>, effect: Effect<DB>) {
    let jobs = Jobs::of(pool);
    jobs.ready().await.expect("tables");
    let mut point = Point::told();
    let first: i64 = told(FIRST).expect("it is told").parse().expect("a number");
    say("ready");
    for item in first.. {
        point.pass("before accept");
        let new = NewJob::new("effect", item.to_string());
        accept(&jobs, vec![new]).await;
        point.pass("before ack");
        say(&format!("acked {item}."));
        for claimed in claim(&jobs, &["effect"], AT_ONCE, TTL).await {
            point.pass("after claim");
            work(&jobs, pool, effect, &claimed, &mut point).await;
        }
    }
}

async fn work<DB: Dialect>(
    jobs: &Jobs<DB>,
    pool: &HealPool<DB>,
    effect: Effect<DB>,
    claimed: &Claimed,
    point: &mut Point,
) {
    let item = std::str::from_utf8(&claimed.payload).expect("text").parse().expect("a number");
    let mut tx = pool.begin().await.expect("a transaction");
    effect(&mut tx, item).await.expect("a row");
    point.pass("after effect");
    let end = Settle { lease: claimed.lease, end: done() };
    match jobs.settle_within(&mut tx, end).await.expect("it is written") {
        Fence::Held => {
            point.pass("before commit");
            tx.commit().await.expect("it commits");
            point.pass("after commit");
        }
        Fence::Lost => tx.rollback().await.expect("it is undone"),
    }
}

/// Kills as many victims; `victim` is the test that is one. Says what was acknowledged.
pub(crate) async fn kill(victim: &str, database: &str, kills: usize) -> BTreeSet<i64> {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut acked = BTreeSet::new();
    for n in 0..kills {
        let at_point = n % 2 == 0;
        let point = POINTS[random.usize(..POINTS.len())];
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args([victim, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(DATABASE, database).env(FIRST, (n * 1_000_000).to_string());
        if at_point {
            command.env(POINT, format!("{point}/{}", random.u32(1..6)));
        }
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn();
        let mut child = spawned.expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let pause = Duration::from_millis(random.u64(5..400));
        let listening = async {
            while let Some(line) = lines.next_line().await.expect("it is text") {
                // The harness begins its line with the name of the test.
                match line.split_once("VICTIM ").map(|(_, said)| said) {
                    Some("ready") if !at_point => return,
                    Some("here") => return,
                    Some(said) => acked.extend(item(said)),
                    None => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), listening).await.expect("it lives");
        if !at_point {
            tokio::time::sleep(pause).await;
        }
        child.start_kill().expect("it is killed");
        // What it had said before that is still in the pipe; the last line may be a half one.
        while let Ok(Some(line)) = lines.next_line().await {
            acked.extend(line.split_once("VICTIM ").and_then(|(_, said)| item(said)));
        }
        let status = child.wait().await.expect("it has ended");
        assert!(!status.success() && status.code().is_none(), "victim {n} ended by itself: {status}");
    }
    acked
}

/// The item that was acknowledged. Its line ends with a dot, so that half of one is none.
fn item(said: &str) -> Option<i64> {
    said.strip_prefix("acked ")?.strip_suffix('.')?.parse().ok()
}

/// Works on what is left, until nothing is pending or leased.
pub(crate) async fn finish<DB: Dialect>(pool: &HealPool<DB>, effect: Effect<DB>) {
    let jobs = Jobs::of(pool);
    let mut nowhere = Point { name: String::new(), times: 0 };
    let left = async {
        loop {
            for claimed in claim(&jobs, &["effect"], 100, Duration::from_secs(60)).await {
                work(&jobs, pool, effect, &claimed, &mut nowhere).await;
            }
            if let [0, 0, _, dead] = books(&jobs).await {
                assert_eq!(dead, 0);
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(45), left).await.expect("nothing is in limbo");
}

/// What was acknowledged is there, and everything that is there is there once.
pub(crate) fn once(acked: &BTreeSet<i64>, effects: &[i64]) {
    let items: BTreeSet<_> = effects.iter().copied().collect();
    assert_eq!(items.len(), effects.len(), "none was done twice");
    let lost: Vec<_> = acked.difference(&items).collect();
    assert!(lost.is_empty(), "acknowledged and not done: {lost:?}");
    assert!(!acked.is_empty(), "something was done");
}
