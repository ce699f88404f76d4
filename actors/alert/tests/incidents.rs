use std::time::Duration;

use super::*;
use crate::alert::{Kind, Resolution};

const UP: [(Level, Level); 2] = [(Level::Normal, Level::Warning), (Level::Warning, Level::Critical)];

fn told() -> Told {
    Told::new(Policy::default(), Mode::Act)
}

#[test]
fn a_severity_waits_for_its_dwell_and_a_short_pressure_stays_an_info() {
    let patient = Policy { warning_after: Duration::from_secs(1), ..Policy::default() };
    let mut told = Told::new(patient, Mode::Act);
    told.level(0, Level::Normal, Level::Warning, 86);
    told.level(900, Level::Warning, Level::Normal, 45);
    told.run_to(10_000);
    assert_eq!(told.news, ["opened 1", "resolved 1"], "an Info at most, and nobody noticed");
    told.news.clear();
    told.level(400_000, Level::Normal, Level::Warning, 86);
    told.run_to(400_999);
    assert_eq!(told.news, ["opened 2"]);
    told.run_to(401_000);
    assert_eq!(told.news, ["opened 2", "warning pool_pressure pool:main"]);
}

#[test]
fn what_comes_back_within_five_minutes_is_the_same_incident_and_is_not_alerted_again() {
    let mut told = told();
    told.level(0, Level::Normal, Level::Warning, 86);
    told.level(1_000, Level::Warning, Level::Normal, 40);
    told.run_to(5_000);
    told.news.clear();
    told.level(200_000, Level::Normal, Level::Warning, 86);
    told.level(201_000, Level::Warning, Level::Normal, 40);
    told.run_to(210_000);
    assert_eq!(told.news, ["opened 1", "resolved 1"]);
    assert_eq!(told.ends, 1, "it is counted once");
    told.level(210_000 + 600_000, Level::Normal, Level::Warning, 86);
    assert_eq!(
        told.news[2..],
        ["opened 2", "warning pool_pressure pool:main"],
        "after ten minutes it is new"
    );
}

#[test]
fn the_third_time_it_comes_back_it_is_flapping_and_critical() {
    let mut told = told();
    for round in 0..6 {
        let at = round * 10_000;
        told.level(at, Level::Normal, Level::Warning, 86);
        told.level(at + 3_000, Level::Warning, Level::Normal, 40);
    }
    told.run_to(100_000);
    let alerts: Vec<_> = told.news.iter().filter(|news| news.contains("pool_pressure")).collect();
    let once = [
        "warning pool_pressure pool:main",
        "info pool_pressure pool:main",
        "critical pool_pressure pool:main",
    ];
    assert_eq!(alerts, once, "and silence after that");
}

#[test]
fn pressure_that_pauses_for_less_than_a_second_goes_on() {
    let mut told = told();
    told.level(0, Level::Normal, Level::Warning, 86);
    told.level(3_000, Level::Warning, Level::Normal, 40);
    told.level(3_900, Level::Normal, Level::Warning, 86);
    told.run_to(60_000);
    assert_eq!(told.news, ["opened 1", "warning pool_pressure pool:main"]);
    let incident = told.machine.incidents().next().expect("it is open");
    assert_eq!((incident.reopened, incident.recovered_at), (0, None));
}

#[test]
fn pressure_while_the_server_is_down_is_its_consequence_and_mute() {
    let mut told = told();
    told.server(0, ServerState::Down);
    UP.into_iter().for_each(|step| told.level_of("main", 100, step, 100, false));
    told.run_to(5_000);
    let news = ["opened 1", "escalated 1", "critical server pool:main", "opened 2", "escalated 2"];
    assert_eq!(told.news, news);
    let [pressure, server] = [0, 1].map(|i| told.machine.incidents().nth(i).expect("two are open").clone());
    assert_eq!(server.symptoms, std::slice::from_ref(&pressure.id));
    assert_eq!(pressure.under, Some(server.id.clone()));

    told.server(5_000, ServerState::Up);
    told.news.clear();
    told.run_to(7_000);
    assert_eq!(told.news[0], "resolved 1");
    assert_eq!(told.news.last().expect("news"), "critical pool_pressure pool:main", "it outlasted its root");
    assert!(told.log.last().expect("a line").ends_with("Resolved: server of pool:main"));
}

