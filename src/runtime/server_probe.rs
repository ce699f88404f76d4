//! The child `server-probe:NAME`: asks the database server what it has left, and sets the gate's limit by it.
//!
//! The connection over which it asks is opened on the control plane and stays open, so that the question can be
//! asked when no new connection is to be had. A server that does not answer changes nothing: the limit stays, and
//! what is the matter is found out by the pool itself, which has callers waiting for it. Only where the server is too
//! full to be asked at all, because others came first, the pool makes do with the connections that it has until the
//! others, who see them, have given back what is too much.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use selfheal_actors::{
    alarm::Alarm,
    fault::Fault,
    mailbox::{Mailbox, Wake},
    signal::Name,
};
use tokio::runtime::Handle;

use crate::{
    admin,
    db::{Backend, Probe, ServerTruth},
};

/// How often the server is asked. Each time is two short queries.
const EVERY: Duration = Duration::from_millis(500);
/// How often where other processes share it: what one of them gives back is another's within two looks.
const SHARED: Duration = Duration::from_millis(250);
/// All of them together ask it at most forty times a second, until each asks every other second.
const EACH: Duration = Duration::from_millis(25);
const RAREST: Duration = Duration::from_secs(2);
/// So often it is asked at the start, until others have given back what is ours.
const FIRST_LOOKS: u32 = 8;

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
    pub(super) pool: Name,
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

    /// Asks before it counts as started, so that the first request meets the right limit: where others had all that
    /// there is, after they have given some of it back.
    async fn pre_start(
        &self,
        myself: ActorRef<Wake>,
        asked: Asked<DB>,
    ) -> Result<Asking<DB>, ActorProcessingErr> {
        let mut asking = Asking { asked, next: None };
        for _ in 1..FIRST_LOOKS {
            match asking.ask().await {
                Some(truth) if truth.limit < truth.share => tokio::time::sleep(SHARED).await,
                Some(_) | None => break,
            }
        }
        asking.asked.mailbox.bind(myself);
        asking.rest(SHARED);
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
                Message::Ask => {
                    let peers = asking.ask().await.map_or(0, |truth| truth.peers);
                    asking.rest(pause(peers));
                }
                Message::Fault(fault) => fault.happen().await?,
            }
        }
        Ok(())
    }
}

/// Until it is asked again, with so many others.
fn pause(peers: u32) -> Duration {
    if peers == 0 { EVERY } else { EACH.saturating_mul(peers).clamp(SHARED, RAREST) }
}

impl<DB: Backend> Asking<DB> {
    /// Asks, and does what follows.
    async fn ask(&mut self) -> Option<ServerTruth> {
        match self.asked.probe.server_truth().await {
            Ok(Some(truth)) => {
                self.asked.probe.apply(&truth);
                let ServerTruth { used, max, reserved, share, peers, .. } = truth;
                let server = admin::Server { used, max, reserved, share, peers };
                self.asked.census.store(Some(Arc::new(server)));
                Some(truth)
            }
            Ok(None) => None,
            Err(error) => {
                tracing::debug!(target: "selfheal", pool = %self.asked.pool, %error, "no census");
                self.asked.probe.make_do(&error);
                None
            }
        }
    }

    /// Asks again after a pause.
    fn rest(&mut self, pause: Duration) {
        let mailbox = self.asked.mailbox.clone();
        let next = Handle::current().spawn(async move {
            tokio::time::sleep(pause).await;
            mailbox.tell(Message::Ask);
        });
        self.next = Some(next.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_there_are_the_more_rarely_each_asks() {
        assert_eq!(pause(0), EVERY);
        assert_eq!(pause(1), SHARED, "what one gives back is another's soon");
        assert_eq!(pause(40), Duration::from_secs(1));
        assert_eq!(pause(u32::MAX), RAREST);
    }
}
