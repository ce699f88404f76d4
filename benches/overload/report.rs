//! The tables of a run of the benchmark.

use std::collections::BTreeMap;

use selfheal_benches::{Paired, Spread, Table};

use crate::{
    contender::Kind,
    figures::{AtGate, Figures},
    scenario::Scenario,
};

/// One scenario, every contender that ran in it. `oracles` by seed.
pub(crate) fn table(scenario: &Scenario, runs: &[Figures], oracles: &BTreeMap<u64, f64>) -> String {
    let mut table = Table::new([
        "contender",
        "goodput",
        "of oracle",
        "critical, points",
        "wait p50/p99 ms",
        "gate in 5 ms",
        "normal ok",
        "sheddable ok",
        "dashboards",
        "refused p50/p99 ms",
        "mitigated ms",
        "levels a minute",
        "refused",
        "after: goodput",
        "critical",
        "recovered ms",
        "53300/timeout/other",
        "lost/doubled",
        "void",
    ]);
    for kind in Kind::ALL {
        let of: Vec<_> =
            runs.iter().filter(|run| run.scenario == scenario.key && run.contender == kind.name()).collect();
        if !of.is_empty() {
            table.row(row(scenario, kind, &of, oracles));
        }
    }
    format!("## {}: {}\n\n{table}", scenario.key, scenario.about)
}

fn row(scenario: &Scenario, kind: Kind, runs: &[&Figures], oracles: &BTreeMap<u64, f64>) -> [String; 19] {
    let valid: Vec<_> = runs.iter().copied().filter(|run| run.void.is_none()).collect();
    // Where no run is valid, what was seen is shown all the same, and the last column says what to think of it.
    let shown = if valid.is_empty() { runs } else { &valid };
    let spread = |figure: &dyn Fn(&Figures) -> f64, digits: usize| spread(shown, figure, digits);
    let sum = |count: fn(&Figures) -> usize| shown.iter().map(|run| count(run)).sum::<usize>();
    let dashboards = |count: fn(&Figures) -> u32| shown.iter().map(|run| count(run)).sum::<u32>();
    let of_oracle =
        |run: &Figures| oracles.get(&run.seed).map_or(f64::NAN, |oracle| run.press.goodput / oracle);
    [
        kind.name().to_owned(),
        spread(&|run| run.press.goodput, 3),
        spread(&of_oracle, 3),
        spread(&|run| run.press.critical, 2),
        format!("{} / {}", spread(&|run| run.press.wait_p50, 1), spread(&|run| run.press.wait_p99, 1)),
        at_gate(shown, &|gate| gate.within * 100.0, 1) + " %",
        spread(&|run| run.press.normal * 100.0, 0) + " %",
        spread(&|run| run.press.sheddable * 100.0, 0) + " %",
        match dashboards(|run| run.dashboards) {
            0 => "-".to_owned(),
            all => format!("{}/{all}", dashboards(|run| run.dashboards_done)),
        },
        format!("{} / {}", spread(&|run| run.refused_p50, 0), spread(&|run| run.refused_p99, 0)),
        spread(&|run| run.mitigated, 0),
        at_gate(shown, &|gate| f64::from(gate.level_changes) * 60.0 / scenario.press.seconds, 1),
        sum(|run| run.refused).to_string(),
        spread(&|run| run.after.goodput, 3),
        spread(&|run| run.after.critical, 2),
        spread(&|run| run.recovered, 0),
        format!(
            "{}/{}/{}",
            sum(|run| run.server_full),
            sum(|run| run.pool_timed_out),
            sum(|run| run.other_errors)
        ),
        format!("{}/{}", sum(|run| run.written.lost + run.without_outcome), sum(|run| run.written.doubled)),
        void(runs),
    ]
}

/// By how much `auto` differs from each other contender, seed by seed; empty with too few seeds.
pub(crate) fn beside(scenario: &Scenario, runs: &[Figures]) -> String {
    let mut table = Table::new([
        "selfheal less",
        "pairs",
        "goodput",
        "critical, points",
        "wait p99 ms",
        "normal ok, points",
        "after: goodput",
    ]);
    let of = |kind: Kind| {
        let valid = runs.iter().filter(move |run| run.scenario == scenario.key && run.void.is_none());
        valid.filter(move |run| run.contender == kind.name()).map(|run| (run.seed, run))
    };
    let ours: BTreeMap<_, _> = of(Kind::Auto).collect();
    let pairs = |kind: Kind| of(kind).filter(|(seed, _)| ours.contains_key(seed)).count();
    let others = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Auto);
    let others: Vec<_> = others.filter(|kind| pairs(*kind) >= Paired::LEAST).collect();
    if others.is_empty() {
        return String::new();
    }
    for kind in others {
        let differ = |figure: &dyn Fn(&Figures) -> f64, digits: usize| {
            let differences = of(kind).filter_map(|(seed, theirs)| Some((ours.get(&seed)?, theirs)));
            let paired = Paired::of(differences.map(|(ours, theirs)| figure(ours) - figure(theirs)));
            paired.map_or_else(|| "-".to_owned(), |paired| format!("{paired:.digits$}"))
        };
        table.row([
            kind.name().to_owned(),
            pairs(kind).to_string(),
            differ(&|run| run.press.goodput, 3),
            differ(&|run| run.press.critical, 2),
            differ(&|run| run.press.wait_p99, 1),
            differ(&|run| run.press.normal * 100.0, 1),
            differ(&|run| run.after.goodput, 3),
        ]);
    }
    format!("\nSeed by seed: median difference [95 times in 100]; = where neither is ahead\n\n{table}\n")
}

fn spread(runs: &[&Figures], figure: &dyn Fn(&Figures) -> f64, digits: usize) -> String {
    let spread = Spread::of(runs.iter().map(|run| figure(run)));
    spread.map_or_else(|| "-".to_owned(), |spread| format!("{spread:.digits$}").replace("inf", "never"))
}

fn at_gate(runs: &[&Figures], figure: &dyn Fn(&AtGate) -> f64, digits: usize) -> String {
    let spread = Spread::of(runs.iter().filter_map(|run| run.at_gate.as_ref()).map(figure));
    spread.map_or_else(|| "-".to_owned(), |spread| format!("{spread:.digits$}"))
}

fn void(runs: &[&Figures]) -> String {
    let reasons: Vec<_> = runs.iter().filter_map(|run| run.void).collect();
    match reasons.first() {
        None => format!("0/{}", runs.len()),
        Some(reason) => format!("{}/{}: {reason}", reasons.len(), runs.len()),
    }
}

/// One run on a line, as it ends.
pub(crate) fn line(run: &Figures) -> String {
    format!(
        "{:5} {:12} seed {}: goodput {:.3}, critical {:+.2}, wait p99 {:.1} ms; after {:.3}; late p99 {:.2}/{:.1} ms, machine {:.0} %, host {:.0} %{}",
        run.scenario,
        run.contender,
        run.seed,
        run.press.goodput,
        run.press.critical,
        run.press.wait_p99,
        run.after.goodput,
        run.generator_late,
        run.polled_late,
        run.machine_busy * 100.0,
        run.host_busy * 100.0,
        run.void.map(|reason| format!(" VOID: {reason}")).unwrap_or_default(),
    )
}
