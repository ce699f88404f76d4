//! The shell: does what is due when it is due, and what a pool's level asks for. Without it a circuit opens,
//! half-opens and closes all the same, with the next call that comes.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::runtime::Handle;

use super::handle::Breaker;
use crate::{
    alarm::Alarm,
    fault::Fault,
    mailbox::{Mailbox, Wake},
};

/// Messages that may wait. All but the faults of tests say the same, and one is enough.
const MAILBOX: usize = 8;
/// The next look is no sooner than this: what is due is read off a clock that is late by a few milliseconds.
const LEAST: Duration = Duration::from_millis(1);

/// What the actor is told.
#[derive(Debug)]
pub enum Message {
    /// Look at the circuit.
    Look,
    /// Fail, to see who notices.
    #[doc(hidden)]
    Fault(Fault),
}

/// What the actor `breaker:ENDPOINT` works with; it outlives the actor. Clones are the same.
#[derive(Clone)]
pub struct Watch(Arc<Shared>);

struct Shared {
    breaker: Breaker,
    post: Post,
    /// Whether the endpoint is to be shed. It is a state and not a message, so that whichever actor lives next
    /// puts it in force, however often it changed meanwhile.
    shed: AtomicBool,
}

/// How a circuit calls its actor.
#[derive(Clone)]
struct Post {
    mailbox: Mailbox<Message>,
    /// Whether it has been called and has not looked yet.
    called: Arc<AtomicBool>,
}

impl Watch {
    /// `make` makes the circuit, which calls what it is given when something may be due earlier than it was.
    pub(super) fn new(name: &str, make: impl FnOnce(Box<dyn Fn() + Send + Sync>) -> Breaker) -> Self {
        let mailbox = Mailbox::new(format!("breaker:{name}"), MAILBOX);
        let post = Post { mailbox, called: Arc::new(AtomicBool::new(false)) };
        let breaker = make({
            let post = post.clone();
            Box::new(move || post.call())
        });
        Self(Arc::new(Shared { breaker, post, shed: AtomicBool::new(false) }))
    }

    /// The circuit.
    #[must_use]
    pub fn breaker(&self) -> &Breaker {
        &self.0.breaker
    }

    /// The actor's mailbox.
    #[must_use]
    pub fn mailbox(&self) -> &Mailbox<Message> {
        &self.0.post.mailbox
    }

    /// The endpoint is to be shed because of its pool's level, or no longer. The actor sees to it.
    pub fn shed(&self, on: bool) {
        self.0.shed.store(on, Ordering::Release);
        self.0.post.call();
    }
}

impl Post {
    fn call(&self) {
        if !self.called.swap(true, Ordering::AcqRel) {
            self.mailbox.tell(Message::Look);
        }
    }
}

/// The actor `breaker:ENDPOINT`.
#[derive(Clone, Copy, Debug)]
pub struct Keeper;

/// What one generation of the actor has: nothing that its successor would miss.
pub struct Keeping {
    watch: Watch,
    runtime: Handle,
    alarm: Option<Alarm>,
}

impl Actor for Keeper {
    type Msg = Wake;
    type State = Keeping;
    type Arguments = Watch;

    async fn pre_start(&self, myself: ActorRef<Wake>, watch: Watch) -> Result<Keeping, ActorProcessingErr> {
        watch.mailbox().bind(myself);
        // A predecessor may have been called, and have died before it looked.
        watch.mailbox().tell(Message::Look);
        Ok(Keeping { watch, runtime: Handle::current(), alarm: None })
    }

    async fn handle(
        &self,
        _: ActorRef<Wake>,
        _: Wake,
        keeping: &mut Keeping,
    ) -> Result<(), ActorProcessingErr> {
        while let Some(message) = keeping.watch.mailbox().take() {
            match message {
                Message::Look => keeping.look(),
                Message::Fault(fault) => fault.happen().await?,
            }
        }
        Ok(())
    }
}

impl Keeping {
    fn look(&mut self) {
        let Shared { breaker, post, shed } = &*self.watch.0;
        // From here on a new call is needed for what changes after it.
        post.called.store(false, Ordering::Release);
        breaker.shed(shed.load(Ordering::Acquire));
        self.alarm = breaker.tick().map(|due| {
            let wait = due.since(breaker.clock().coarse()).max(LEAST);
            let post = post.clone();
            let task = self.runtime.spawn(async move {
                tokio::time::sleep(wait).await;
                post.call();
            });
            task.into()
        });
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.0.breaker).finish()
    }
}

impl fmt::Debug for Keeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keeping").field(&self.watch).finish()
    }
}
