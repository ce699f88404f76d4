//! The config as the policies of the kernel's parts.
//!
//! The kernel does not know the config, and its policies have knobs that no file sets (timeouts of starts and
//! stops, when a monitor counts as blind): those keep the kernel's defaults.

use std::time::Duration;

use selfheal_actors::{
    backoff, batch_executor, breaker, gate, pool_monitor, retry, supervisor, threshold::Threshold,
    transition, user_limit,
};

use super::{
    breaker::{AfterMaxWait, Breaker, Count, Decide, HalfOpen, Share, Window},
    policy::{Batch, BatchReply, Config, Endpoint, Reserve},
    retry::{Delays, Growth, Jitter, Retry},
    supervision::{AutoShutdown, Backoff, Child, Restart, Strategy, Supervision, Tree},
};

impl Config {
    /// The policy of the monitor of the pool `name`; a pool without a table has the defaults.
    #[must_use]
    pub fn pool_monitor(&self, name: &str) -> pool_monitor::Policy {
        let pool = self.pools.get(name).cloned().unwrap_or_default();
        pool_monitor::Policy {
            warning: pool.warning,
            warning_exit: pool.warning_exit,
            critical: pool.critical,
            critical_exit: pool.critical_exit,
            smoothing: pool.smoothing,
            up: pool.up,
            down: pool.down,
            down_critical: pool.down_critical,
            needs_waiter: pool.reserve == Reserve::Auto,
            cancel_after: pool.cancel_after,
            batch: self.batching.normal,
            batch_under_pressure: self.batching.under_pressure,
            user_limit: self.users.concurrent_under_pressure,
            ..pool_monitor::Policy::default()
        }
    }

    /// The policy of the gate of the pool `name`; a pool without a table has the defaults.
    #[must_use]
    pub fn gate(&self, name: &str) -> gate::Policy {
        let pool = self.pools.get(name).cloned().unwrap_or_default();
        let concurrent_under_pressure = self.users.concurrent_under_pressure;
        gate::Policy {
            reserve: pool.reserve.into(),
            warning: pool.warning,
            critical: pool.critical,
            critical_exit: pool.critical_exit,
            long_share: pool.long_share,
            leak_after: pool.leak_after,
            batch: self.batching.normal,
            users: user_limit::Policy { concurrent_under_pressure, ..user_limit::Policy::default() },
            ..gate::Policy::default()
        }
    }
}

impl Config {
    /// The tables of `[transitions]`, by name. A config that was loaded has no invalid one.
    ///
    /// # Errors
    /// [`transition::Invalid`], for one that was made by hand.
    pub fn transitions(&self) -> Result<Vec<transition::Table>, transition::Invalid> {
        let rows = |table: &super::Transitions| {
            let row = |(status, next): (&String, &Vec<String>)| (status.clone(), next.clone());
            table.iter().map(row).collect::<Vec<_>>()
        };
        let table = |(name, table): (&String, &super::Transitions)| {
            transition::Table::new(name.as_str(), rows(table))
        };
        self.transitions.iter().map(table).collect()
    }
}

impl Batch {
    /// The policy of the operation.
    #[must_use]
    pub fn policy(&self) -> batch_executor::Policy {
        let reply = match self.reply {
            BatchReply::FirstChunk => batch_executor::Reply::FirstChunk,
            BatchReply::Fill => batch_executor::Reply::Fill,
        };
        let usual = batch_executor::Policy::default();
        let (deadline, per_item, most) = (self.deadline, self.per_item, self.most);
        batch_executor::Policy { deadline, per_item, reply, most, least: usual.least.min(most), ..usual }
    }
}

impl Retry {
    /// The policy of an endpoint's retries.
    #[must_use]
    pub fn policy(&self) -> retry::Policy {
        let Self { initial, factor, max, attempts, inline_attempts, ref budget, .. } = *self;
        let delays = match &self.delays {
            Delays::Growing(Growth::Exponential) => {
                retry::Delays::Exponential(backoff::Backoff { initial, factor, max })
            }
            Delays::Growing(Growth::Linear) => retry::Delays::Linear { step: initial, max },
            Delays::Growing(Growth::Constant) => retry::Delays::Constant(initial),
            Delays::Listed(list) => retry::Delays::Listed(list.as_slice().into()),
        };
        let budget = retry::Budget { ratio: budget.ratio, per_second: budget.per_second };
        let jitter = self.jitter.map(Into::into).unwrap_or_default();
        retry::Policy { delays, jitter, attempts, inline_attempts, budget }
    }
}

impl Endpoint {
    /// The policy of the endpoint's circuit, where all others have `all`.
    #[must_use]
    pub fn breaker(&self, all: &Breaker) -> breaker::Policy {
        self.breaker.as_ref().map_or_else(|| all.policy(), |keys| keys.over(all).policy())
    }
}

