//! The shell: looks at the pool often enough, and nothing else. What is decided and remembered is in the handle.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::runtime::Handle;

use super::{handle::Monitor, policy::Policy};
use crate::{
    alarm::Alarm,
    fault::Fault,
    mailbox::{Mailbox, Wake},
};

/// How often the pool is looked at under pressure.
const CLOSE: Duration = Duration::from_millis(10);
/// How often it is looked at when calm.
const CALM: Duration = Duration::from_millis(100);
/// It is looked at no more often than this, however often the gate calls.
const LEAST: Duration = Duration::from_millis(1);

/// What the actor is told.
#[derive(Debug)]
pub enum Message {
    /// Look at the pool.
    Look,
    /// From now on this policy holds.
    Reconfigure(Policy),
    /// Fail, to see who notices.
    #[doc(hidden)]
    Fault(Fault),
}

/// The actor `pool-monitor:NAME`. Its arguments are the monitor it drives and its mailbox, both of which outlive
/// it; the mailbox needs room for a few messages only.
#[derive(Clone, Copy, Debug)]
pub struct PoolMonitor;

/// What one generation of the actor has: nothing that its successor would miss.
#[derive(Debug)]
pub struct Watch {
    monitor: Monitor,
    mailbox: Mailbox<Message>,
    runtime: Handle,
    alarm: Option<Alarm>,
}

impl Actor for PoolMonitor {
    type Msg = Wake;
    type State = Watch;
    type Arguments = (Monitor, Mailbox<Message>);

    async fn pre_start(
        &self,
        myself: ActorRef<Wake>,
        (monitor, mailbox): Self::Arguments,
    ) -> Result<Watch, ActorProcessingErr> {
        mailbox.bind(myself);
        let watch = Watch { monitor, mailbox, runtime: Handle::current(), alarm: None };
        watch.mailbox.tell(Message::Look);
        Ok(watch)
    }

    async fn handle(&self, _: ActorRef<Wake>, _: Wake, watch: &mut Watch) -> Result<(), ActorProcessingErr> {
        while let Some(message) = watch.mailbox.take() {
            match message {
                Message::Look => watch.monitor.look(),
                Message::Reconfigure(policy) => watch.monitor.reconfigure(policy),
                Message::Fault(fault) => fault.happen().await?,
            }
        }
        watch.rearm();
        Ok(())
    }
}

impl Watch {
    /// Plans the next look: when something is due, and soon in any case. When calm the gate may call for an
    /// earlier one; under pressure it would call all the time.
    fn rearm(&mut self) {
        let machine = self.monitor.machine();
        let (often, called) =
            if machine.is_pressed() { (CLOSE, None) } else { (CALM, Some(self.monitor.pressed())) };
        let due = machine.next_timer().map_or(often, |due| due.since(self.monitor.now()).min(often));
        let mailbox = self.mailbox.clone();
        // One sleep, counted from now: a sleep after a sleep is late twice, by a millisecond each.
        let due = tokio::time::sleep(due.max(LEAST));
        let task = self.runtime.spawn(async move {
            match called {
                None => due.await,
                Some(called) => {
                    tokio::time::sleep(LEAST).await;
                    tokio::select! {
                        _ = called => {}
                        () = due => {}
                    }
                }
            }
            mailbox.tell(Message::Look);
        });
        self.alarm = Some(task.into());
    }
}
