//! What a drill measured, in the shape that scripts read, and whether it kept its promises.
//!
//! Moments are milliseconds from the first click on the dashboard. They are read by the callers' clock where
//! callers notice (a failure, a refusal) and from the runtime's own log where it acts (a level).

use std::{collections::HashMap, time::Duration};

use serde::Serialize;

use super::{
    comparison::Comparison,
    load::{Fate, LEAD, Route},
};

/// A dashboard that takes longer has not been seen by its user.
pub(crate) const DASHBOARD_DEADLINE: Duration = Duration::from_secs(10);
/// A load that is sent later than this, in milliseconds, says more about the machine than about the service.
const BUSY: i64 = 100;
/// More kinds of errors than this are not listed.
const ERRORS_LISTED: usize = 5;

/// A whole drill.
pub(crate) type Figures = Comparison<Without, With>;

/// Requests of which each had to succeed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Critical {
    pub(crate) sent: usize,
    pub(crate) ok: usize,
}

/// Dashboards, each complete within the deadline or not at all.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Dashboards {
    pub(crate) sent: usize,
    pub(crate) completed: usize,
}

/// What callers saw of either run.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Callers {
    pub(crate) requests: usize,
    /// One request in a hundred was sent later than this after its moment. Much more than 10 ms: the machine has
    /// too much else to do, and the figures speak of that.
    pub(crate) late_ms: i64,
    pub(crate) critical: Critical,
    pub(crate) dashboards: Dashboards,
    /// Requests without any reply.
    pub(crate) lost: usize,
    /// Effects beyond one a request.
    pub(crate) doubled: i64,
    /// Replies that do not parse as JSON.
    pub(crate) non_json: usize,
    /// Replies that were neither what was asked for nor a refusal in the service's own words.
    pub(crate) failed: usize,
    /// What the failed ones said, most frequent first.
    pub(crate) errors: Vec<Said>,
    /// The slowest dashboard that was completed.
    pub(crate) slowest_dashboard_ms: Option<i64>,
    /// When the last dashboard was completed.
    pub(crate) last_dashboard_ms: Option<i64>,
}

/// The same text, so many times.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) count: usize,
}

/// The run of the plain services.
#[derive(Debug, Serialize)]
pub(crate) struct Without {
    /// How many services shared the load and the database.
    pub(crate) services: usize,
    #[serde(flatten)]
    pub(crate) callers: Callers,
    /// What the database itself said to a bare connection meanwhile; a pool hides it behind its own timeout.
    pub(crate) cause: Option<String>,
    pub(crate) peak_in_use: u32,
    pub(crate) limit: u32,
    pub(crate) exhausted_ms: Option<i64>,
    pub(crate) first_failure_ms: Option<i64>,
    pub(crate) last_failure_ms: Option<i64>,
}

/// The run of the healed service.
#[derive(Debug, Serialize)]
pub(crate) struct With {
    pub(crate) mode: &'static str,
    #[serde(flatten)]
    pub(crate) callers: Callers,
    /// Refused at once, in JSON, with the time to come back.
    pub(crate) refused: usize,
    /// Dashboards that left their optional half out, and said so.
    pub(crate) reduced_dashboards: usize,
    /// Queries that had to wait for a connection.
    pub(crate) deferred: u64,
    /// Those of them that got one.
    pub(crate) drained: u64,
    /// What mode `observe` would have refused.
    pub(crate) would_refuse: u64,
    pub(crate) peak_in_use: u32,
    pub(crate) limit: u32,
    pub(crate) first_shed_ms: Option<i64>,
    pub(crate) warning_ms: Option<i64>,
    pub(crate) critical_ms: Option<i64>,
    pub(crate) recovered_ms: Option<i64>,
}

/// A moment of the load, in milliseconds from the first click.
pub(crate) fn from_click(since_start: Duration) -> i64 {
    let whole = |moment: Duration| i64::try_from(moment.as_millis()).unwrap_or(i64::MAX);
    whole(since_start) - whole(LEAD)
}

