//! The actor on tokio's paused clock, with what it logs and counts captured.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;
use ractor::{Actor, ActorRef};
use tokio::{task::JoinHandle, time::sleep};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span,
};

use super::*;
use crate::{
    alert::{Alert, Incidents, Message},
    clock::Clock,
    fault::Fault,
    mailbox::{Mailbox, Wake},
};

/// Keeps what is logged, as `LEVEL message field=value …`.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "selfheal"
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new(), String::new());
        event.record(&mut text);
        self.0.lock().push(format!("{} {}{}", event.metadata().level(), text.0, text.1));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Text(String, String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.0 = format!("{value:?}"),
            // Its id carries the time at which this run started.
            "incident" => self.1.push_str(" incident"),
            name => self.1.push_str(&format!(" {name}={value:?}")),
        }
    }
}

/// Keeps counters and gauges, by name and labels.
#[derive(Clone, Default)]
struct Meters(Arc<Mutex<Vec<Meter>>>);

/// A counter or gauge with its name and labels.
type Meter = (String, Arc<AtomicU64>);

impl Meters {
    fn cell(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<_> = key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
        let name = format!("{}{{{}}}", key.name().trim_start_matches("selfheal_"), labels.join(","));
        let mut cells = self.0.lock();
        if let Some((_, cell)) = cells.iter().find(|(known, _)| *known == name) {
            return Arc::clone(cell);
        }
        let cell = Arc::new(AtomicU64::new(0));
        cells.push((name, Arc::clone(&cell)));
        cell
    }

    fn count(&self, name: &str) -> u64 {
        self.0
            .lock()
            .iter()
            .find(|(known, _)| known == name)
            .map_or(0, |(_, cell)| cell.load(Ordering::Relaxed))
    }

    fn gauge(&self, name: &str) -> f64 {
        f64::from_bits(self.count(name))
    }
}

impl Recorder for Meters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

struct Rig {
    incidents: Incidents,
    mailbox: Mailbox<Message>,
}

impl Rig {
    fn new() -> Self {
        let incidents = Incidents::new(Policy::default(), Mode::Act, Clock::tokio());
        Self { incidents, mailbox: Mailbox::new("alert", 1_024) }
    }

    async fn start(&self) -> (ActorRef<Wake>, JoinHandle<()>) {
        Actor::spawn(None, Alert, (self.incidents.clone(), self.mailbox.clone())).await.expect("it starts")
    }

    fn level(&self, from: Level, to: Level, in_use: u32) {
        let pool = name("main");
        self.mailbox
            .tell(Signal::Pressure { pool: pool.clone(), from, to, in_use, max: 100, waiting: 3 }.into());
        let (actions, step) = if to > from { (MITIGATION, Step::Taken) } else { (MITIGATION, Step::Undone) };
        for action in actions {
            self.mailbox.tell(Signal::Action { pool: pool.clone(), action, step, would: false }.into());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_change_is_logged_once_with_its_values_and_counted() {
    let (log, meters) = (Log::default(), Meters::default());
    let _logging = tracing::subscriber::set_default(log.clone());
    let _metering = metrics::set_default_local_recorder(&meters);
    let rig = Rig::new();
    let (actor, _) = rig.start().await;
    sleep(Duration::from_secs(5)).await;
    assert!(meters.gauge("severity{level=info}") > 0.0, "shown before anything has happened");

    rig.level(Level::Normal, Level::Warning, 86);
    sleep(Duration::from_secs(1)).await;
    assert!(meters.gauge("incident_active{kind=pool_pressure}") > 0.0);
    assert!(meters.gauge("severity{level=warning}") > 0.0 && meters.gauge("severity{level=info}") == 0.0);
    rig.incidents.impact("pool:main").shed(Some(7));
    rig.level(Level::Warning, Level::Normal, 40);
    sleep(Duration::from_secs(10)).await;

    let mitigation = "sheddable endpoints shed, batch 10→50, 5 per user";
    assert_eq!(*log.0.lock(), [
        "WARN Connection pool at 86% (86/100) - Warning threshold incident subject=\"pool:main\" in_use=86 max=100".to_owned(),
        format!("INFO Mitigation activated: {mitigation} incident subject=\"pool:main\" actions=\"{mitigation}\""),
        "INFO Normal operations resumed incident subject=\"pool:main\" in_use=40 max=100".to_owned(),
        "INFO System fully recovered incident subject=\"pool:main\"".to_owned(),
    ]);
    assert_eq!(meters.count("incidents_total{kind=pool_pressure,resolution=auto}"), 1);
    assert_eq!(meters.count("preventions_total{kind=pool_exhaustion}"), 1);
    assert_eq!(meters.count("alerts_total{severity=warning}"), 1);
    assert_eq!(meters.count("alerts_total{severity=info}"), 0, "a user was refused");
    assert!(meters.gauge("incident_active{kind=pool_pressure}") == 0.0);
    let incident = rig.incidents.all().pop().expect("it is remembered");
    assert_eq!((incident.impact.shed, incident.impact.users), (1, 1));
    assert_eq!(rig.incidents.get(&incident.id), Some(incident));
    actor.stop(None);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_actor_goes_on_with_the_incident_that_was_open() {
    for fault in [Fault::Panic, Fault::Error, Fault::Hang] {
        let rig = Rig::new();
        let (first, ended) = rig.start().await;
        rig.level(Level::Normal, Level::Warning, 86);
        sleep(Duration::from_millis(100)).await;
        rig.mailbox.tell(Message::Fault(fault));
        sleep(Duration::from_millis(100)).await;
        first.kill();
        ended.await.expect("ractor catches panics");
        rig.level(Level::Warning, Level::Normal, 40);
        assert_eq!(rig.incidents.severity(), Some(Severity::Warning));

        let (second, _) = rig.start().await;
        sleep(Duration::from_secs(10)).await;
        assert_eq!(rig.incidents.severity(), None, "after {fault:?}");
        let incidents = rig.incidents.all();
        assert_eq!(incidents.len(), 1);
        assert!(incidents[0].actions.iter().all(|deed| deed.undone_at.is_some()));
        second.stop(None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_person_closes_what_waits_for_one() {
    let rig = Rig::new();
    let (actor, _) = rig.start().await;
    rig.mailbox.tell(Signal::Escalated { supervisor: name("root"), root: true }.into());
    sleep(Duration::from_secs(3_600)).await;
    let failure = rig.incidents.all().pop().expect("it is open");
    assert_eq!(failure.phase, Phase::Failed);
    rig.mailbox.ask(Message::Close { id: failure.id, by: name("ann") }).expect("there is room");
    sleep(Duration::from_millis(10)).await;
    assert_eq!(rig.incidents.severity(), None);
    actor.stop(None);
}

#[tokio::test(start_paused = true)]
async fn ticks_are_shown_as_wall_time_that_never_overtakes() {
    let incidents = Incidents::new(Policy::default(), Mode::Act, Clock::tokio());
    let now = Clock::tokio().now();
    let later = incidents.wall(now + Duration::from_secs(90)).duration_since(incidents.wall(now));
    assert_eq!(later.expect("it is later"), Duration::from_secs(90));
}