impl Breaker {
    /// The policy of circuits that have none of their own.
    #[must_use]
    pub fn policy(&self) -> breaker::Policy {
        breaker::Policy {
            window: self.window.policy(),
            failure_rate: self.failure_rate.policy(),
            failures: self.failures.policy(),
            calls: self.calls.policy(),
            consecutive_failures: self.consecutive_failures.as_ref().map(Count::policy),
            slow_call: self.slow_call,
            slow_rate: self.slow_rate.as_ref().map(Share::policy),
            open_for: self.open_for,
            open_growth: self.open_growth,
            open_max: self.open_max,
            open_jitter: self.open_jitter,
            half_open_automatically: self.half_open_automatically,
            half_open: self.half_open.policy(),
        }
    }
}

impl Window {
    fn policy(&self) -> breaker::Window {
        let last = self.last.unwrap_or(Duration::from_secs(10));
        let by_time = || breaker::Window::Time { last, buckets: self.buckets.unwrap_or(10) };
        self.calls.map_or_else(by_time, breaker::Window::Calls)
    }
}

impl Share {
    fn policy(&self) -> Threshold {
        let at_least = || Threshold::AtLeast(self.at_least.unwrap_or(1.0));
        self.above.map_or_else(at_least, Threshold::Above)
    }
}

impl Count {
    fn policy(&self) -> Threshold {
        let at_least = || Threshold::AtLeast(self.at_least.unwrap_or(1).into());
        self.above.map_or_else(at_least, |above| Threshold::Above(above.into()))
    }
}

impl HalfOpen {
    fn policy(&self) -> breaker::HalfOpen {
        match self.decide.unwrap_or_default() {
            Decide::Count => breaker::HalfOpen::Count {
                probes: self.probes.unwrap_or(1),
                successes: self.successes.unwrap_or(1),
                failures: self.failures.unwrap_or(1),
                probe_timeout: self.probe_timeout.unwrap_or(Duration::from_secs(10)),
            },
            Decide::Rate => breaker::HalfOpen::Rate {
                probes: self.probes.unwrap_or(4),
                max_wait: self.max_wait.unwrap_or(Duration::from_secs(1)),
                after_max_wait: match self.after_max_wait.unwrap_or_default() {
                    AfterMaxWait::Open => breaker::AfterMaxWait::Open,
                    AfterMaxWait::Closed => breaker::AfterMaxWait::Closed,
                },
            },
        }
    }
}

impl Supervision {
    /// The policy of the runtime's own supervisors.
    #[must_use]
    pub fn policy(&self) -> supervisor::Policy {
        supervisor::Policy {
            strategy: self.strategy.into(),
            max_restarts: self.max_restarts,
            within: self.within,
            backoff: (&self.backoff).into(),
            ..supervisor::Policy::default()
        }
    }
}

impl Tree {
    /// The policy of the supervisor.
    #[must_use]
    pub fn policy(&self) -> supervisor::Policy {
        supervisor::Policy {
            strategy: self.strategy.into(),
            max_restarts: self.max_restarts,
            within: self.within,
            backoff: self.backoff.as_ref().map_or(backoff::Backoff::NONE, Into::into),
            auto_shutdown: self.auto_shutdown.into(),
            ..supervisor::Policy::default()
        }
    }
}

impl Child {
    /// The policy of the child.
    #[must_use]
    pub fn policy(&self) -> supervisor::ChildPolicy {
        let child = supervisor::ChildPolicy::new(self.id.as_str(), self.restart.into());
        let child = if self.supervisor.is_some() { child.supervisor() } else { child };
        if self.significant { child.significant() } else { child }
    }
}

impl From<&Backoff> for backoff::Backoff {
    fn from(&Backoff { initial, factor, max }: &Backoff) -> Self {
        Self { initial, factor, max }
    }
}

impl From<Jitter> for retry::Jitter {
    fn from(jitter: Jitter) -> Self {
        match jitter {
            Jitter::None => Self::None,
            Jitter::Equal => Self::Equal,
            Jitter::Full => Self::Full,
        }
    }
}

impl From<Reserve> for gate::Reserve {
    fn from(reserve: Reserve) -> Self {
        match reserve {
            Reserve::Auto => Self::Auto,
            Reserve::Static => Self::Static,
        }
    }
}

impl From<Strategy> for supervisor::Strategy {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::OneForOne => Self::OneForOne,
            Strategy::OneForAll => Self::OneForAll,
            Strategy::RestForOne => Self::RestForOne,
        }
    }
}

impl From<Restart> for supervisor::Restart {
    fn from(restart: Restart) -> Self {
        match restart {
            Restart::Permanent => Self::Permanent,
            Restart::Transient => Self::Transient,
            Restart::Temporary => Self::Temporary,
        }
    }
}