#[test]
fn pressure_that_came_first_is_put_under_its_root_as_soon_as_that_is_known() {
    let mut told = told();
    UP.into_iter().for_each(|step| told.level_of("main", 100, step, 100, false));
    UP.into_iter().for_each(|step| told.level_of("other", 100, step, 100, false));
    told.server(200, ServerState::Full);
    let under: Vec<_> =
        told.machine.incidents().map(|i| (i.kind, i.subject.to_string(), i.under.is_some())).collect();
    let pressure = Kind::PoolPressure;
    let server = (Kind::Server, "pool:main".to_owned(), false);
    assert_eq!(under, [server, (pressure, "pool:other".into(), false), (pressure, "pool:main".into(), true)]);
}

#[test]
fn one_restart_is_an_info_the_second_a_warning_and_the_third_critical() {
    let mut told = told();
    told.restarted(0, "pools", "pool-monitor:main", 1);
    told.restarted(1_000, "pools", "pool-monitor:main", 2);
    told.restarted(2_000, "pools", "pool-monitor:main", 3);
    told.run_to(16_999);
    let news = [
        "opened 1",
        "info child_restarts pools",
        "warning child_restarts pools",
        "escalated 1",
        "critical child_restarts pools",
    ];
    assert_eq!(told.news, news);
    assert_eq!(
        told.log[..2],
        [
            "0.000 pool-monitor:main panicked: planted",
            "0.000 Restarted pool-monitor:main after 0ns (restart 1 of this period)",
        ]
    );
    told.run_to(17_000);
    assert_eq!(told.news[5..], ["resolved 1", "info child_restarts pools"], "15 s after the last of them");
}

#[test]
fn a_child_that_stays_down_stays_an_incident_until_somebody_starts_it() {
    let mut told = told();
    let (supervisor, child) = (name("breakers"), name("breaker:/api/x"));
    let of = |event| Signal::Child { supervisor: supervisor.clone(), child: child.clone(), event };
    told.restarted(0, "breakers", "breaker:/api/x", 1);
    told.hear(100, &of(ChildEvent::GivenUp));
    told.restarted(200, "breakers", "breaker:/api/y", 1);
    told.run_to(100_000);
    assert_eq!(told.machine.severity(), Some(Severity::Critical), "that another one runs does not help it");
    told.hear(100_000, &of(ChildEvent::Started));
    told.run_to(115_000);
    assert_eq!(told.machine.severity(), None);
}

#[test]
fn an_orderly_end_is_no_incident() {
    let mut told = told();
    for reason in [Exit::Normal, Exit::Shutdown] {
        let event = ChildEvent::Stopped { reason };
        told.hear(0, &Signal::Child { supervisor: name("root"), child: name("alert"), event });
    }
    let event = ChildEvent::Started;
    told.hear(0, &Signal::Child { supervisor: name("root"), child: name("alert"), event });
    assert!(told.log.is_empty() && told.news.is_empty());
}

#[test]
fn a_supervisor_that_gave_up_explains_the_restarts_below_and_above_it() {
    let mut told = told();
    told.restarted(0, "pools", "pool-monitor:main", 5);
    told.hear(100, &Signal::Escalated { supervisor: name("pools"), root: false });
    told.restarted(100, "root", "pools", 1);
    told.run_to(100);
    assert_eq!(told.machine.incidents().count(), 2, "its own restart is part of its giving up");
    let restarts = told.machine.incidents().nth(1).expect("the restarts");
    assert!(restarts.under.is_some());
    told.run_to(60_000);
    assert_eq!(told.machine.severity(), None, "healed by the level above");
}

