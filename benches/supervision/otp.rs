//! Erlang/OTP, in a process of its own: `otp.escript` beside this file.

use std::process::{Command, Stdio};

use crate::{Crowd, End};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/supervision/otp.escript");

/// Whether Erlang is installed.
pub(crate) fn is_there() -> bool {
    let asked = Command::new("erl").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// As the other contenders, with a fresh supervisor after every `a_supervisor` crashes. The first are for warming up.
pub(crate) fn restarts(end: End, times: usize, a_supervisor: usize, workers: usize) -> Vec<u64> {
    let how = match end {
        End::Panic => "panic",
        End::Error => "error",
    };
    let took = run(&["restarts", how, &times.to_string(), &a_supervisor.to_string()], workers);
    let took: Vec<_> = took.split_whitespace().filter_map(|nanos| nanos.parse().ok()).collect();
    assert_eq!(took.len(), times, "otp.escript failed");
    took
}

pub(crate) fn crowd(count: usize, workers: usize) -> Option<Crowd> {
    Crowd::read(&run(&["crowd", &count.to_string()], workers))
}

fn run(arguments: &[&str], workers: usize) -> String {
    let flags = format!("+S {workers}:{workers} +P 1000000");
    let output = Command::new("escript").arg(SCRIPT).args(arguments).env("ERL_FLAGS", flags).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
