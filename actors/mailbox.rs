//! A bounded queue in front of an actor, which outlives the actor.
//!
//! ractor's own mailboxes have no bound, show no depth, and die with the actor: a million messages pile up
//! unseen, and all of them are gone when it panics. So the messages wait *here*; what goes through ractor is
//! one [`Wake`], and at most one at a time. A restarted actor is bound to the same mailbox and finds what its
//! predecessor had not taken. What it had taken is lost with it: nothing that must survive is only a message.
//!
//! Since an actor that was woken takes until there is nothing left, the mailbox knows whether it is at work and
//! whether it gets on ([`Mailbox::turn`]): whoever looks now and then sees an actor that hangs.
//!
//! At the bound a *report* ([`Mailbox::tell`]) pushes the oldest message out, because the newest says more,
//! and is counted in [`Mailbox::dropped`]; a *command* ([`Mailbox::ask`]) is given back to its sender.

use std::{collections::VecDeque, fmt, sync::Arc};

use parking_lot::Mutex;
use ractor::ActorRef;

use crate::signal::Name;

/// The one message that goes through ractor: there is something in the mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake;

/// A bounded queue of `M` for one child, whichever generation of it is alive. Cheap to clone.
pub struct Mailbox<M>(Arc<Shared<M>>);

struct Shared<M> {
    child: Name,
    capacity: usize,
    state: Mutex<State<M>>,
}

struct State<M> {
    queue: VecDeque<M>,
    dropped: u64,
    awake: bool,
    /// How often an actor was woken, bound, or took something.
    turns: u64,
    actor: Option<ActorRef<Wake>>,
}

/// A command that found the mailbox full. It is given back unharmed.
#[derive(Debug)]
pub struct Full<M> {
    /// The child whose mailbox is full.
    pub child: Name,
    /// The command.
    pub message: M,
}

impl<M> fmt::Display for Full<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the mailbox of {} is full", self.child)
    }
}

impl<M: fmt::Debug> std::error::Error for Full<M> {}

impl<M: Send + 'static> Mailbox<M> {
    /// An empty mailbox of `child` that holds at most `capacity` messages (at least one).
    #[must_use]
    pub fn new(child: impl Into<Name>, capacity: usize) -> Self {
        let state = State { queue: VecDeque::new(), dropped: 0, awake: false, turns: 0, actor: None };
        Self(Arc::new(Shared { child: child.into(), capacity: capacity.max(1), state: Mutex::new(state) }))
    }

    /// From now on `actor` is woken. Called by the actor itself when it starts, so that messages which came
    /// while there was no actor wake it at once.
    pub fn bind(&self, actor: ActorRef<Wake>) {
        let wake = {
            let mut state = self.0.state.lock();
            state.awake = !state.queue.is_empty();
            state.actor = Some(actor);
            state.turns += 1;
            state.to_wake(state.awake)
        };
        nudge(wake);
    }

    /// Leaves a report. If the mailbox is full the oldest message makes room for it.
    pub fn tell(&self, message: M) {
        let wake = {
            let mut state = self.0.state.lock();
            if state.queue.len() == self.0.capacity {
                state.queue.pop_front();
                state.dropped += 1;
            }
            state.push(message)
        };
        nudge(wake);
    }

    /// Leaves a command.
    ///
    /// # Errors
    /// [`Full`], with the command, if there is no room.
    pub fn ask(&self, message: M) -> Result<(), Full<M>> {
        let wake = {
            let mut state = self.0.state.lock();
            if state.queue.len() == self.0.capacity {
                return Err(Full { child: Arc::clone(&self.0.child), message });
            }
            state.push(message)
        };
        nudge(wake);
        Ok(())
    }

    /// Takes the oldest message. An actor that was woken takes until there is none.
    #[must_use]
    pub fn take(&self) -> Option<M> {
        let mut state = self.0.state.lock();
        let message = state.queue.pop_front();
        state.awake = message.is_some();
        state.turns += 1;
        message
    }

    /// `None` while the actor has nothing to do. Otherwise a number that is another one whenever it has got on: if
    /// it stays the same for long, the actor hangs.
    #[must_use]
    pub fn turn(&self) -> Option<u64> {
        let state = self.0.state.lock();
        state.awake.then_some(state.turns)
    }

    /// The child this is the mailbox of.
    #[must_use]
    pub fn child(&self) -> &Name {
        &self.0.child
    }

    /// How many messages wait.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.0.state.lock().queue.len()
    }

    /// How many reports have been pushed out by newer ones.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.state.lock().dropped
    }
}

