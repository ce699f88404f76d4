//! The shell: keeps the leases of what is worked on, and takes up what nobody works on.
//!
//! Operations need none of it to be begun, done and answered, nor to stop at a level
//! ([`Batches::on_level`](super::Batches::on_level)). With the actor dead for longer than a lease, another process
//! takes over what this one works on, and this one is told so when it next writes.

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::runtime::Handle;

use super::intake::Intake;
use crate::{
    alarm::Alarm,
    fault::Fault,
    mailbox::{Mailbox, Wake},
};

/// What the actor is told.
#[derive(Debug)]
pub enum Message {
    /// Prolong the leases, and see to it that jobs are taken up.
    Beat,
    /// Fail, to see who notices.
    #[doc(hidden)]
    Fault(Fault),
}

/// The actor `batch-executor`. Its arguments are where jobs come from, and its mailbox, both of which outlive it.
#[derive(Clone, Copy, Debug)]
pub struct BatchExecutor;

/// What one generation of the actor has: nothing that its successor would miss.
#[derive(Debug)]
pub struct Desk {
    intake: Intake,
    mailbox: Mailbox<Message>,
    runtime: Handle,
    /// One a source, in their order.
    takers: Vec<Alarm>,
    /// What is being prolonged.
    beats: Vec<Alarm>,
    next: Option<Alarm>,
}

impl Actor for BatchExecutor {
    type Msg = Wake;
    type State = Desk;
    type Arguments = (Intake, Mailbox<Message>);

    async fn pre_start(
        &self,
        myself: ActorRef<Wake>,
        (intake, mailbox): Self::Arguments,
    ) -> Result<Desk, ActorProcessingErr> {
        mailbox.bind(myself);
        mailbox.tell(Message::Beat);
        let (takers, beats) = (Vec::new(), Vec::new());
        Ok(Desk { intake, mailbox, runtime: Handle::current(), takers, beats, next: None })
    }

    async fn handle(&self, _: ActorRef<Wake>, _: Wake, desk: &mut Desk) -> Result<(), ActorProcessingErr> {
        while let Some(message) = desk.mailbox.take() {
            match message {
                Message::Beat => desk.beat(),
                Message::Fault(fault) => fault.happen().await?,
            }
        }
        Ok(())
    }
}

impl Desk {
    /// Asks for as many leases as there are, journal by journal, and waits for none of them.
    fn beat(&mut self) {
        self.beats.retain(|beat| !beat.is_over());
        for held in self.intake.batches.leases() {
            let batches = self.intake.batches.clone();
            self.beats.push(self.runtime.spawn(async move { batches.prolong(held).await }).into());
        }
        self.take_up();
        let (mailbox, pause) = (self.mailbox.clone(), self.intake.batches.0.tenure.heartbeat());
        let next = self.runtime.spawn(async move {
            tokio::time::sleep(pause).await;
            mailbox.tell(Message::Beat);
        });
        self.next = Some(next.into());
    }

    /// On the host's runtime: the host's own code makes work of what is claimed.
    fn take_up(&mut self) {
        let host = &self.intake.batches.0.runtime;
        for (at, source) in self.intake.sources.iter().enumerate() {
            let taking = || host.spawn(self.intake.clone().take_up(source.clone())).into();
            match self.takers.get_mut(at) {
                Some(taker) if taker.is_over() => *taker = taking(),
                Some(_) => {}
                None => self.takers.push(taking()),
            }
        }
    }
}
