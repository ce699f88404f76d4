//! The machine that a benchmark runs on, and how busy it is meanwhile. Linux only; elsewhere nothing is known.

use std::{fmt, fs};

/// What a reader must know to compare figures.
#[derive(Clone, Debug)]
pub struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn here() -> Self {
        let cpu = read("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            cpu: cpu.map_or("unknown CPU", |(_, name)| name.trim()).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }

    /// How many threads run at once.
    #[must_use]
    pub const fn cores(&self) -> usize {
        self.cores
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}, {} {}", self.cores, self.cpu, std::env::consts::OS, self.kernel)
    }
}

/// Measures how busy the machine is from its making on.
#[derive(Clone, Copy, Debug)]
pub struct Busy {
    machine: (u64, u64),
    own: u64,
}

/// Shares of the whole machine, from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// All that ran, this program included.
    pub machine: f64,
    /// This program.
    pub own: f64,
}

impl Busy {
    /// From now on.
    #[must_use]
    pub fn start() -> Self {
        Self { machine: machine_ticks(), own: own_ticks() }
    }

    /// Since the start.
    #[must_use]
    pub fn share(&self) -> Share {
        let (busy, all) = machine_ticks();
        let all = all.saturating_sub(self.machine.1).max(1) as f64;
        Share {
            machine: busy.saturating_sub(self.machine.0) as f64 / all,
            own: own_ticks().saturating_sub(self.own) as f64 / all,
        }
    }
}

/// Ticks in which something ran (time stolen by other machines counts), and all ticks, over all cores.
fn machine_ticks() -> (u64, u64) {
    let stat = read("/proc/stat");
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        // user nice system idle iowait irq softirq steal; what guests used is part of user.
        .take(8)
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    let all = ticks.iter().sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    (all - idle, all)
}

fn own_ticks() -> u64 {
    let stat = read("/proc/self/stat");
    // The second field is the program's name in parentheses, which may have spaces.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_shares() {
        let busy = Busy::start();
        let share = busy.share();
        assert!((0.0..=1.0).contains(&share.machine) && (0.0..=1.0).contains(&share.own), "{share:?}");
    }
}
