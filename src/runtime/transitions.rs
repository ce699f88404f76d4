//! The tables of statuses that are in force.

use std::sync::Arc;

use selfheal_actors::{
    signal::Name,
    transition::{Around, Invalid, Table, Transition},
};

use super::builder::StartError;
use crate::{
    config::Config,
    transition::{Rules, Unknown},
};

/// Every table that was declared.
#[derive(Clone, Debug)]
pub(super) struct Transitions(Arc<[Transition]>);

impl Transitions {
    /// Those of the config, and `declared` ones.
    pub(super) fn new(
        config: &Config,
        declared: Vec<Result<Table, Invalid>>,
        around: &Around,
    ) -> Result<Self, StartError> {
        let mut tables = config.transitions().map_err(StartError::Transitions)?;
        for table in declared {
            let table = table.map_err(StartError::Transitions)?;
            match tables.iter().find(|other| other.machine() == table.machine()) {
                Some(other) if *other != table => {
                    return Err(StartError::TwoTables(Arc::clone(table.machine())));
                }
                Some(_) => {}
                None => tables.push(table),
            }
        }
        let in_force = |table| Transition::new(Arc::new(table), around.clone());
        Ok(Self(tables.into_iter().map(in_force).collect()))
    }

    pub(super) fn rules(&self, machine: &str) -> Result<Rules, Unknown> {
        let found = self.all().find(|transition| **transition.table().machine() == *machine);
        let known = || self.all().map(|transition| Name::clone(transition.table().machine())).collect();
        found
            .map(|found| Rules::new(found.clone()))
            .ok_or_else(|| Unknown { machine: machine.into(), known: known() })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Transition> {
        self.0.iter()
    }

    /// Tells what has waited for long enough.
    pub(super) fn tick(&self) {
        self.all().for_each(Transition::tick);
    }
}
