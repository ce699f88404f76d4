//! The decision: samples and time in, level changes and actions out.

use std::time::Duration;

use super::policy::Policy;
use crate::{clock::Tick, level::Level, signal::Action, window::Ewma};

/// How close to a line the average counts as being at it: a thousandth, and never more than a tenth of a
/// connection. An average approaches the use without ever reaching it, so a pool that stays at exactly 85 of
/// 100 would otherwise approach the line of 0.85 for ever.
fn at_the_line(max: u32) -> f64 {
    f64::min(0.001, 0.1 / f64::from(max.max(1)))
}

/// What a pool looks like at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Connections in use.
    pub in_use: u32,
    /// Connections that can be in use at this moment: the gate's limit, which the server's truth may lower.
    pub max: u32,
    /// Requests that wait for *capacity*. Not counted: those held back by their own user's limit, and class
    /// background, because deferred work is paused by a level and would hold the level that pauses it.
    pub waiting: u32,
    /// Of these, how many are class critical.
    pub waiting_critical: u32,
    /// Since when the one of them who waits longest has waited, or from when on that counts, which may lie ahead.
    /// `None` if nobody knows: then since somebody was first seen to wait.
    pub waiting_since: Option<Tick>,
    /// Since when the critical one who waits longest has waited; `None` if none does, or nobody knows.
    pub critical_waiting_since: Option<Tick>,
}

impl Sample {
    /// Connections in use per connection that can be; a pool that may have none is full once it is used.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        match (self.in_use, self.max) {
            (0, 0) => 0.0,
            (_, 0) => 1.0,
            (in_use, max) => f64::from(in_use) / f64::from(max),
        }
    }

    const fn full_with_a_waiter(&self) -> bool {
        self.in_use >= self.max && self.waiting > 0
    }
}

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// The level went one step up or down.
    LevelChanged {
        /// The level before.
        from: Level,
        /// The level now.
        to: Level,
        /// Why.
        reason: Reason,
        /// The pool as it was last seen.
        sample: Sample,
    },
    /// Do this. It is not done yet.
    Act(Action),
    /// Undo this. It is done at present.
    Undo(Action),
    /// More connections are in use than ever since level normal was left.
    Peak(Sample),
    /// The monitor has become blind, or sees again.
    Blind(bool),
    /// Critical work has waited for too long: end so many of the statements that run for work that can wait.
    Cancel(u32),
}

/// Effects in the order in which they are to be performed.
pub type Effects = Vec<Effect>;

/// Why a level changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The average use was at or above the entry for long enough.
    Use,
    /// The pool was full and someone waited for long enough.
    Full,
    /// The average use was at or below the exit, without those waiting who count, for long enough.
    Calm,
    /// There was no sample for too long.
    Blind,
    /// It was lifted from outside: the mode changed.
    Lifted,
}

/// The monitor of one pool.
#[derive(Clone, Debug)]
pub struct Machine {
    policy: Policy,
    level: Level,
    /// When the level was entered.
    entered: Tick,
    /// What is done at present, oldest first. Undone from the end.
    taken: Vec<(Level, Action)>,
    sight: Option<Sight>,
    blind: bool,
    peak: u32,
    /// Until then nothing more is cancelled: what was must have time to end.
    spared_until: Tick,
    /// The latest time that was seen: time does not go back.
    now: Tick,
}

/// What follows from the last sample, until the next one.
#[derive(Clone, Debug)]
struct Sight {
    sample: Sample,
    at: Tick,
    average: Ewma,
    to_warning: Option<Span>,
    to_critical: Option<Span>,
    from_critical: Option<Span>,
    from_warning: Option<Span>,
}

/// A stretch of time during which a condition holds, if no other sample comes. It may lie in the future.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: Tick,
    until: Tick,
}

/// Which side of a line a condition asks for.
#[derive(Clone, Copy, Debug)]
enum Line {
    AtLeast(f64),
    AtMost(f64),
}

impl Machine {
    /// A pool that has not been seen yet, at level normal.
    #[must_use]
    pub const fn new(policy: Policy) -> Self {
        Self {
            policy,
            level: Level::Normal,
            entered: Tick::ZERO,
            taken: Vec::new(),
            sight: None,
            blind: false,
            peak: 0,
            spared_until: Tick::ZERO,
            now: Tick::ZERO,
        }
    }

    /// The pool looks like this now. What it looked like since the last sample nobody knows, so nothing is due
    /// that this one contradicts: a queue that was there ten milliseconds ago, and is gone, has not stood.
    pub fn on(&mut self, sample: Sample, now: Tick) -> Effects {
        self.now = self.now.max(now);
        let mut effects = self.lift_if_blind();
        if self.blind {
            self.blind = false;
            effects.push(Effect::Blind(false));
        }
        self.sight = Some(Sight::after(self.sight.as_ref(), sample, self.now, &self.policy));
        self.settle(self.now, &mut effects);
        effects.extend(self.cancel(sample));
        effects
    }

