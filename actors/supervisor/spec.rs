//! How children are started: a policy, and a closure that starts one generation.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::policy::{ChildPolicy, Policy};
use crate::signal::Name;

/// What a start is given.
#[derive(Clone, Debug)]
pub struct StartContext {
    /// The supervisor, to be linked to.
    pub supervisor: ActorCell,
    /// Which start of the child this is.
    pub generation: u64,
}

/// A start that is under way. It may be dropped, and then there must be no actor.
pub type Starting = Pin<Box<dyn Future<Output = Result<ActorCell, ActorProcessingErr>> + Send>>;

/// Starts one generation of a child.
pub type Start = Arc<dyn Fn(StartContext) -> Starting + Send + Sync>;

/// A child, and how it is started.
#[derive(Clone)]
pub struct ChildSpec {
    /// When it is restarted, and how much it matters.
    pub policy: ChildPolicy,
    /// Starts one generation of it, linked to its supervisor.
    pub start: Start,
}

impl ChildSpec {
    /// A child that is the actor which `make` makes, anew for each generation.
    pub fn actor<A: Actor>(
        policy: ChildPolicy,
        make: impl Fn() -> (A, A::Arguments) + Send + Sync + 'static,
    ) -> Self {
        let start: Start = Arc::new(move |context| {
            let (actor, arguments) = make();
            Box::pin(async move {
                let (actor, _) =
                    Actor::spawn_linked(None, Supervised(actor), arguments, context.supervisor).await?;
                Ok(actor.get_cell())
            })
        });
        Self { policy, start }
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// A supervisor and its children.
#[derive(Clone, Debug)]
pub struct SupervisorSpec {
    /// Its name, unique in its tree: commands and views are found by it.
    pub name: Name,
    /// How it treats its children.
    pub policy: Policy,
    /// Its children, in start order.
    pub children: Vec<ChildSpec>,
}

/// An error that a child returned, as opposed to a panic: ractor reports both as the same event.
#[derive(Debug)]
pub(super) struct Returned(ActorProcessingErr);

impl fmt::Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Returned {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// The same actor, whose returned errors can be told from panics.
///
/// Its futures are those of the actor and nothing around them: an `async fn` would keep what it was given beside the
/// future that it was given to, for each actor as long as it lives.
struct Supervised<A>(A);

impl<A: Actor> Actor for Supervised<A> {
    type Msg = A::Msg;
    type State = A::State;
    type Arguments = A::Arguments;

    fn pre_start(
        &self,
        myself: ActorRef<A::Msg>,
        arguments: A::Arguments,
    ) -> impl Future<Output = Result<A::State, ActorProcessingErr>> + Send {
        self.0.pre_start(myself, arguments)
    }

    fn post_start(
        &self,
        myself: ActorRef<A::Msg>,
        state: &mut A::State,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send {
        Told { turn: self.0.post_start(myself, state) }
    }

    fn post_stop(
        &self,
        myself: ActorRef<A::Msg>,
        state: &mut A::State,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send {
        Told { turn: self.0.post_stop(myself, state) }
    }

    fn handle(
        &self,
        myself: ActorRef<A::Msg>,
        message: A::Msg,
        state: &mut A::State,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send {
        Told { turn: self.0.handle(myself, message, state) }
    }

    fn handle_supervisor_evt(
        &self,
        myself: ActorRef<A::Msg>,
        event: SupervisionEvent,
        state: &mut A::State,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send {
        Told { turn: self.0.handle_supervisor_evt(myself, event, state) }
    }
}

pin_project! {
    /// A turn of an actor, whose error is told as one that it returned.
    struct Told<F> {
        #[pin]
        turn: F,
    }
}

impl<F: Future<Output = Result<(), ActorProcessingErr>>> Future for Told<F> {
    type Output = Result<(), ActorProcessingErr>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().turn.poll(cx).map_err(|error| Returned(error).into())
    }
}
