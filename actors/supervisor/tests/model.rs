//! OTP's supervisor in its plainest form, to compare with: a list of children, a list of restarts, and starts
//! and stops that are over when they return. It shares no code with the machine.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pid {
    Undefined,
    Restarting,
    Alive,
}

pub(super) struct Otp<F> {
    policy: Policy,
    restarts: Vec<Tick>,
    pub(super) children: Vec<(ChildPolicy, Pid)>,
    /// Whether a start of this child succeeds now.
    start: F,
    pub(super) log: Vec<String>,
    pub(super) ended: bool,
}

impl<F: FnMut(&str) -> bool> Otp<F> {
    pub(super) fn boot(policy: Policy, children: &[ChildPolicy], start: F) -> Self {
        let children = children.iter().map(|child| (child.clone(), Pid::Undefined)).collect();
        let mut otp = Self { policy, restarts: vec![], children, start, log: vec![], ended: false };
        if otp.start_children(0).is_some() {
            otp.terminate();
        }
        otp
    }

    pub(super) fn exit(&mut self, id: &str, exit: &Exit, now: Tick) {
        let at = self.at(id).expect("it runs");
        let child = self.children[at].0.clone();
        let brought_back = match child.restart {
            Restart::Permanent => true,
            Restart::Transient => !matches!(exit, Exit::Normal | Exit::Shutdown),
            Restart::Temporary => false,
        };
        if brought_back {
            return self.restart(id, now);
        }
        self.delete_or_undefine(at);
        let others = self.children.iter().any(|(other, pid)| other.significant && *pid != Pid::Undefined);
        let ends = match self.policy.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => child.significant,
            AutoShutdown::AllSignificant => child.significant && !others,
        };
        if ends {
            self.terminate();
        }
    }

    pub(super) fn verb(&mut self, verb: &Verb) -> Result<(), Refused> {
        if self.ended {
            return Err(Refused::Terminated);
        }
        let at = self.at(verb.child());
        match (verb, at) {
            (Verb::Start(child), None) => {
                if !self.start(&child.id) {
                    return Err(Refused::StartFailed("planted".into()));
                }
                self.children.push((child.clone(), Pid::Alive));
                Ok(())
            }
            (Verb::Start(_), Some(at)) if self.children[at].1 == Pid::Alive => Err(Refused::AlreadyStarted),
            (Verb::Start(_), Some(_)) => Err(Refused::AlreadyPresent),
            (_, None) => Err(Refused::NotFound),
            (Verb::Stop(_), Some(at)) => {
                self.stop(at);
                self.delete_or_undefine(at);
                Ok(())
            }
            (Verb::Restart(_) | Verb::Delete(_), Some(at)) if self.children[at].1 == Pid::Alive => {
                Err(Refused::Running)
            }
            (Verb::Restart(id), Some(at)) => {
                if !self.start(&id.clone()) {
                    return Err(Refused::StartFailed("planted".into()));
                }
                self.children[at].1 = Pid::Alive;
                Ok(())
            }
            (Verb::Delete(_), Some(at)) => {
                self.children.remove(at);
                Ok(())
            }
        }
    }

    fn restart(&mut self, id: &str, now: Tick) {
        let mut failed = Some(id.to_owned());
        while let Some(id) = failed.take() {
            self.restarts.push(now);
            self.restarts.retain(|&at| now.since(at) <= self.policy.within);
            let at = self.at(&id).expect("it is known");
            if self.restarts.len() > self.policy.max_restarts as usize {
                self.children[at].1 = Pid::Undefined;
                return self.terminate();
            }
            failed = match self.policy.strategy {
                Strategy::OneForOne => {
                    let ok = self.start(&id);
                    self.children[at].1 = if ok { Pid::Alive } else { Pid::Restarting };
                    (!ok).then_some(id)
                }
                Strategy::OneForAll => self.restart_from(at, 0),
                Strategy::RestForOne => self.restart_from(at, at),
            };
        }
    }

    fn restart_from(&mut self, failed: usize, from: usize) -> Option<String> {
        self.children[failed].1 = Pid::Undefined;
        for at in (from..self.children.len()).rev() {
            self.stop(at);
            self.delete_or_undefine(at);
        }
        self.start_children(from)
    }

    fn start_children(&mut self, from: usize) -> Option<String> {
        for at in from..self.children.len() {
            let id = self.children[at].0.id.clone();
            if !self.start(&id) {
                self.children[at].1 = Pid::Restarting;
                return Some(id.to_string());
            }
            self.children[at].1 = Pid::Alive;
        }
        None
    }

    fn terminate(&mut self) {
        for at in (0..self.children.len()).rev() {
            self.stop(at);
        }
        self.children.clear();
        self.ended = true;
    }

    fn stop(&mut self, at: usize) {
        if self.children[at].1 == Pid::Alive {
            self.log.push(format!("stop {}", self.children[at].0.id));
        }
    }

    fn start(&mut self, id: &str) -> bool {
        let ok = (self.start)(id);
        self.log.push(format!("{} {id}", if ok { "start" } else { "fail" }));
        ok
    }

    fn delete_or_undefine(&mut self, at: usize) {
        if self.children[at].0.restart == Restart::Temporary {
            self.children.remove(at);
        } else {
            self.children[at].1 = Pid::Undefined;
        }
    }

    fn at(&self, id: &str) -> Option<usize> {
        self.children.iter().position(|(child, _)| &*child.id == id)
    }
}