impl<M> State<M> {
    /// Adds a message and says whom to wake for it: nobody if the actor already knows.
    fn push(&mut self, message: M) -> Option<ActorRef<Wake>> {
        self.queue.push_back(message);
        let asleep = !self.awake;
        self.awake = true;
        self.turns += u64::from(asleep);
        self.to_wake(asleep)
    }

    fn to_wake(&self, wake: bool) -> Option<ActorRef<Wake>> {
        self.actor.as_ref().filter(|_| wake).cloned()
    }
}

/// Wakes outside the lock. An actor that has just died does not hear it; its successor is woken by `bind`.
fn nudge(actor: Option<ActorRef<Wake>>) {
    if let Some(actor) = actor {
        let _ = actor.cast(Wake);
    }
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("child", &self.0.child).field("capacity", &self.0.capacity).finish()
    }
}

#[cfg(test)]
mod tests {
    use ractor::{Actor, ActorProcessingErr};
    use tokio::sync::mpsc;

    use super::*;

    /// Passes on what it takes, and panics when it takes a 13.
    struct Reader;

    impl Actor for Reader {
        type Msg = Wake;
        type State = (Mailbox<u32>, mpsc::UnboundedSender<u32>);
        type Arguments = Self::State;

        async fn pre_start(
            &self,
            myself: ActorRef<Wake>,
            (mailbox, out): Self::Arguments,
        ) -> Result<Self::State, ActorProcessingErr> {
            mailbox.bind(myself);
            Ok((mailbox, out))
        }

        async fn handle(
            &self,
            _: ActorRef<Wake>,
            _: Wake,
            (mailbox, out): &mut Self::State,
        ) -> Result<(), ActorProcessingErr> {
            while let Some(message) = mailbox.take() {
                assert_ne!(message, 13, "planted");
                let _ = out.send(message);
            }
            Ok(())
        }
    }

    #[test]
    fn a_full_mailbox_drops_the_oldest_report_and_refuses_a_command() {
        let mailbox = Mailbox::new("reader", 2);
        (1..=3).for_each(|n| mailbox.tell(n));
        assert_eq!(mailbox.ask(4).expect_err("it is full").message, 4);
        assert_eq!((mailbox.dropped(), mailbox.depth()), (1, 2));
        assert_eq!([mailbox.take(), mailbox.take(), mailbox.take()], [Some(2), Some(3), None]);
    }

    #[test]
    fn an_actor_is_at_work_from_its_waking_until_it_finds_nothing_and_every_step_shows() {
        let mailbox = Mailbox::new("reader", 2);
        assert_eq!(mailbox.turn(), None);
        mailbox.tell(1);
        let woken = mailbox.turn().expect("it was woken");
        mailbox.tell(2);
        assert_eq!(mailbox.turn(), Some(woken), "more mail is no progress");
        assert_eq!(mailbox.take(), Some(1));
        assert!(mailbox.turn().is_some_and(|turn| turn > woken));
        assert_eq!((mailbox.take(), mailbox.take(), mailbox.turn()), (Some(2), None, None));
    }

    #[tokio::test]
    async fn what_an_actor_had_not_taken_is_taken_by_its_successor() {
        let (out, mut seen) = mpsc::unbounded_channel();
        let mailbox = Mailbox::new("reader", 100);
        (12..=15).for_each(|n| mailbox.tell(n));
        let (_, first) = Actor::spawn(None, Reader, (mailbox.clone(), out.clone())).await.expect("it starts");
        first.await.expect("ractor catches the panic");
        assert_eq!(mailbox.depth(), 2, "13 was taken and is lost with its reader");
        let (second, _) = Actor::spawn(None, Reader, (mailbox.clone(), out)).await.expect("it starts");
        let mut taken = Vec::new();
        while taken.last() != Some(&15) {
            taken.push(seen.recv().await.expect("a reader lives"));
        }
        assert_eq!(taken, [12, 14, 15]);
        second.stop(None);
    }
}
