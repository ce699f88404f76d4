//! The lines about pools: what they say, and whom they mean.

use std::{collections::HashMap, time::Duration};

use selfheal_actors::{
    clock::Tick,
    gate::{Answer, Ask, ClaimId, JobId, Reason, Work},
    level::Class,
    signal::Name,
};
use serde::{Deserialize, Serialize};

use super::{
    Output, Part, Pool,
    driver::Line,
    pool::{End, Machines, Waiters, in_ms},
};

/// All pools, and the jobs and claims of the trace.
pub(super) struct Pools {
    pools: Vec<(Name, Machines)>,
    jobs: HashMap<String, (usize, Entry)>,
    claims: HashMap<String, Option<(usize, ClaimId)>>,
}

/// What became of a job that wanted in.
#[derive(Clone, Copy)]
enum Entry {
    In(JobId),
    Refused(Reason),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UseLine {
    #[serde(rename = "at_ms")]
    _at: u64,
    pool: String,
    in_use: u32,
    max: Option<u32>,
    #[serde(default)]
    waiting: u32,
    #[serde(default)]
    waiting_critical: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnterLine {
    #[serde(rename = "at_ms")]
    _at: u64,
    enter: String,
    job: String,
    #[serde(default)]
    class: Class,
    user: Option<String>,
    deadline_ms: Option<u64>,
    operation: Option<String>,
    queries: Option<u32>,
    #[serde(default)]
    attempt: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcquireLine {
    #[serde(rename = "at_ms")]
    _at: u64,
    acquire: String,
    id: String,
    job: Option<String>,
    #[serde(default)]
    class: Class,
    user: Option<String>,
    deadline_ms: Option<u64>,
    operation: Option<String>,
    #[serde(default)]
    nested: bool,
}

/// `leave`, `release` and `abandon`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndLine {
    #[serde(rename = "at_ms")]
    _at: u64,
    #[serde(alias = "leave", alias = "release", alias = "abandon")]
    what: String,
}

#[derive(Serialize)]
struct Entered<'a> {
    enter: &'a str,
    job: &'a str,
    admitted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

#[derive(Default, Serialize)]
struct Acquired<'a> {
    acquire: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    granted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl Pools {
    pub(super) fn new(pools: Vec<Pool>, seed: u64) -> Self {
        let pools = pools.into_iter().map(|pool| (Name::clone(&pool.name), Machines::new(pool, seed)));
        Self { pools: pools.collect(), jobs: HashMap::new(), claims: HashMap::new() }
    }

    fn used(&mut self, line: UseLine, now: Tick, out: &mut Output) -> Result<(), String> {
        let UseLine { pool, in_use, max, waiting: all, waiting_critical: critical, .. } = line;
        let pool = self.find(&pool)?;
        let waiters = Waiters { all: all.max(critical), critical };
        self.pools[pool].1.outside(in_use, max, waiters, now, out);
        Ok(())
    }

    fn enter(&mut self, line: EnterLine, now: Tick, out: &mut Output) -> Result<(), String> {
        let pool = self.find(&line.enter)?;
        if self.jobs.contains_key(&line.job) {
            return Err(format!("job `{}` has entered already: it may again once it has left", line.job));
        }
        let (user, operation) = (line.user.map(Name::from), line.operation.map(Name::from));
        let work = Work {
            class: line.class,
            user: user.as_ref(),
            deadline: deadline(now, line.deadline_ms),
            operation: operation.as_ref(),
            queries: line.queries,
            attempt: line.attempt,
        };
        let (decided, effects) = self.pools[pool].1.enter(&work, now);
        let refusal = decided.err();
        out.write(Entered {
            enter: &line.enter,
            job: &line.job,
            admitted: refusal.is_none(),
            reason: refusal.map(|refusal| refusal.reason.name()),
            retry_after_ms: in_ms(refusal.and_then(|refusal| refusal.retry_after)),
        });
        let entry = decided.map_or_else(|refusal| Entry::Refused(refusal.reason), Entry::In);
        self.jobs.insert(line.job, (pool, entry));
        self.pools[pool].1.settle(effects, now, out);
        Ok(())
    }

    fn acquire(&mut self, line: &AcquireLine, now: Tick, out: &mut Output) -> Result<(), String> {
        let pool = self.find(&line.acquire)?;
        if self.claims.contains_key(&line.id) {
            return Err(format!("`{}` is taken: an id is free again after its release", line.id));
        }
        let (user, operation) = (line.user.clone().map(Name::from), line.operation.clone().map(Name::from));
        let work = Work {
            class: line.class,
            user: user.as_ref(),
            deadline: deadline(now, line.deadline_ms),
            operation: operation.as_ref(),
            ..Work::default()
        };
        let job = match &line.job {
            None => None,
            Some(job) => match self.job(job, pool, &work, now, out)? {
                Entry::In(job) => Some(job),
                Entry::Refused(reason) => {
                    self.refuse(line, reason, None, out);
                    return Ok(());
                }
            },
        };
        let ask = Ask { job, work, operation: operation.as_ref(), nested: line.nested };
        let (answer, effects) = self.pools[pool].1.acquire(&line.id, &ask, now);
        let acquired = Acquired { acquire: &line.acquire, id: &line.id, ..Acquired::default() };
        let claim = match answer {
            Answer::Granted(claim) => {
                out.write(Acquired { granted: Some(true), ..acquired });
                Some(claim)
            }
            Answer::Parked(claim) => {
                out.write(Acquired { parked: Some(true), ..acquired });
                Some(claim)
            }
            Answer::Refused(refusal) => {
                self.refuse(line, refusal.reason, refusal.retry_after, out);
                None
            }
        };
        self.claims.insert(line.id.clone(), claim.map(|claim| (pool, claim)));
        self.pools[pool].1.settle(effects, now, out);
        Ok(())
    }

    /// The job behind an acquisition. One that nobody was asked about is taken as it is, as the gate does with
    /// requests that began before anybody asked.
    fn job(
        &mut self,
        job: &str,
        pool: usize,
        work: &Work<'_>,
        now: Tick,
        out: &mut Output,
    ) -> Result<Entry, String> {
        match self.jobs.get(job) {
            Some(&(of, _)) if of != pool => {
                Err(format!("job `{job}` has entered pool `{}` and no other", self.pools[of].0))
            }
            Some(&(_, entry)) => Ok(entry),
            None => {
                let entry = Entry::In(self.pools[pool].1.join(work, now, out));
                self.jobs.insert(job.to_owned(), (pool, entry));
                Ok(entry)
            }
        }
    }

    /// An acquisition that gets nothing, and holds nothing that would have to be released.
    fn refuse(
        &mut self,
        line: &AcquireLine,
        reason: Reason,
        retry_after: Option<Duration>,
        out: &mut Output,
    ) {
        self.claims.insert(line.id.clone(), None);
        out.write(Acquired {
            acquire: &line.acquire,
            id: &line.id,
            refused: Some(&line.id),
            reason: Some(reason.name()),
            retry_after_ms: in_ms(retry_after),
            ..Acquired::default()
        });
    }

    fn leave(&mut self, job: &str, now: Tick, out: &mut Output) -> Result<(), String> {
        let entered = self.jobs.remove(job).ok_or_else(|| format!("job `{job}` has not entered"))?;
        match entered {
            (pool, Entry::In(job)) => self.pools[pool].1.leave(job, now, out),
            (_, Entry::Refused(_)) => {}
        }
        Ok(())
    }

    fn end(&mut self, id: &str, how: End, now: Tick, out: &mut Output) -> Result<(), String> {
        let claim = self.claims.remove(id).ok_or_else(|| format!("nothing was acquired as `{id}`"))?;
        // One that was refused has nothing to give back; the trace could not know.
        if let Some((pool, claim)) = claim {
            self.pools[pool].1.end(claim, how, now, out);
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<usize, String> {
        self.pools.iter().position(|(pool, _)| **pool == *name).ok_or_else(|| {
            let known: Vec<_> = self.pools.iter().map(|(pool, _)| format!("`{pool}`")).collect();
            let known = if known.is_empty() { "there is none".into() } else { known.join(", ") };
            format!("the config has no pool `{name}` ({known}): add [pools.{name}]")
        })
    }
}

impl Part for Pools {
    fn keys(&self) -> &'static [&'static str] {
        &["pool", "enter", "leave", "acquire", "release", "abandon"]
    }

    fn begin(&mut self, _: &mut Output) {}

    fn next_timer(&self) -> Option<Tick> {
        // Time in a trace is whole milliseconds: what is due within one is seen at its end.
        let due = self.pools.iter().filter_map(|(_, pool)| pool.next_timer()).min();
        due.map(|at| Tick::from_millis(at.as_nanos().div_ceil(1_000_000)))
    }

    fn timer(&mut self, now: Tick, out: &mut Output) {
        for (_, pool) in &mut self.pools {
            if pool.next_timer().is_some_and(|at| at <= now) {
                pool.timer(now, out);
            }
        }
    }

    fn line(&mut self, key: &str, line: Line, now: Tick, out: &mut Output) -> Result<(), String> {
        match key {
            "pool" => self.used(line.parse()?, now, out),
            "enter" => self.enter(line.parse()?, now, out),
            "acquire" => self.acquire(&line.parse()?, now, out),
            "leave" => self.leave(&line.parse::<EndLine>()?.what, now, out),
            "release" => self.end(&line.parse::<EndLine>()?.what, End::Release, now, out),
            _ => self.end(&line.parse::<EndLine>()?.what, End::Abandon, now, out),
        }
    }
}

fn deadline(now: Tick, within: Option<u64>) -> Option<Tick> {
    within.map(|ms| now + Duration::from_millis(ms))
}
