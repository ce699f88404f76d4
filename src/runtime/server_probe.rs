//! The child `server-probe:NAME`: asks the database server what it has left, and sets the gate's limit by it.
//!
//! The connection over which it asks is opened on the control plane and stays open, so that the question can be
//! asked when no new connection is to be had. A server that does not answer changes nothing: the limit stays, and
//! what is the matter is found out by the pool itself, which has callers waiting for it.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use selfheal_actors::{
    alarm::Alarm,
    fault::Fault,
    gate::Gate,
    mailbox::{Mailbox, Wake},
};
use tokio::runtime::Handle;

use crate::{
    admin,
    db::{Backend, Probe},
};

/// How often the server is asked. Each time is one short query.
const EVERY: Duration = Duration::from_secs(1);

/// A question may take 2 seconds. Whoever is at it for longer than this hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// What the server said last; `None` until it has said anything.
pub(super) type Census = Arc<ArcSwapOption<admin::Server>>;

/// The actor.
pub(super) struct ServerProbe<DB>(PhantomData<fn() -> DB>);

impl<DB> ServerProbe<DB> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

/// What it works with.
pub(super) struct Asked<DB: Backend> {
    pub(super) probe: Probe<DB>,
    pub(super) gate: Gate,
    pub(super) census: Census,
    pub(super) mailbox: Mailbox<Message>,
}

/// What the actor is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Ask the server.
    Ask,
    /// Fail, to see who notices.
    Fault(Fault),
}

/// What one generation has.
pub(super) struct Asking<DB: Backend> {
    asked: Asked<DB>,
    next: Option<Alarm>,
}

impl<DB: Backend> Actor for ServerProbe<DB> {
    type Msg = Wake;
    type State = Asking<DB>;
    type Arguments = Asked<DB>;

    /// Asks before it counts as started, so that the first request meets the right limit.
    async fn pre_start(
        &self,
        myself: ActorRef<Wake>,
        asked: Asked<DB>,
    ) -> Result<Asking<DB>, ActorProcessingErr> {
        let mut asking = Asking { asked, next: None };
        asking.ask().await;
        asking.asked.mailbox.bind(myself);
        Ok(asking)
    }

    async fn handle(
        &self,
        _: ActorRef<Wake>,
        _: Wake,
        asking: &mut Asking<DB>,
    ) -> Result<(), ActorProcessingErr> {
        while let Some(message) = asking.asked.mailbox.take() {
            match message {
                Message::Ask => asking.ask().await,
                Message::Fault(fault) => fault.happen().await?,
            }
        }
        Ok(())
    }
}

impl<DB: Backend> Asking<DB> {
    async fn ask(&mut self) {
        match self.asked.probe.server_truth().await {
            Ok(Some(truth)) => {
                self.asked.gate.set_limit(truth.limit);
                let server = admin::Server { used: truth.used, max: truth.max, reserved: truth.reserved };
                self.asked.census.store(Some(Arc::new(server)));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(target: "selfheal", pool = %self.asked.gate.pool(), %error, "no census")
            }
        }
        let mailbox = self.asked.mailbox.clone();
        let next = Handle::current().spawn(async move {
            tokio::time::sleep(EVERY).await;
            mailbox.tell(Message::Ask);
        });
        self.next = Some(next.into());
    }
}