    /// It is `now`. Decides all that is due.
    pub fn on_tick(&mut self, now: Tick) -> Effects {
        self.now = self.now.max(now);
        let mut effects = Effects::new();
        self.settle(self.now, &mut effects);
        effects.append(&mut self.lift_if_blind());
        effects
    }

    /// Undoes everything and goes to level normal; what is seen from now on counts afresh.
    pub fn lift(&mut self, now: Tick) -> Effects {
        let mut effects = self.on_tick(now);
        self.lower_to_normal(Reason::Lifted, &mut effects);
        self.sight = None;
        effects
    }

    /// From `now` on this policy holds. What was done under the old one is still undone as it was done.
    pub fn reconfigure(&mut self, policy: Policy, now: Tick) -> Effects {
        let effects = self.on_tick(now);
        self.policy = policy;
        if let Some(sight) = &self.sight {
            let mut before = sight.clone();
            before.average = Ewma::starting(self.policy.smoothing, self.now, sight.average.average(self.now));
            let at = before.at;
            let renewed = Sight::after(Some(&before), sight.sample, self.now, &self.policy);
            self.sight = Some(Sight { at, ..renewed });
        }
        effects
    }

    /// When [`Machine::on_tick`] will next have something to decide, if no sample comes before.
    #[must_use]
    pub fn next_timer(&self) -> Option<Tick> {
        [self.due_up(), self.due_down(), self.blind_at()].into_iter().flatten().min()
    }

    /// The level.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Whether it has become blind and sees nothing yet.
    #[must_use]
    pub const fn is_blind(&self) -> bool {
        self.blind
    }

    /// The average use at `now`, from 0 to 1.
    #[must_use]
    pub fn average(&self, now: Tick) -> f64 {
        self.sight.as_ref().map_or(0.0, |sight| sight.average.average(now))
    }

    /// The policy in force.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What is done at present, oldest first.
    pub fn taken(&self) -> impl DoubleEndedIterator<Item = Action> {
        self.taken.iter().map(|&(_, action)| action)
    }

    /// Whether the pool deserves a close look: half way to Warning, or someone waits, or a level holds.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        let near = |s: &Sight| s.sample.waiting > 0 || s.sample.ratio() >= self.policy.warning / 2.0;
        self.level != Level::Normal || self.sight.as_ref().is_some_and(near)
    }

    /// One statement for each critical request that waits, once in `cancel_after`.
    fn cancel(&mut self, sample: Sample) -> Option<Effect> {
        let (after, since) = (self.policy.cancel_after?, sample.critical_waiting_since?);
        if self.now < self.spared_until.max(since + after) {
            return None;
        }
        self.spared_until = self.now + after;
        Some(Effect::Cancel(sample.waiting_critical.max(1)))
    }

    /// Whoever has seen nothing for too long lets go of everything.
    fn lift_if_blind(&mut self) -> Effects {
        let mut effects = Effects::new();
        if self.blind_at().is_some_and(|at| at <= self.now) {
            self.blind = true;
            effects.push(Effect::Blind(true));
            self.lower_to_normal(Reason::Blind, &mut effects);
            self.sight = None;
        }
        effects
    }

    /// Takes every step that is due, in one direction. Only a senseless policy can make a level due in both,
    /// and then this is what keeps it from going round for ever.
    fn settle(&mut self, now: Tick, effects: &mut Effects) {
        let due = |at: Option<Tick>| at.is_some_and(|at| at <= now);
        if due(self.due_up()) {
            while due(self.due_up()) {
                self.raise(effects);
            }
        } else {
            while due(self.due_down()) {
                self.lower(Reason::Calm, effects);
            }
        }
        self.note_peak(effects);
    }

    /// When the level will be raised. Critical follows Warning at once if it is due by then.
    fn due_up(&self) -> Option<Tick> {
        let sight = self.sight.as_ref()?;
        match self.level {
            Level::Normal => sight.to_warning?.complete(self.policy.up, self.entered),
            Level::Warning => sight.to_critical?.complete(self.policy.up, self.entered),
            Level::Critical => None,
        }
    }

    fn due_down(&self) -> Option<Tick> {
        let sight = self.sight.as_ref()?;
        match self.level {
            Level::Normal => None,
            Level::Warning => sight.from_warning?.complete(self.policy.down, self.entered),
            Level::Critical => sight.from_critical?.complete(self.policy.down_critical, self.entered),
        }
    }

    fn blind_at(&self) -> Option<Tick> {
        self.sight.as_ref().map(|sight| sight.at + self.policy.blind_after)
    }

    fn raise(&mut self, effects: &mut Effects) {
        let (to, actions) = match self.level {
            Level::Normal => (Level::Warning, self.policy.at_warning()),
            Level::Warning | Level::Critical => (Level::Critical, Policy::AT_CRITICAL),
        };
        let sample = self.sample();
        let reason = if sample.full_with_a_waiter() { Reason::Full } else { Reason::Use };
        self.change(to, reason, effects);
        for action in actions {
            self.taken.push((to, action));
            effects.push(Effect::Act(action));
        }
    }

    fn lower(&mut self, reason: Reason, effects: &mut Effects) {
        let left = self.level;
        let to = match left {
            Level::Normal | Level::Warning => Level::Normal,
            Level::Critical => Level::Warning,
        };
        self.change(to, reason, effects);
        while let Some((_, action)) = self.taken.pop_if(|(level, _)| *level >= left) {
            effects.push(Effect::Undo(action));
        }
    }

    fn lower_to_normal(&mut self, reason: Reason, effects: &mut Effects) {
        while self.level != Level::Normal {
            self.lower(reason, effects);
        }
        self.peak = 0;
    }

    fn change(&mut self, to: Level, reason: Reason, effects: &mut Effects) {
        effects.push(Effect::LevelChanged { from: self.level, to, reason, sample: self.sample() });
        self.level = to;
        self.entered = self.now;
    }

    fn note_peak(&mut self, effects: &mut Effects) {
        let sample = self.sample();
        if self.level == Level::Normal {
            self.peak = 0;
        } else if sample.in_use > self.peak {
            self.peak = sample.in_use;
            effects.push(Effect::Peak(sample));
        }
    }

    /// The pool as it was last seen.
    fn sample(&self) -> Sample {
        self.sight.as_ref().map_or_else(Sample::default, |sight| sight.sample)
    }
}