impl Callers {
    /// Counts what became of the load. `doubled` is counted in the database, not here.
    pub(crate) fn count(fates: &[Fate], doubled: i64) -> Self {
        let of = |which: fn(&Fate) -> bool| fates.iter().filter(move |fate| which(fate));
        let critical = || of(|fate| fate.shot.route.is_critical());
        let completed = || of(is_completed_dashboard);
        Self {
            requests: fates.len(),
            late_ms: late(fates),
            critical: Critical {
                sent: critical().count(),
                ok: critical().filter(|fate| fate.is_ok()).count(),
            },
            dashboards: Dashboards {
                sent: of(|fate| fate.shot.route == Route::Dashboard).count(),
                completed: completed().count(),
            },
            lost: of(|fate| fate.reply.is_none()).count(),
            doubled,
            non_json: of(|fate| fate.reply.as_ref().is_some_and(|reply| reply.json.is_none())).count(),
            failed: of(has_failed).count(),
            errors: errors(fates),
            slowest_dashboard_ms: completed().map(|fate| fate.took).max().map(millis),
            last_dashboard_ms: completed().map(Fate::known_at).max().map(from_click),
        }
    }
}

/// The 99th percentile of how late requests were sent.
fn late(fates: &[Fate]) -> i64 {
    let mut late: Vec<_> = fates.iter().map(|fate| fate.late).collect();
    late.sort_unstable();
    late.get(late.len() * 99 / 100).copied().map_or(0, millis)
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn is_completed_dashboard(fate: &Fate) -> bool {
    fate.shot.route == Route::Dashboard && fate.is_ok() && fate.took <= DASHBOARD_DEADLINE
}

/// Whether the caller saw a failure: no reply, or one that is neither an answer nor a refusal.
pub(crate) fn has_failed(fate: &Fate) -> bool {
    !fate.is_ok() && !fate.is_refused()
}

/// Whether a dashboard came without its optional half.
pub(crate) fn is_reduced(fate: &Fate) -> bool {
    let omitted =
        fate.reply.as_ref().and_then(|reply| reply.json.as_ref()).and_then(|json| json["omitted"].as_array());
    omitted.is_some_and(|names| !names.is_empty())
}

fn errors(fates: &[Fate]) -> Vec<Said> {
    let mut said: HashMap<String, usize> = HashMap::new();
    for fate in fates.iter().filter(|fate| has_failed(fate)) {
        let text = match &fate.reply {
            Some(reply) => format!("{} {}", reply.status, reply.text),
            None => "no reply".to_owned(),
        };
        *said.entry(text).or_default() += 1;
    }
    let mut said: Vec<_> = said.into_iter().map(|(text, count)| Said { text, count }).collect();
    said.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.text.cmp(&b.text)));
    said.truncate(ERRORS_LISTED);
    said
}

/// The promises that these two runs broke.
pub(crate) fn missed(without: &Without, with: &With) -> Vec<String> {
    let plain = &without.callers;
    let healed = &with.callers;
    let mut missed = Vec::new();
    let mut promise = |kept: bool, words: String| {
        if !kept {
            missed.push(words);
        }
    };
    promise(
        plain.failed > 0 && plain.dashboards.completed < plain.dashboards.sent,
        "without healing nothing failed, so there was nothing to heal".to_owned(),
    );
    let Critical { sent, ok } = healed.critical;
    promise(sent == ok, format!("{} of {sent} critical requests were not served", sent - ok));
    let Dashboards { sent, completed } = healed.dashboards;
    promise(sent == completed, format!("{} of {sent} dashboards were not completed", sent - completed));
    promise(healed.lost == 0, format!("{} requests got no reply", healed.lost));
    promise(healed.doubled == 0, format!("{} effects were doubled", healed.doubled));
    promise(healed.non_json == 0, format!("{} replies were not JSON", healed.non_json));
    promise(healed.failed == 0, format!("{} requests failed", healed.failed));
    if !missed.is_empty() && healed.late_ms > BUSY {
        missed.push(format!(
            "the load was sent {} ms late: this machine has too much else to do",
            healed.late_ms
        ));
    }
    missed
}
