//! kameo, whose actors can be supervised as OTP's.

use std::time::Duration;

use kameo::{
    actor::{Actor, ActorRef, Spawn},
    error::Infallible,
    message::{Context, Message},
};
use tokio::sync::oneshot;

use crate::{Crashed, Crowd, End, Stage};

struct Parent;

impl Actor for Parent {
    type Args = ();
    type Error = Infallible;

    async fn on_start((): (), _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

struct Worker(Stage<ActorRef<Worker>>);

impl Actor for Worker {
    type Args = Stage<ActorRef<Self>>;
    type Error = Infallible;

    async fn on_start(stage: Self::Args, myself: ActorRef<Self>) -> Result<Self, Infallible> {
        stage.enter(myself);
        Ok(Self(stage))
    }
}

struct Answer(oneshot::Sender<()>);
struct Crash(End);

impl Message<Answer> for Worker {
    type Reply = ();

    async fn handle(&mut self, Answer(to): Answer, _: &mut Context<Self, ()>) {
        let _ = to.send(());
    }
}

impl Message<Crash> for Worker {
    type Reply = Result<(), Crashed>;

    async fn handle(&mut self, Crash(end): Crash, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        self.0.crash(end)
    }
}

async fn supervised(parent: &ActorRef<Parent>, stage: &Stage<ActorRef<Worker>>) -> ActorRef<Worker> {
    Worker::supervise(parent, stage.clone()).restart_limit(u32::MAX, Duration::from_secs(1)).spawn().await
}

pub(crate) async fn restarts(end: End, times: usize) -> Vec<u64> {
    let (stage, mut seen) = Stage::new();
    let parent = Parent::spawn(());
    let _child = supervised(&parent, &stage).await;
    let crash = |child: &ActorRef<Worker>| drop(child.tell(Crash(end)).try_send());
    let ask = |child: &ActorRef<Worker>| {
        let (to, answer) = oneshot::channel();
        let _ = child.tell(Answer(to)).try_send();
        answer
    };
    let took = stage.play(&mut seen, times, crash, ask).await;
    parent.kill();
    took
}

pub(crate) async fn crowd(count: usize) -> Crowd {
    let (stage, _seen) = Stage::new();
    let start = async {
        let parent = Parent::spawn(());
        let mut children = Vec::with_capacity(count);
        for _ in 0..count {
            children.push(supervised(&parent, &stage).await);
        }
        (parent, children)
    };
    Crowd::of(count, start).await
}