impl Policy {
    const AT_CRITICAL: [Action; 3] = [Action::CriticalOnly, Action::OmitOptional, Action::PauseDurable];

    const fn at_warning(&self) -> [Action; 3] {
        let batch = Action::Batch { from: self.batch, to: self.batch_under_pressure };
        [Action::Shed, batch, Action::UserLimit { limit: self.user_limit }]
    }
}

impl Sight {
    /// What follows from `sample` seen at `now`. A condition that held before and still does goes on.
    fn after(before: Option<&Self>, sample: Sample, now: Tick, policy: &Policy) -> Self {
        let average = match before {
            None => Ewma::starting(policy.smoothing, now, sample.ratio()),
            Some(before) => {
                let mut average = before.average.clone();
                average.set(now, sample.ratio());
                average
            }
        };
        let near = at_the_line(sample.max);
        let someone = !policy.needs_waiter || sample.waiting > 0;
        // Where a level needs a waiter, one who came a moment ago has not waited yet.
        let waited = |span: Span| span.not_before(sample.waiting_since.unwrap_or(span.from));
        let rises_to = |line: f64, before: Option<Span>| {
            Span::of(&average, now, Line::AtLeast(line - near), sample.ratio())
                .filter(|_| someone)
                .map(|span| span.joined(before, now))
                .map(|span| if policy.needs_waiter { waited(span) } else { span })
        };
        let falls_to = |line: f64, waiting: u32, before: Option<Span>| {
            Span::of(&average, now, Line::AtMost(line + near), sample.ratio())
                .filter(|_| waiting == 0)
                .map(|span| span.joined(before, now))
        };
        let warned = before.and_then(|b| b.to_warning);
        let to_warning = match sample.full_with_a_waiter() {
            true => Some(waited(Span { from: now, until: Tick::MAX }.joined(warned, now))),
            false => rises_to(policy.warning, warned),
        };
        Self {
            sample,
            at: now,
            to_warning,
            to_critical: rises_to(policy.critical, before.and_then(|b| b.to_critical)),
            from_critical: falls_to(
                policy.critical_exit,
                sample.waiting_critical,
                before.and_then(|b| b.from_critical),
            ),
            from_warning: falls_to(policy.warning_exit, sample.waiting, before.and_then(|b| b.from_warning)),
            average,
        }
    }
}

impl Span {
    /// The stretch during which the average is on the right side of `line`, while the use stays at `value`.
    fn of(average: &Ewma, now: Tick, line: Line, value: f64) -> Option<Self> {
        let (limit, rising) = match line {
            Line::AtLeast(limit) => (limit, true),
            Line::AtMost(limit) => (limit, false),
        };
        let from = average.reaches(now, limit, rising)?;
        // An average goes towards the use and never past it.
        let stays = if rising { value >= limit } else { value <= limit };
        let until = if stays { None } else { average.reaches(now, limit, !rising) };
        Some(Self { from, until: until.unwrap_or(Tick::MAX) })
    }

    /// This stretch, begun earlier if `before` lasted until now and this one begins now.
    fn joined(self, before: Option<Self>, now: Tick) -> Self {
        match before {
            Some(before) if self.from == now && before.from <= now && now <= before.until => {
                Self { from: before.from, until: self.until }
            }
            Some(_) | None => self,
        }
    }

    /// This stretch, but not from before `at`.
    fn not_before(self, at: Tick) -> Self {
        Self { from: self.from.max(at), ..self }
    }

    /// When, at a level entered at `entered`, it has lasted for `dwell`; `None` if it does not last until then.
    fn complete(self, dwell: Duration, entered: Tick) -> Option<Tick> {
        Some((self.from + dwell).max(entered)).filter(|&at| at <= self.until)
    }
}
