//! Metrics: who records them, and what is derived when somebody looks.
//!
//! The hot path counts in cells; here the cells become series, right before they are shown (and on each upkeep,
//! for recorders that push). A state is exported as one series a state, 1 for the one that holds and 0 for the
//! others, so that none is left standing at 1 when it ends.
//!
//! A recorder belongs to the process, not to a library. If the host has installed one, that one is used, and how
//! it is shown is the host's affair; if not, a Prometheus recorder is installed and shown at `/metrics`. Such a
//! recorder keeps every observation of a histogram until it is asked to tidy up: [`Exporter::upkeep`], every few
//! seconds, whether or not anybody scrapes.

use std::{collections::HashMap, time::Duration};

use metrics::{Label, counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;
use selfheal_actors::{
    batch_executor::Tally,
    breaker::View,
    circuit::Circuit,
    gate::{self, Histogram, Reason},
    level::{Class, Level, Mode, Severity},
    signal::{ChildEvent, Name, Signal, Step},
    telemetry as t,
};

use crate::{
    admin::{Batch, Child, Pool, Reading, Transition},
    store::Queue,
};

type Counts = [u64; Histogram::BOUNDS.len() + 1];
/// A metric, and the values of its labels: a pool and a class or nothing, or an endpoint and an outcome.
type Series = (&'static str, Name, &'static str);

/// Brings the series up to date with the cells, and shows them if they are this process's own to show.
#[derive(Debug, Default)]
pub struct Exporter {
    shown_by: Option<PrometheusHandle>,
    /// What of each histogram has been passed on, by metric and labels.
    passed_on: Mutex<HashMap<Series, (Counts, Duration)>>,
    /// How each child ended last, until it is back.
    ended: Mutex<HashMap<Name, &'static str>>,
}

impl Exporter {
    /// Installs a Prometheus recorder, unless the host has installed a recorder already: then that one is used,
    /// said once in the log, and [`Exporter::render`] shows nothing.
    #[must_use]
    pub fn install() -> Self {
        let recorder = prometheus().build_recorder();
        let handle = recorder.handle();
        let exporter = match metrics::set_global_recorder(recorder) {
            Ok(()) => Self::of(handle),
            Err(_) => {
                tracing::info!(target: "selfheal", "The host has a metrics recorder; it is used, and /metrics stays empty");
                Self::default()
            }
        };
        t::describe();
        exporter
    }

    /// Shows what the host's own Prometheus recorder has: for a host that wants it at our `/metrics` too.
    #[must_use]
    pub fn of(handle: PrometheusHandle) -> Self {
        Self { shown_by: Some(handle), ..Self::default() }
    }

    /// All series as text, after `reading`; `None` if they are the host's to show.
    #[must_use]
    pub fn render(&self, reading: &Reading) -> Option<String> {
        let handle = self.shown_by.as_ref()?;
        self.export(reading);
        Some(handle.render())
    }

    /// Brings the series up to date and lets the recorder tidy up. To be called every few seconds.
    pub fn upkeep(&self, reading: &Reading) {
        self.export(reading);
        if let Some(handle) = &self.shown_by {
            handle.run_upkeep();
        }
    }

    /// Brings the series up to date with `reading`.
    pub fn export(&self, reading: &Reading) {
        gauge!(t::UP.name).set(flag(reading.up));
        gauge!(t::BUILD_INFO.name, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        for mode in Mode::ALL {
            gauge!(t::MODE.name, "mode" => mode.name()).set(flag(*mode == reading.mode));
        }
        for severity in Severity::ALL {
            gauge!(t::SEVERITY.name, "level" => severity.name()).set(flag(*severity == reading.severity));
        }
        for pool in &reading.pools {
            self.pool(pool);
        }
        for breaker in &reading.breakers {
            export_breaker(breaker);
            for (outcome, took) in &breaker.durations {
                let metric = &t::BREAKER_CALL_DURATION_SECONDS;
                self.pass_on(metric, &breaker.name, outcome.name(), took);
            }
        }
        reading.queues.iter().for_each(|(_, queue)| export_queue(queue));
        for batch in &reading.batches {
            export_batch(batch);
            self.pass_on(&t::BATCH_DURATION_SECONDS, &batch.operation, "", &batch.tally.took);
        }
        let prevented = reading.batches.iter().map(|batch| batch.tally.prevented).sum();
        counter!(t::PREVENTIONS_TOTAL.name, "kind" => "timeout").absolute(prevented);
        let overruns = reading.batches.iter().map(|batch| batch.tally.overruns).sum();
        counter!(t::INVARIANT_VIOLATIONS_TOTAL.name, "id" => "batch_deadline").absolute(overruns);
        counter!(t::LABEL_OVERFLOW_TOTAL.name, "metric" => "breaker").absolute(reading.label_overflow);
        export_transitions(&reading.transitions);
        would(reading);
        for child in &reading.children {
            export_child(child);
        }
    }

    /// Counts what has happened: what no cell counts because it is rare.
    pub fn hear(&self, signal: &Signal) {
        if let Signal::Escalated { supervisor, .. } = signal {
            counter!(t::SUPERVISOR_ESCALATIONS_TOTAL.name, "supervisor" => label(supervisor)).increment(1);
        }
        if let Signal::Action { action, step: Step::Taken, would: true, .. } = signal {
            // Not the action's bare name: `shed` and `user_limit` are reasons of refusals, too.
            counter!(t::WOULD_REJECT_TOTAL.name, "what" => format!("action_{}", action.name())).increment(1);
        }
        if let Signal::Child { child, event, .. } = signal {
            self.child_event(child, event);
        }
        if let Signal::Circuit { endpoint, from, to, cause, would: false } = signal {
            let labels = [
                ("endpoint", label(endpoint)),
                ("from", from.name().into()),
                ("to", to.name().into()),
                ("reason", cause.name().into()),
            ];
            counter!(t::BREAKER_TRANSITIONS_TOTAL.name, &labels).increment(1);
        }
    }

    fn child_event(&self, child: &Name, event: &ChildEvent) {
        let mut ended = self.ended.lock();
        match event {
            ChildEvent::Stopped { reason } => drop(ended.insert(child.clone(), reason.name())),
            ChildEvent::StartFailed { .. } => drop(ended.insert(child.clone(), "start_failed")),
            ChildEvent::Abandoned => drop(ended.insert(child.clone(), "abandoned")),
            ChildEvent::Started | ChildEvent::GivenUp => drop(ended.remove(child)),
            ChildEvent::Restarted { .. } => {
                // One of its group ended, and it was restarted with it.
                let reason = ended.remove(child).unwrap_or("group");
                counter!(t::CHILD_RESTARTS_TOTAL.name, "child" => label(child), "reason" => reason)
                    .increment(1);
            }
        }
    }

    fn pool(&self, pool: &Pool) {
        let (name, stats) = (label(&pool.stats.pool), &pool.stats);
        let gauge =
            |metric: &t::Metric, value: u64| gauge!(metric.name, "pool" => name.clone()).set(value as f64);
        gauge(&t::POOL_CONNECTIONS_MAX, pool.max.into());
        gauge(&t::POOL_LIMIT, stats.limit.into());
        gauge!(t::POOL_UTILIZATION_RATIO.name, "pool" => name.clone()).set(pool.utilization());
        let used = stats.in_use.min(pool.open.max(stats.real_in_use));
        for (state, count) in [("used", used), ("idle", pool.open.saturating_sub(used))] {
            gauge!(t::POOL_CONNECTIONS.name, "pool" => name.clone(), "state" => state).set(f64::from(count));
        }
        for level in Level::ALL {
            gauge!(t::POOL_PRESSURE.name, "pool" => name.clone(), "level" => level.name())
                .set(flag(*level == pool.level));
        }
        if let Some(server) = pool.server {
            let states = [("used", server.used), ("max", server.max), ("reserved", server.reserved)];
            for (state, count) in states {
                gauge!(t::SERVER_CONNECTIONS.name, "pool" => name.clone(), "state" => state)
                    .set(f64::from(count));
            }
        }
        counter!(t::TICKETLESS_TOTAL.name, "pool" => name.clone()).absolute(stats.ticketless);
        counter!(t::POOL_LEAKS_TOTAL.name, "pool" => name.clone()).absolute(stats.leaks);
        self.by_class(pool);
    }

    fn by_class(&self, pool: &Pool) {
        let (name, stats) = (&pool.stats.pool, &pool.stats);
        for class in Class::ALL {
            let waiting = f64::from(stats.waiting[class.index()]);
            gauge!(t::POOL_WAITING.name, "pool" => label(name), "class" => class.name()).set(waiting);
            for reason in Reason::ALL {
                let labels =
                    [("pool", label(name)), ("class", class.name().into()), ("reason", reason.name().into())];
                counter!(t::POOL_SHEDS_TOTAL.name, &labels).absolute(stats.acted.refused.of(*class, reason));
            }
            let wait = stats.acted.wait[class.index()];
            self.pass_on(&t::POOL_ACQUIRE_DURATION_SECONDS, name, class.name(), &wait);
        }
        self.pass_on(&t::POOL_HOLD_DURATION_SECONDS, name, "", &stats.acted.hold);
    }

    /// Passes on what a histogram has counted since the last time, with the true count of each bucket and the
    /// true sum.
    fn pass_on(&self, metric: &t::Metric, name: &Name, part: &'static str, now: &Histogram) {
        let mut passed_on = self.passed_on.lock();
        let (counts, sum) = passed_on.entry((metric.name, name.clone(), part)).or_default();
        let new: Counts = std::array::from_fn(|i| now.counts()[i].saturating_sub(counts[i]));
        let took = now.sum().saturating_sub(*sum);
        (*counts, *sum) = (*now.counts(), now.sum());
        drop(passed_on);
        let values = [label(name), part.into()];
        let labels: Vec<_> =
            metric.labels.iter().zip(values).map(|(key, value)| Label::new(*key, value)).collect();
        let histogram = histogram!(metric.name, labels);
        for (value, count) in observations(&new, took) {
            histogram.record_many(value, usize::try_from(count).unwrap_or(usize::MAX));
        }
    }
}

/// A recorder with the buckets that the gate counts in, so that none of its counts changes bucket.
fn prometheus() -> PrometheusBuilder {
    let bounds: Vec<f64> = Histogram::BOUNDS.iter().map(Duration::as_secs_f64).collect();
    let slow = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];
    let recovery = Matcher::Full(t::INCIDENT_RECOVERY_DURATION_SECONDS.name.to_owned());
    let builder = PrometheusBuilder::new();
    // The builder only refuses an empty list.
    let builder = match builder.set_buckets_for_metric(Matcher::Suffix("duration_seconds".into()), &bounds) {
        Ok(builder) => builder,
        Err(_) => PrometheusBuilder::new(),
    };
    builder.set_buckets_for_metric(recovery, &slow).unwrap_or_else(|_| PrometheusBuilder::new())
}

/// One value for each bucket that `counts` has something in, such that `counts` of them add up to `sum`.
///
/// All values stand at the same share of the way from their bucket's lower to its upper end.
fn observations(counts: &Counts, sum: Duration) -> impl Iterator<Item = (f64, u64)> {
    let ends = |bucket: usize| {
        let lower = bucket.checked_sub(1).map_or(0.0, |below| Histogram::BOUNDS[below].as_secs_f64());
        let upper = Histogram::BOUNDS.get(bucket).map_or(lower * 10.0, Duration::as_secs_f64);
        (lower, upper)
    };
    let total = |end: fn((f64, f64)) -> f64| -> f64 {
        counts.iter().enumerate().map(|(bucket, &count)| end(ends(bucket)) * count as f64).sum()
    };
    let (least, most) = (total(|(lower, _)| lower), total(|(_, upper)| upper));
    // The lower end itself belongs to the bucket below.
    let share = if most > least { (sum.as_secs_f64() - least) / (most - least) } else { 1.0 };
    let share = share.clamp(1e-6, 1.0);
    counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).map(move |(bucket, count)| {
        let (lower, upper) = ends(bucket);
        ((lower + share * (upper - lower)).min(upper), count)
    })
}

