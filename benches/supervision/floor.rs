//! A task that spawns a task, joins it, and spawns it again.

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use crate::{Crashed, Crowd, End, Stage};

enum Do {
    Answer(oneshot::Sender<()>),
    Crash(End),
}

type Child = mpsc::UnboundedSender<Do>;

async fn child(stage: Stage<Child>, mut orders: mpsc::UnboundedReceiver<Do>) -> Result<(), Crashed> {
    while let Some(order) = orders.recv().await {
        match order {
            Do::Answer(to) => drop(to.send(())),
            Do::Crash(end) => stage.crash(end)?,
        }
    }
    Ok(())
}

pub(crate) async fn restarts(end: End, times: usize) -> Vec<u64> {
    let (stage, mut seen) = Stage::<Child>::new();
    let here = stage.clone();
    let supervisor = Handle::current().spawn(async move {
        loop {
            let (child_of, orders) = mpsc::unbounded_channel();
            let life = Handle::current().spawn(child(here.clone(), orders));
            here.enter(child_of);
            // However it ended, another takes its place.
            let _ = life.await;
        }
    });
    let crash = |child: &Child| drop(child.send(Do::Crash(end)));
    let ask = |child: &Child| {
        let (to, answer) = oneshot::channel();
        let _ = child.send(Do::Answer(to));
        answer
    };
    let took = stage.play(&mut seen, times, crash, ask).await;
    supervisor.abort();
    took
}

pub(crate) async fn crowd(count: usize) -> Crowd {
    let (stage, _seen) = Stage::<Child>::new();
    let start = async {
        let mut children = Vec::with_capacity(count);
        for _ in 0..count {
            let (child_of, orders) = mpsc::unbounded_channel();
            children.push((Handle::current().spawn(child(stage.clone(), orders)), child_of));
        }
        children
    };
    Crowd::of(count, start).await
}
