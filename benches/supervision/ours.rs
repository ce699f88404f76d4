//! The supervisor of this project.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use selfheal::{
    backoff::Backoff,
    clock::Clock,
    signal::Signals,
    supervisor::{ChildPolicy, ChildSpec, Children, Context, Policy, Root, SupervisorSpec},
};
use tokio::sync::oneshot;

use crate::{Crowd, End, Stage};

pub(crate) enum Do {
    Answer(oneshot::Sender<()>),
    Crash(End),
}

/// The child of this contender and of plain ractor.
pub(crate) struct Worker;

impl Actor for Worker {
    type Msg = Do;
    type State = Stage<ActorRef<Do>>;
    type Arguments = Self::State;

    async fn pre_start(
        &self,
        myself: ActorRef<Do>,
        stage: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        stage.enter(myself);
        Ok(stage)
    }

    async fn handle(
        &self,
        _: ActorRef<Do>,
        order: Do,
        stage: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match order {
            Do::Answer(to) => drop(to.send(())),
            Do::Crash(end) => stage.crash(end)?,
        }
        Ok(())
    }
}

pub(crate) fn crash(child: &ActorRef<Do>, end: End) {
    let _ = child.cast(Do::Crash(end));
}

pub(crate) fn ask(child: &ActorRef<Do>) -> oneshot::Receiver<()> {
    let (to, answer) = oneshot::channel();
    let _ = child.cast(Do::Answer(to));
    answer
}

/// A supervisor of `count` workers that restarts without end and without waiting.
async fn supervise(count: usize, stage: &Stage<ActorRef<Do>>) -> Option<Root> {
    let policy = Policy {
        max_restarts: u32::MAX,
        within: Duration::from_secs(1),
        backoff: Backoff::NONE,
        ..Policy::default()
    };
    let child = |number: usize| {
        let stage = stage.clone();
        ChildSpec::actor(ChildPolicy::permanent(format!("worker {number}")), move || (Worker, stage.clone()))
    };
    let children = (0..count).map(child).collect();
    let context = Context { clock: Clock::system(), signals: Signals::none(), children: Children::new() };
    Root::start(SupervisorSpec { name: "root".into(), policy, children }, context).await.ok()
}

pub(crate) async fn restarts(end: End, times: usize) -> Vec<u64> {
    let (stage, mut seen) = Stage::new();
    let root = supervise(1, &stage).await;
    let took = stage.play(&mut seen, times, |child| crash(child, end), ask).await;
    if let Some(root) = root {
        root.cell().kill();
    }
    took
}

pub(crate) async fn crowd(count: usize) -> Crowd {
    let (stage, _seen) = Stage::new();
    Crowd::of(count, supervise(count, &stage)).await
}
