//! What an administrator may do to children.

use super::{
    child::{Key, Life},
    event::{Effect, Refused, Verb},
    machine::{Machine, Phase},
    plan::{Deferred, LaneId, Plan, Why},
    policy::ChildPolicy,
};
use crate::clock::Tick;

impl Machine {
    /// Lets a verb wait for its lane, which is mostly free. A start that hangs does not stand in the way of
    /// a stop.
    pub(super) fn ask(&mut self, request: u64, verb: Verb) {
        if matches!(self.phase, Phase::Ending | Phase::Ended) {
            return self.reply(request, Err(Refused::Terminated));
        }
        let stop = matches!(verb, Verb::Stop(_));
        let what = Deferred::Verb { request, verb };
        if let (true, LaneId::Of(key)) = (stop, self.lane_for(&what)) {
            self.give_way(key);
        }
        self.submit(what);
    }

    pub(super) fn decide_verb(&mut self, request: u64, verb: Verb, now: Tick) {
        let found = self.table.find(verb.child());
        let refused = match (verb, found) {
            (Verb::Start(child), None) => self.add(request, child, now).err(),
            (Verb::Start(_), Some(key)) => Some(self.present(key)),
            (Verb::Stop(_) | Verb::Restart(_) | Verb::Delete(_), None) => Some(Refused::NotFound),
            (Verb::Stop(_), Some(key)) => {
                self.begin(self.lane_of(key), Plan::new(Why::Stop { request }, vec![key], []));
                None
            }
            (Verb::Restart(_), Some(key)) => self.idle(key).map(|()| self.start(request, key, false)).err(),
            (Verb::Delete(_), Some(key)) => self.idle(key).map(|()| self.delete(request, key)).err(),
        };
        if let Some(refused) = refused {
            self.reply(request, Err(refused));
        }
    }

    pub(super) fn reply(&mut self, request: u64, result: Result<(), Refused>) {
        self.effects.push(Effect::Reply { request, result });
    }

    fn add(&mut self, request: u64, child: ChildPolicy, now: Tick) -> Result<(), Refused> {
        self.policy.check([&child]).map_err(Refused::Invalid)?;
        let key = self.table.insert(child, now);
        self.start(request, key, true);
        Ok(())
    }

    fn start(&mut self, request: u64, key: Key, new: bool) {
        self.begin(self.lane_of(key), Plan::new(Why::Start { request, new }, vec![], [key]));
    }

    fn delete(&mut self, request: u64, key: Key) {
        self.forget(key);
        self.reply(request, Ok(()));
    }

    /// Why a child that is there cannot be added.
    fn present(&self, key: Key) -> Refused {
        match self.table.get(key).map(|child| &child.life) {
            Some(Life::Up | Life::Starting { .. } | Life::Stopping { .. } | Life::Ended(_)) => {
                Refused::AlreadyStarted
            }
            Some(Life::Down | Life::Failed | Life::Waiting(_)) | None => Refused::AlreadyPresent,
        }
    }

    /// Whether a child is down for good, as it must be to be restarted or deleted.
    fn idle(&self, key: Key) -> Result<(), Refused> {
        match self.table.get(key).map(|child| &child.life) {
            Some(Life::Down) => Ok(()),
            Some(Life::Failed | Life::Waiting(_)) => Err(Refused::Restarting),
            Some(Life::Up | Life::Starting { .. } | Life::Stopping { .. } | Life::Ended(_)) => {
                Err(Refused::Running)
            }
            None => Err(Refused::NotFound),
        }
    }

    /// Gives up the start of a child that has a lane of its own.
    fn give_way(&mut self, key: Key) {
        let starting = self.table.get(key).is_some_and(|child| matches!(child.life, Life::Starting { .. }));
        let lane = self.table.get_mut(key).and_then(|child| child.lane.as_deref_mut());
        if let Some(plan) = lane.and_then(|lane| lane.plan.take_if(|_| starting)) {
            match plan.why {
                Why::Start { request, .. } => {
                    self.reply(request, Err(Refused::StartFailed("it was stopped".into())))
                }
                Why::Boot | Why::Restart { .. } | Why::Stop { .. } | Why::End(_) => {}
            }
        }
    }
}
