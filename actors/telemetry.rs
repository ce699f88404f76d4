//! Every metric: its name, kind, unit, labels and meaning, in this one file.
//!
//! Names carry their unit (seconds, bytes, ratio from 0 to 1) and labels come from closed sets: a pool, a class
//! or a child is configured, a user or a path never is, so the number of series does not grow with traffic.
//! A state is exported as one series a state, 1 for the one that holds and 0 for all others.

/// What is exported under one name.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name, with the `selfheal_` prefix.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// The labels that tell its series apart.
    pub labels: &'static [&'static str],
    /// What it means, for `# HELP`.
    pub help: &'static str,
}

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

/// Declares each metric as a constant, and all of them as [`ALL`].
macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help)]
            pub const $constant: Metric =
                Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )+

        /// Every metric, in the order of this file.
        pub const ALL: &[Metric] = &[$($constant),+];
    };
}

metrics! {
    POOL_CONNECTIONS = Gauge "selfheal_pool_connections" ["pool", "state"] "Connections of the pool, used or idle.";
    POOL_CONNECTIONS_MAX = Gauge "selfheal_pool_connections_max" ["pool"] "Connections that the pool may have.";
    POOL_LIMIT = Gauge "selfheal_pool_limit" ["pool"] "Connections that the gate hands out at most: the pool's maximum, lowered to what the server has left.";
    POOL_UTILIZATION_RATIO = Gauge "selfheal_pool_utilization_ratio" ["pool"] "Connections in use per connection that the pool may have.";
    POOL_PRESSURE = Gauge "selfheal_pool_pressure" ["pool", "level"] "1 for the level that holds.";
    POOL_WAITING = Gauge "selfheal_pool_waiting" ["pool", "class"] "Requests that wait for a connection.";
    POOL_ACQUIRE_DURATION_SECONDS = Histogram "selfheal_pool_acquire_duration_seconds" ["pool", "class"] "Wait for a connection, of those that got one.";
    POOL_SHEDS_TOTAL = Counter "selfheal_pool_sheds_total" ["pool", "class", "reason"] "Requests refused by the gate.";
    POOL_HOLD_DURATION_SECONDS = Histogram "selfheal_pool_hold_duration_seconds" ["pool"] "How long connections were held.";
    POOL_LEAKS_TOTAL = Counter "selfheal_pool_leaks_total" ["pool"] "Connections held for longer than leak_after.";
    STATEMENTS_CANCELLED_TOTAL = Counter "selfheal_statements_cancelled_total" ["pool"] "Statements of work that can wait, ended at the server because critical requests waited for cancel_after.";
    SERVER_CONNECTIONS = Gauge "selfheal_server_connections" ["pool", "state"] "Connections of the database server: used, max, reserved for superusers.";
    TICKETLESS_TOTAL = Counter "selfheal_ticketless_total" ["pool"] "Acquisitions without a ticket, served as class normal.";
    BREAKER_STATE = Gauge "selfheal_breaker_state" ["endpoint", "state"] "1 for the state that the circuit shows.";
    BREAKER_CALLS_TOTAL = Counter "selfheal_breaker_calls_total" ["endpoint", "outcome"] "Calls under a circuit, by how they ended: success, failure, rejected, ignored, cancelled, or stale (too late to count).";
    BREAKER_CALL_DURATION_SECONDS = Histogram "selfheal_breaker_call_duration_seconds" ["endpoint", "outcome"] "How long calls under a circuit took: of those that the HTTP layer and the client make, and of all under slow_call.";
    BREAKER_TRANSITIONS_TOTAL = Counter "selfheal_breaker_transitions_total" ["endpoint", "from", "to", "reason"] "Changes of what a circuit shows.";
    LABEL_OVERFLOW_TOTAL = Counter "selfheal_label_overflow_total" ["metric"] "Times that a name was beyond the bound of how many there are.";
    WOULD_REJECT_TOTAL = Counter "selfheal_would_reject_total" ["what"] "What mode observe would have done: refusals by reason, and actions by name.";
    INCIDENTS_TOTAL = Counter "selfheal_incidents_total" ["kind", "resolution"] "Incidents that have ended, by themselves or by a person.";
    INCIDENT_ACTIVE = Gauge "selfheal_incident_active" ["kind"] "Incidents that are open.";
    INCIDENT_RECOVERY_DURATION_SECONDS = Histogram "selfheal_incident_recovery_duration_seconds" ["kind"] "From the opening of an incident to its recovery.";
    ALERTS_TOTAL = Counter "selfheal_alerts_total" ["severity"] "Alerts raised.";
    SEVERITY = Gauge "selfheal_severity" ["level"] "1 for the worst severity among the open incidents; info when there is none.";
    RESPONSES_REPAIRED_TOTAL = Counter "selfheal_responses_repaired_total" ["endpoint", "reason"] "Replies of JSON routes that were not valid JSON and were replaced.";
    QUERIES_COMBINED_TOTAL = Counter "selfheal_queries_combined_total" ["op"] "Queries that were not made, because a lookup answered several callers by one.";
    RETRIES_TOTAL = Counter "selfheal_retries_total" ["endpoint", "outcome"] "Calls that were made again, by how they ended; and failed calls that were not, because the budget was spent.";
    FALLBACKS_TOTAL = Counter "selfheal_fallbacks_total" ["endpoint", "source"] "Failures for which a kept reply stood in: given as the reply (cache), or inside the refusal (attached).";
    TRANSITIONS_BLOCKED_TOTAL = Counter "selfheal_transitions_blocked_total" ["machine", "from", "to"] "Changes of status that were not made, because the machine's table does not allow them.";
    PREVENTIONS_TOTAL = Counter "selfheal_preventions_total" ["kind"] "Failures that did not happen: pool_exhaustion counts incidents of a pool that recovered without one, retry calls that succeeded when they were made again, invalid_transition changes of status that were blocked, timeout long operations that were cut because they would have taken longer than their callers wait.";
    BATCH_SIZE = Gauge "selfheal_batch_size" ["op"] "Items of a batch of this long operation, now.";
    BATCH_ITEMS_TOTAL = Counter "selfheal_batch_items_total" ["op", "outcome"] "Items of long operations by what became of them: done, blocked, failed.";
    BATCH_REMAINING_ITEMS = Gauge "selfheal_batch_remaining_items" ["op"] "Items of operations under way in this process that nothing has become of yet.";
    BATCH_DURATION_SECONDS = Histogram "selfheal_batch_duration_seconds" ["op"] "How long batches took.";
    QUEUE_DEPTH = Gauge "selfheal_queue_depth" ["queue"] "Durable jobs that are not over.";
    QUEUE_OLDEST_AGE_SECONDS = Gauge "selfheal_queue_oldest_age_seconds" ["queue"] "For how long the oldest durable job that waits has waited.";
    QUEUE_ITEMS_TOTAL = Counter "selfheal_queue_items_total" ["queue", "outcome"] "Durable jobs by what became of them, since the database was made: accepted, drained (done), dead.";
    CHILD_RESTARTS_TOTAL = Counter "selfheal_child_restarts_total" ["child", "reason"] "Restarts of a child, by how it had ended.";
    CHILD_UP = Gauge "selfheal_child_up" ["child"] "1 while the child runs.";
    MAILBOX_DEPTH = Gauge "selfheal_mailbox_depth" ["child"] "Messages that wait for the child.";
    MAILBOX_DROPPED_TOTAL = Counter "selfheal_mailbox_dropped_total" ["child"] "Reports pushed out of a full mailbox by newer ones.";
    SUPERVISOR_ESCALATIONS_TOTAL = Counter "selfheal_supervisor_escalations_total" ["supervisor"] "Times that the supervisor gave up.";
    MODE = Gauge "selfheal_mode" ["mode"] "1 for the mode in force.";
    OPERATOR_ACTIONS_TOTAL = Counter "selfheal_operator_actions_total" ["action", "outcome"] "Actions asked for through the admin API.";
    INVARIANT_VIOLATIONS_TOTAL = Counter "selfheal_invariant_violations_total" ["id"] "Broken invariants of the runtime itself; any is a bug.";
    UP = Gauge "selfheal_up" [] "1 while the control plane runs.";
    BUILD_INFO = Gauge "selfheal_build_info" ["version"] "Always 1.";
}

/// Tells the installed recorder what each metric means.
pub fn describe() {
    for metric in ALL {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_says_its_prefix_and_its_unit_and_stands_once() {
        for (i, metric) in ALL.iter().enumerate() {
            assert!(metric.name.starts_with("selfheal_"), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            let in_seconds = metric.name.ends_with("_seconds");
            assert!(in_seconds || metric.kind != Kind::Histogram, "{}", metric.name);
            assert!(ALL[..i].iter().all(|other| other.name != metric.name), "{} twice", metric.name);
        }
    }
}
