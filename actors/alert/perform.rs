//! Effects become log lines and metrics.

use metrics::{counter, gauge, histogram};
use tracing::{error, info, warn};

use super::{
    incident::{Kind, Peak, Phase},
    line::Line,
    machine::Effect,
};
use crate::{
    level::Severity,
    telemetry::{
        ALERTS_TOTAL, INCIDENT_ACTIVE, INCIDENT_RECOVERY_DURATION_SECONDS, INCIDENTS_TOTAL,
        PREVENTIONS_TOTAL, SEVERITY,
    },
};

pub(super) fn perform(effect: &Effect) {
    match effect {
        Effect::Say { line, subject, incident } => log(line, subject.as_deref(), incident.as_deref()),
        Effect::Alert { severity, .. } => {
            counter!(ALERTS_TOTAL.name, "severity" => severity.name()).increment(1);
        }
        Effect::Ended { kind, resolution, recovered_in, prevented } => {
            counter!(INCIDENTS_TOTAL.name, "kind" => kind.name(), "resolution" => resolution.name())
                .increment(1);
            histogram!(INCIDENT_RECOVERY_DURATION_SECONDS.name, "kind" => kind.name()).record(*recovered_in);
            if *kind == Kind::PoolPressure && *prevented {
                counter!(PREVENTIONS_TOTAL.name, "kind" => "pool_exhaustion").increment(1);
            }
        }
        // The gauges show it.
        Effect::Phase {
            phase: Phase::Opened | Phase::Escalated | Phase::Resolved | Phase::Failed, ..
        } => {}
    }
}

/// Shows how many incidents are open, and how bad the worst of them is.
pub(super) fn show(worst: Option<Severity>, open: impl Fn(Kind) -> usize) {
    for &kind in Kind::ALL {
        gauge!(INCIDENT_ACTIVE.name, "kind" => kind.name()).set(open(kind) as f64);
    }
    let worst = worst.unwrap_or_default();
    for &severity in Severity::ALL {
        let holds = if severity == worst { 1.0 } else { 0.0 };
        gauge!(SEVERITY.name, "level" => severity.name()).set(holds);
    }
}

fn log(line: &Line, subject: Option<&str>, incident: Option<&str>) {
    let (in_use, max) = line.usage().map(|Peak { in_use, max }| (in_use, max)).unzip();
    let actions = line.actions();
    let actions = actions.as_deref();
    match line.severity() {
        Severity::Info => info!(target: "selfheal", incident, subject, in_use, max, actions, "{line}"),
        Severity::Warning => warn!(target: "selfheal", incident, subject, in_use, max, actions, "{line}"),
        Severity::Critical | Severity::Failure => {
            error!(target: "selfheal", incident, subject, in_use, max, actions, "{line}");
        }
    }
}
