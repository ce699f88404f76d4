//! Every decision of a gate, kept so that it can be judged afterwards.
//!
//! A gate decides under a lock, with the time of that moment, by a machine that knows nothing else. So the same
//! calls, made to a copy of the machine as it was at the beginning, must give the same answers, however many
//! threads and actors had a hand in them, and whoever died in between. Tests hold the runtime to that.

use crate::{
    clock::Tick,
    gate::{Answer, Ask, Effect, JobId, Machine, Refusal, Work},
    signal::Name,
};

/// What a call was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Entered(Result<JobId, Refusal>),
    Answer(Answer),
    Nothing,
}

/// A call of a machine, to be made again.
pub(super) type Call = Box<dyn Fn(&mut Machine, &mut Vec<Effect>) -> Told + Send>;

/// The calls of a machine from some moment on.
pub(super) struct Journal {
    start: Machine,
    entries: Vec<(Call, Told, Vec<Effect>)>,
}

impl Journal {
    pub(super) fn of(machine: &Machine) -> Self {
        Self { start: machine.clone(), entries: Vec::new() }
    }

    pub(super) fn note(&mut self, call: Call, told: Told, effects: &[Effect]) {
        self.entries.push((call, told, effects.to_vec()));
    }

    /// Makes all calls again, to the machine of the beginning. Says how many there were.
    ///
    /// # Errors
    /// The first call that is answered otherwise, with both answers.
    pub(super) fn replay(self) -> Result<usize, String> {
        let mut machine = self.start;
        let mut effects = Vec::new();
        for (n, (call, told, followed)) in self.entries.iter().enumerate() {
            effects.clear();
            let again = call(&mut machine, &mut effects);
            if again != *told || effects != *followed {
                return Err(format!("call {n}: told {told:?} {followed:?}, again {again:?} {effects:?}"));
            }
        }
        Ok(self.entries.len())
    }
}

/// [`Work`] that outlives its ticket.
#[derive(Clone)]
pub(super) struct KeptWork {
    work: Work<'static>,
    user: Option<Name>,
    operation: Option<Name>,
}

impl KeptWork {
    pub(super) fn of(work: &Work<'_>) -> Self {
        let Work { class, deadline, queries, attempt, user, operation } = *work;
        Self {
            work: Work { class, deadline, queries, attempt, user: None, operation: None },
            user: user.cloned(),
            operation: operation.cloned(),
        }
    }

    pub(super) fn get(&self) -> Work<'_> {
        Work { user: self.user.as_ref(), operation: self.operation.as_ref(), ..self.work }
    }
}

/// An acquisition, to be made again at its own time.
pub(super) fn acquisition(ask: &Ask<'_>, now: Tick) -> Call {
    let (job, nested, operation) = (ask.job, ask.nested, ask.operation.cloned());
    let work = KeptWork::of(&ask.work);
    Box::new(move |machine, effects| {
        let ask = Ask { job, nested, operation: operation.as_ref(), work: work.get() };
        Told::Answer(machine.acquire(&ask, now, effects))
    })
}
