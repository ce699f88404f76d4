//! What the drill of failing API calls measured, and whether it kept its promises.

use serde::Serialize;

use super::{api_caller::Called, comparison::Comparison};

/// More than this many calls have to fail before the circuit opens: the rule, not the story.
const RULE: u64 = 5;

/// A whole drill.
pub(crate) type Figures = Comparison<Without, With>;

/// The run of the plain service.
#[derive(Debug, Serialize)]
pub(crate) struct Without {
    #[serde(flatten)]
    pub(crate) group: Group,
    pub(crate) scenarios: Vec<Scenario>,
}

/// The run of the healed service.
#[derive(Debug, Serialize)]
pub(crate) struct With {
    pub(crate) mode: &'static str,
    #[serde(flatten)]
    pub(crate) group: Group,
    pub(crate) scenarios: Vec<Scenario>,
    /// Whether the circuit was closed still when two calls had failed.
    pub(crate) closed_after_two_failures: bool,
    pub(crate) opened_ms: Option<i64>,
    pub(crate) failures_when_opened: Option<u64>,
    /// When the circuit had closed again.
    pub(crate) recovered_ms: Option<i64>,
}

/// What callers saw in all.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Group {
    pub(crate) callers: usize,
    /// Those who had data to show in the end.
    pub(crate) served: usize,
    /// Replies in all.
    pub(crate) requests: usize,
    /// Calls without any reply.
    pub(crate) lost: usize,
    /// Replies that do not parse as JSON.
    pub(crate) non_json: usize,
    /// Replies with older data, marked as such.
    pub(crate) cached: usize,
    /// Refusals in JSON that say when to come back.
    pub(crate) refused: usize,
}

/// One fault, and what its callers saw.
#[derive(Debug, Serialize)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    #[serde(flatten)]
    pub(crate) group: Group,
    pub(crate) calls: Vec<Called>,
}

impl Scenario {
    pub(crate) fn of(name: &'static str, path: &'static str, calls: Vec<Called>) -> Self {
        Self { name, path, group: Group::count(&calls), calls }
    }

    /// The longest wait of a caller for data.
    pub(crate) fn slowest_ms(&self) -> Option<i64> {
        self.calls.iter().filter_map(|called| Some(called.data_ms? - called.from_ms)).max()
    }
}

impl Group {
    fn count(calls: &[Called]) -> Self {
        let replies = || calls.iter().flat_map(|called| &called.replies);
        Self {
            callers: calls.len(),
            served: calls.iter().filter(|called| called.data_ms.is_some()).count(),
            requests: replies().count(),
            lost: replies().filter(|reply| reply.status.is_none()).count(),
            non_json: replies().filter(|reply| reply.status.is_some() && !reply.json).count(),
            cached: replies().filter(|reply| reply.cached).count(),
            refused: replies().filter(|reply| reply.code.is_some() && reply.retry_after.is_some()).count(),
        }
    }

    pub(crate) fn of(scenarios: &[Scenario]) -> Self {
        scenarios.iter().fold(Self::default(), |all, Scenario { group, .. }| Self {
            callers: all.callers + group.callers,
            served: all.served + group.served,
            requests: all.requests + group.requests,
            lost: all.lost + group.lost,
            non_json: all.non_json + group.non_json,
            cached: all.cached + group.cached,
            refused: all.refused + group.refused,
        })
    }
}

/// The promises that these two runs broke.
pub(crate) fn missed(without: &Without, with: &With) -> Vec<String> {
    let mut missed = Vec::new();
    let mut promise = |kept: bool, words: String| {
        if !kept {
            missed.push(words);
        }
    };
    for Scenario { name, group, .. } in &without.scenarios {
        let failed = group.served < group.callers;
        promise(failed, format!("{name}: without healing nothing failed, so there was nothing to heal"));
    }
    for Scenario { name, group, .. } in &with.scenarios {
        let Group { callers, served, lost, non_json, .. } = *group;
        promise(served == callers, format!("{name}: {} of {callers} callers saw no data", callers - served));
        promise(lost == 0, format!("{name}: {lost} calls got no reply"));
        promise(non_json == 0, format!("{name}: {non_json} replies were not JSON"));
    }
    promise(with.closed_after_two_failures, "the circuit did not stay closed after two failures".to_owned());
    let failures = with.failures_when_opened;
    let ruled = failures.is_some_and(|failures| failures > RULE);
    promise(ruled, format!("the circuit opened after {failures:?} failures instead of more than {RULE}"));
    promise(with.recovered_ms.is_some(), "the circuit did not close again".to_owned());
    promise(with.group.cached > 0, "nobody was given what was known before".to_owned());
    missed
}
