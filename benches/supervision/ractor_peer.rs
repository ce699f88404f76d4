//! ractor alone: a parent that spawns its child anew when it hears of its end.

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::{
    Crowd, End, Stage,
    ours::{Do, Worker, ask, crash},
};

struct Parent;

impl Actor for Parent {
    type Msg = ();
    type State = Stage<ActorRef<Do>>;
    type Arguments = Self::State;

    async fn pre_start(
        &self,
        myself: ActorRef<()>,
        stage: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Actor::spawn_linked(None, Worker, stage.clone(), myself.get_cell()).await?;
        Ok(stage)
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<()>,
        event: SupervisionEvent,
        stage: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(..) = event {
            Actor::spawn_linked(None, Worker, stage.clone(), myself.get_cell()).await?;
        }
        Ok(())
    }
}

pub(crate) async fn restarts(end: End, times: usize) -> Vec<u64> {
    let (stage, mut seen) = Stage::new();
    let parent = Actor::spawn(None, Parent, stage.clone()).await;
    let took = stage.play(&mut seen, times, |child| crash(child, end), ask).await;
    if let Ok((parent, _)) = parent {
        parent.kill();
    }
    took
}

pub(crate) async fn crowd(count: usize) -> Crowd {
    let (stage, _seen) = Stage::new();
    let start = async {
        let (parent, _) = Actor::spawn(None, Parent, stage.clone()).await.ok()?;
        let mut children = Vec::with_capacity(count);
        for _ in 0..count {
            children.push(Actor::spawn_linked(None, Worker, stage.clone(), parent.get_cell()).await.ok()?);
        }
        Some(children)
    };
    Crowd::of(count, start).await
}
