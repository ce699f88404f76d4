//! What a config has to be simulated.

use selfheal_actors::{gate, retry, signal::Name};

use super::{
    Circuits, Guarded, Operation, Pool, Setup,
    tree::{Tree, TreeChild},
};
use crate::{
    config::{self, Config, Start},
    http::Endpoint,
};

impl From<&Config> for Setup {
    fn from(config: &Config) -> Self {
        Self {
            trees: config.trees.iter().map(Tree::from).collect(),
            pools: config.pools.keys().map(|name| pool(config, name)).collect(),
            supervision: config.supervision.policy(),
            retry: retry(config),
            endpoints: config.endpoints.iter().map(Endpoint::from).collect(),
            circuits: circuits(config),
            // One that was loaded has only sound tables.
            transitions: config.transitions().unwrap_or_default(),
            operations: operations(config),
        }
    }
}

/// Jitter is off unless the config asks for it.
fn retry(config: &Config) -> retry::Policy {
    let policy = config.retry.policy();
    retry::Policy { jitter: config.retry.jitter.map_or(retry::Jitter::None, |_| policy.jitter), ..policy }
}

/// As in the runtime: the pool of what names none is the only one, or else `main`.
fn first(config: &Config) -> Option<Name> {
    let only = config.pools.keys().next().filter(|_| config.pools.len() == 1);
    let first = only.or_else(|| config.pools.keys().find(|name| *name == "main"));
    first.map(|name| name.as_str().into())
}

fn operations(config: &Config) -> Vec<Operation> {
    let first = first(config).unwrap_or_else(|| "main".into());
    let pool = |batch: &config::Batch| batch.pool.as_deref().map_or_else(|| first.clone(), Into::into);
    let operation = |(name, batch): (&String, &config::Batch)| Operation {
        name: name.as_str().into(),
        pool: pool(batch),
        policy: batch.policy(),
    };
    config.batches.iter().map(operation).collect()
}

fn circuits(config: &Config) -> Circuits {
    let first = first(config);
    let guarded = |endpoint: &config::Endpoint| Guarded {
        path: endpoint.path.as_str().into(),
        class: endpoint.class,
        pool: endpoint.pool.as_deref().map(Into::into).or_else(|| first.clone()),
        policy: endpoint.breaker(&config.breaker),
    };
    let endpoints = config.endpoints.iter().map(guarded).collect();
    Circuits { policy: config.breaker.policy(), endpoints, pool: first }
}

/// Jitter is off: a policy has no key that asks for it.
fn pool(config: &Config, name: &str) -> Pool {
    let gate = gate::Policy { retry_jitter: false, ..config.gate(name) };
    let max = config.pools.get(name).map_or(0, |pool| pool.max);
    Pool { name: name.into(), max, gate, monitor: config.pool_monitor(name) }
}

impl From<&config::Tree> for Tree {
    fn from(tree: &config::Tree) -> Self {
        let children = tree.children.iter().map(TreeChild::from).collect();
        Self { name: tree.name.as_str().into(), policy: tree.policy(), children }
    }
}

impl From<&config::Child> for TreeChild {
    fn from(child: &config::Child) -> Self {
        let starts = child.start.iter().map(|start| *start == Start::Ok).collect();
        let supervised = child.supervisor.as_deref();
        let child = supervised
            .map_or_else(|| Self::worker(child.policy()), |tree| Self::supervisor(child.policy(), tree));
        Self { starts, ..child }
    }
}