fn export_breaker(view: &View) {
    let endpoint = || label(&view.name);
    for circuit in Circuit::ALL {
        gauge!(t::BREAKER_STATE.name, "endpoint" => endpoint(), "state" => circuit.name())
            .set(flag(*circuit == view.shows));
    }
    let totals = &view.totals;
    let outcomes = [
        ("success", totals.successes),
        ("failure", totals.failures),
        ("rejected", totals.rejected),
        ("ignored", totals.ignored),
        ("cancelled", totals.cancelled),
        ("stale", totals.stale),
    ];
    for (outcome, count) in outcomes {
        counter!(t::BREAKER_CALLS_TOTAL.name, "endpoint" => endpoint(), "outcome" => outcome).absolute(count);
    }
}

fn export_transitions(transitions: &[Transition]) {
    let mut prevented = 0;
    let mut would = 0;
    for Transition { machine, blocked } in transitions {
        for edge in blocked {
            let labels = [("machine", label(machine)), ("from", label(&edge.from)), ("to", label(&edge.to))];
            counter!(t::TRANSITIONS_BLOCKED_TOTAL.name, &labels).absolute(edge.blocked);
        }
        prevented += blocked.iter().filter(|edge| !edge.is_repeat()).map(|edge| edge.blocked).sum::<u64>();
        would += blocked.iter().map(|edge| edge.would).sum::<u64>();
    }
    counter!(t::PREVENTIONS_TOTAL.name, "kind" => "invalid_transition").absolute(prevented);
    counter!(t::WOULD_REJECT_TOTAL.name, "what" => "transition").absolute(would);
}

