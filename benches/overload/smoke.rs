//! The short form: who is better, not by how much.
//!
//! A machine that builds other things at the same time gives no figures. It still tells order, where that differs by
//! far more than noise. How much is done at all depends on the machine, and so does how many dashboards are complete in
//! their time, so a void run does not speak of them.

use crate::{
    contender::Kind,
    figures::Figures,
    scenario::{self, Scenario},
};

/// Who takes part.
pub(crate) const CONTENDERS: [Kind; 3] = [Kind::Raw30, Kind::Tower, Kind::Auto];

/// Where, in less than a minute.
pub(crate) fn scenarios() -> Vec<Scenario> {
    let of = |key| scenario::all().into_iter().filter(move |scenario| scenario.key == key);
    of("A2")
        .map(|scenario| scenario.lasting(0.5, 3.0, 1.0))
        .chain(of("B").map(|b| b.lasting(0.5, 5.0, 0.0)))
        .collect()
}

/// What does not hold.
pub(crate) fn violated(runs: &[Figures]) -> Vec<String> {
    let find =
        |key: &str, kind: Kind| runs.iter().find(|run| run.scenario == key && run.contender == kind.name());
    let mut violated = Vec::new();
    let mut check = |holds: Option<bool>, what: &str| {
        if holds != Some(true) {
            violated.push(what.to_owned());
        }
    };
    let critical = |kind| find("A2", kind).map(|run| run.press.critical);
    let goodput = |kind| find("A2", kind).map(|run| run.press.goodput);
    let is_void = |key, kind| find(key, kind).is_some_and(|run| run.void.is_some());
    let whole = |kind| find("B", kind).map(|run| run.dashboards_done);
    let more = |ours: Option<f64>, theirs: Option<f64>| Some(ours? > theirs?);
    let (ours, raw, tower) = (Kind::Auto, Kind::Raw30, Kind::Tower);
    check(
        more(critical(ours), critical(raw)),
        "at twice the capacity more critical requests succeed than with sqlx alone",
    );
    check(more(critical(ours), critical(tower)), "… and than with tower's limit and load shedding");
    if is_void("A2", ours) || is_void("A2", raw) {
        eprintln!("NOT JUDGED: how much is done at twice the capacity; this machine has too much else to do");
    } else {
        check(more(goodput(ours), goodput(raw)), "at twice the capacity more is done than with sqlx alone");
    }
    if is_void("B", ours) || is_void("B", tower) {
        eprintln!("NOT JUDGED: how many dashboards complete; this machine has too much else to do");
    } else {
        check(
            whole(ours).zip(whole(tower)).map(|(ours, theirs)| ours > theirs),
            "more dashboards complete than with tower's limit and load shedding",
        );
    }
    check(
        Some(runs.iter().filter(|run| run.contender == ours.name()).all(is_faithful)),
        "every request had an outcome, and no write was lost or doubled",
    );
    violated
}

const fn is_faithful(run: &Figures) -> bool {
    run.without_outcome == 0 && run.written.lost == 0 && run.written.doubled == 0
}