#[test]
fn when_the_root_gives_up_it_waits_for_a_person() {
    let mut told = told();
    told.hear(0, &Signal::Escalated { supervisor: name("root"), root: true });
    assert_eq!(told.news, ["opened 1", "failed 1", "failure escalation root"]);
    assert_eq!(told.log, ["0.000 FAILURE: Supervisor root gave up - manual intervention required"]);
    told.restarted(100, "pools", "pool-monitor:main", 1);
    told.run_to(10_000_000);
    assert_eq!(told.news.len(), 3 + 2, "the restart opened and resolved, and nobody was alerted");
    assert_eq!(told.machine.severity(), Some(Severity::Failure));

    assert_eq!(told.machine.close("7", &name("ann"), MS(10_000_000)), None);
    let closed = told.machine.close("1", &name("ann"), MS(10_000_000)).expect("it is open");
    told.note(MS(10_000_000), closed);
    assert_eq!(told.log.last().expect("a line"), "10000.000 Closed by ann");
    assert_eq!(told.machine.severity(), None);
    let failure = told.machine.incidents().last().expect("it is remembered");
    assert_eq!(failure.resolution, Some(Resolution::Manual(name("ann"))));
}

#[test]
fn leaks_are_one_incident_until_the_last_is_back() {
    let mut told = told();
    let leak = |returned, held| Signal::Leak {
        pool: name("main"),
        operation: name("report"),
        site: name("src/report.rs:7"),
        held: Duration::from_secs(held),
        returned,
    };
    told.hear(0, &leak(false, 30));
    told.hear(100, &leak(false, 30));
    told.hear(5_000, &leak(true, 35));
    told.run_to(60_000);
    assert_eq!(told.machine.severity(), Some(Severity::Warning), "one is still out");
    told.hear(60_000, &leak(true, 90));
    told.run_to(61_000);
    assert_eq!(told.news, ["opened 1", "warning leak pool:main", "resolved 1", "info leak pool:main"]);
    assert_eq!(told.log[0], "0.000 Connection held for 30.0s by report (src/report.rs:7)");
}

#[test]
fn a_monitor_that_sees_nothing_does_not_claim_a_recovery() {
    let mut told = told();
    UP.into_iter().for_each(|step| told.level_of("main", 0, step, 97, false));
    told.run_to(29_000);
    told.log.clear();
    told.hear(30_000, &Signal::Blind { pool: name("main"), blind: true });
    told.level(30_000, Level::Critical, Level::Warning, 97);
    told.level(30_000, Level::Warning, Level::Normal, 97);
    told.run_to(40_000);
    told.hear(40_000, &Signal::Blind { pool: name("main"), blind: false });
    told.run_to(50_000);
    assert_eq!(
        told.log,
        [
            "30.000 Pool monitor sees nothing: what it had forced is lifted",
            "31.000 Resolved: pool_pressure of pool:main",
            "40.000 Pool monitor sees again",
            "41.000 Resolved: blind of pool:main",
        ]
    );
}

#[test]
fn ids_carry_the_run_and_the_list_is_bounded() {
    let policy = Policy { keep: 3, reopen_within: Duration::ZERO, ..Policy::default() };
    let mut told = Told { machine: Machine::new(policy, Mode::Act, "t6qhxc"), ..told() };
    told.hear(0, &Signal::Escalated { supervisor: name("root"), root: true });
    for round in 0..6 {
        told.level(round * 100_000, Level::Normal, Level::Warning, 86);
        told.level(round * 100_000 + 3_000, Level::Warning, Level::Normal, 40);
    }
    let ids: Vec<_> = told.machine.incidents().map(|incident| &*incident.id).collect();
    assert_eq!(ids, ["t6qhxc-7", "t6qhxc-6", "t6qhxc-1"], "what is open is kept");
}