fn export_queue(queue: &Queue) {
    let name = || label(&queue.name);
    gauge!(t::QUEUE_DEPTH.name, "queue" => name()).set(queue.depth() as f64);
    let age = queue.oldest.unwrap_or_default().as_secs_f64();
    gauge!(t::QUEUE_OLDEST_AGE_SECONDS.name, "queue" => name()).set(age);
    for (outcome, count) in [("accepted", queue.accepted), ("drained", queue.done), ("dead", queue.dead)] {
        counter!(t::QUEUE_ITEMS_TOTAL.name, "queue" => name(), "outcome" => outcome).absolute(count);
    }
    if !queue.balances() {
        counter!(t::INVARIANT_VIOLATIONS_TOTAL.name, "id" => "queue").increment(1);
    }
}

fn export_batch(batch: &Batch) {
    let op = || label(&batch.operation);
    gauge!(t::BATCH_SIZE.name, "op" => op()).set(f64::from(batch.size));
    gauge!(t::BATCH_REMAINING_ITEMS.name, "op" => op()).set(batch.remaining as f64);
    let Tally { done, blocked, failed, .. } = batch.tally;
    for (outcome, count) in [("done", done), ("blocked", blocked), ("failed", failed)] {
        counter!(t::BATCH_ITEMS_TOTAL.name, "op" => op(), "outcome" => outcome).absolute(count);
    }
}

