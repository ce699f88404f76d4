//! The shell: hands what happened to the incidents, and lets time pass. What is remembered is in the handle.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::runtime::Handle;

use super::{case::MOMENT, handle::Incidents};
use crate::{
    alarm::Alarm,
    fault::Fault,
    mailbox::{Mailbox, Wake},
    signal::{Name, Signal},
};

/// How often impact is read while an incident is open.
const OFTEN: Duration = Duration::from_millis(250);

/// What the actor is told.
#[derive(Debug)]
pub enum Message {
    /// This has happened.
    Happened(Signal),
    /// A person closes an incident.
    Close {
        /// Which.
        id: Name,
        /// Who.
        by: Name,
    },
    /// Fail, to see who notices.
    #[doc(hidden)]
    Fault(Fault),
}

impl From<Signal> for Message {
    fn from(signal: Signal) -> Self {
        Self::Happened(signal)
    }
}

/// The actor `alert`. Its arguments are the incidents and its mailbox, both of which outlive it; the mailbox
/// should hold a thousand: what is pushed out of it is missing in an incident.
#[derive(Clone, Copy, Debug)]
pub struct Alert;

/// What one generation of the actor has: nothing that its successor would miss.
#[derive(Debug)]
pub struct Desk {
    incidents: Incidents,
    mailbox: Mailbox<Message>,
    runtime: Handle,
    alarm: Option<Alarm>,
}

impl Actor for Alert {
    type Msg = Wake;
    type State = Desk;
    type Arguments = (Incidents, Mailbox<Message>);

    async fn pre_start(
        &self,
        myself: ActorRef<Wake>,
        (incidents, mailbox): Self::Arguments,
    ) -> Result<Desk, ActorProcessingErr> {
        incidents.show();
        let mut desk = Desk { incidents, mailbox: mailbox.clone(), runtime: Handle::current(), alarm: None };
        desk.rearm(&myself);
        mailbox.bind(myself);
        Ok(desk)
    }

    async fn handle(
        &self,
        myself: ActorRef<Wake>,
        _: Wake,
        desk: &mut Desk,
    ) -> Result<(), ActorProcessingErr> {
        while desk.hear_all().await? {
            tokio::time::sleep(MOMENT).await;
        }
        desk.incidents.tick();
        desk.rearm(&myself);
        Ok(())
    }
}

impl Desk {
    /// Hears what the mailbox holds, and says whether more of the same moment may be on its way: a monitor tells
    /// its actions one by one, from another thread.
    async fn hear_all(&mut self) -> Result<bool, ActorProcessingErr> {
        let mut acted = false;
        while let Some(message) = self.mailbox.take() {
            match message {
                Message::Happened(signal) => {
                    acted |= matches!(signal, Signal::Action { .. });
                    self.incidents.hear(&signal);
                }
                Message::Close { id, by } => drop(self.incidents.close(&id, &by)),
                Message::Fault(fault) => fault.happen().await?,
            }
        }
        Ok(acted)
    }

    /// While an incident is open, wakes the actor when something is due, and often enough to read the impact.
    fn rearm(&mut self, myself: &ActorRef<Wake>) {
        let open = self.incidents.severity().map(|_| OFTEN);
        let due = self.incidents.next_in();
        let next = open.into_iter().chain(due).min();
        self.alarm = next.map(|next| {
            let actor = myself.clone();
            let task = self.runtime.spawn(async move {
                tokio::time::sleep(next).await;
                // An actor that is gone needs no waking.
                let _ = actor.cast(Wake);
            });
            Alarm::from(task)
        });
    }
}