impl From<AutoShutdown> for supervisor::AutoShutdown {
    fn from(auto_shutdown: AutoShutdown) -> Self {
        match auto_shutdown {
            AutoShutdown::Never => Self::Never,
            AutoShutdown::AnySignificant => Self::AnySignificant,
            AutoShutdown::AllSignificant => Self::AllSignificant,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    #[test]
    fn the_defaults_of_the_config_are_those_of_the_kernel() {
        let config = Config::defaults();
        assert_eq!(config.pool_monitor("main"), pool_monitor::Policy::default());
        assert_eq!(config.supervision.policy(), supervisor::Policy::default());
        assert_eq!(config.retry.policy(), retry::Policy::default());
        assert_eq!(config.breaker.policy(), breaker::Policy::default());
        assert_eq!(Batch::default().policy(), batch_executor::Policy::default());
    }

    #[test]
    fn what_the_file_says_arrives_in_the_kernel() {
        let text = "
            [pools.main]
            warning = 0.5
            warning_exit = 0.4
            reserve = \"static\"
            down = \"7s\"
            [batching]
            under_pressure = 70
            [batches.spam-capture]
            pool = \"main\"
            deadline = \"20s\"
            per_item = \"5ms\"
            most = 7
            reply = \"fill\"
            [users]
            concurrent_under_pressure = 3
            [retry]
            delays = [\"10ms\", \"1s\"]
            jitter = \"equal\"
            budget = { ratio = 0.5 }
            [supervision]
            strategy = \"one_for_all\"
            backoff = { initial = \"1s\" }
            [breaker]
            open_for = \"7s\"
            window = { calls = 50 }
            slow_call = \"1s\"
            [[endpoints]]
            path = \"/x\"
            [endpoints.breaker]
            failures = { at_least = 3 }
            window = { last = \"1m\", buckets = 6 }
            half_open = { decide = \"rate\", probes = 5, after_max_wait = \"closed\" }
            [[tree]]
            name = \"s\"
            auto_shutdown = \"all_significant\"
            max_restarts = 0
            children = [{ id = \"c\", restart = \"transient\", significant = true }]
        ";
        let config = Config::load(&Source::text("x", text)).expect("it is valid");

        let monitor = config.pool_monitor("main");
        assert_eq!((monitor.warning, monitor.warning_exit, monitor.needs_waiter), (0.5, 0.4, false));
        assert_eq!((monitor.down.as_secs(), monitor.batch_under_pressure, monitor.user_limit), (7, 70, 3));
        assert_eq!(monitor.check(), Ok(()));
        assert_eq!(config.pool_monitor("other").warning, 0.85);

        let batch = config.batches["spam-capture"].policy();
        assert_eq!((batch.deadline.as_secs(), batch.per_item.as_millis()), (20, 5));
        assert_eq!((batch.reply, batch.check()), (batch_executor::Reply::Fill, Ok(())));
        assert_eq!((batch.least, batch.most), (7, 7), "a chunk has no more items than the most");

        let retry = config.retry.policy();
        assert_eq!(retry.delays, retry::Delays::Listed([10, 1_000].map(Duration::from_millis).into()));
        assert_eq!(retry.jitter, retry::Jitter::Equal);
        assert_eq!(retry.budget, retry::Budget { ratio: 0.5, per_second: 1.0 });
        assert_eq!(retry.check(), Ok(()));
        let all = config.breaker.policy();
        assert_eq!((all.window, all.open_for.as_secs()), (breaker::Window::Calls(50), 7));
        let one = config.endpoints[0].breaker(&config.breaker);
        assert_eq!(
            (one.failures, one.open_for, one.slow_call),
            (Threshold::AtLeast(3.0), all.open_for, all.slow_call)
        );
        assert_eq!(one.window, breaker::Window::Time { last: Duration::from_secs(60), buckets: 6 });
        let (max_wait, after_max_wait) = (Duration::from_secs(1), breaker::AfterMaxWait::Closed);
        assert_eq!(one.half_open, breaker::HalfOpen::Rate { probes: 5, max_wait, after_max_wait });
        assert_eq!((all.check(), one.check()), (Ok(()), Ok(())));

        let own = config.supervision.policy();
        assert_eq!((own.strategy, own.backoff.initial.as_secs()), (supervisor::Strategy::OneForAll, 1));

        let tree = &config.trees[0];
        assert_eq!(tree.policy().backoff, backoff::Backoff::NONE, "none unless it is given");
        assert_eq!(tree.policy().auto_shutdown, supervisor::AutoShutdown::AllSignificant);
        assert_eq!(tree.policy().max_restarts, 0, "the first restart is one too many");
        let child = tree.children[0].policy();
        assert_eq!(
            (&*child.id, child.restart, child.significant),
            ("c", supervisor::Restart::Transient, true)
        );
    }
}