fn export_child(child: &Child) {
    let name = label(&child.id);
    gauge!(t::CHILD_UP.name, "child" => name.clone()).set(flag(child.is_up()));
    if let Some(mail) = child.mailbox {
        gauge!(t::MAILBOX_DEPTH.name, "child" => name.clone()).set(mail.depth as f64);
        counter!(t::MAILBOX_DROPPED_TOTAL.name, "child" => name).absolute(mail.dropped);
    }
}

/// What mode `observe` would have refused, over all pools.
fn would(reading: &Reading) {
    let all = |count: fn(&gate::Tally, Reason) -> u64, reason| -> u64 {
        reading.pools.iter().map(|pool| count(&pool.stats.would, reason)).sum()
    };
    for reason in Reason::ALL {
        let count = all(|tally, reason| tally.refused.because(reason), reason);
        counter!(t::WOULD_REJECT_TOTAL.name, "what" => reason.name()).absolute(count);
    }
    let calls = reading.breakers.iter().map(|breaker| breaker.would_reject).sum();
    counter!(t::WOULD_REJECT_TOTAL.name, "what" => "circuit_open").absolute(calls);
    let violations: u64 =
        reading.pools.iter().map(|pool| pool.stats.acted.violations + pool.stats.would.violations).sum();
    counter!(t::INVARIANT_VIOLATIONS_TOTAL.name, "id" => "gate").absolute(violations);
}

fn label(name: &Name) -> metrics::SharedString {
    name.clone().into()
}

const fn flag(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buckets_and_the_sum_of_what_is_passed_on_are_true() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..500 {
            let mut true_one = Histogram::default();
            for _ in 0..random.u32(1..200) {
                true_one.record(Duration::from_secs_f64(10_f64.powf(random.f64() * 6.0 - 4.5)));
            }
            let mut again = Histogram::default();
            let mut sum = 0.0;
            for (value, count) in observations(true_one.counts(), true_one.sum()) {
                sum += value * count as f64;
                (0..count).for_each(|_| again.record(Duration::from_secs_f64(value)));
            }
            assert_eq!(again.counts(), true_one.counts());
            assert!(
                (sum / true_one.sum().as_secs_f64() - 1.0).abs() < 0.01,
                "{sum} is not {:?}",
                true_one.sum()
            );
        }
    }

    #[test]
    fn a_restart_is_counted_by_how_the_child_had_ended() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let exporter = Exporter::default();
        let event = |event| Signal::Child { supervisor: "root".into(), child: "alert".into(), event };
        metrics::with_local_recorder(&recorder, || {
            let reason = selfheal_actors::signal::Exit::Panic("planted".into());
            exporter.hear(&event(ChildEvent::Stopped { reason }));
            exporter.hear(&event(ChildEvent::Restarted { after: Duration::ZERO, restarts: 1 }));
            exporter.hear(&Signal::Escalated { supervisor: "root".into(), root: true });
        });
        let text = handle.render();
        assert!(text.contains("selfheal_child_restarts_total{child=\"alert\",reason=\"panic\"} 1"), "{text}");
        assert!(text.contains("selfheal_supervisor_escalations_total{supervisor=\"root\"} 1"), "{text}");
    }
}
