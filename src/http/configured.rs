//! The endpoints of a config, as this layer knows them.

use super::policy::{Endpoint, Endpoints, Fallback, Replies, Unmatchable};
use crate::config::{self, Config};

impl Endpoints {
    /// The endpoints of `config`. What it does not list passes under [`Endpoint::unlisted`].
    ///
    /// # Errors
    /// Every endpoint whose pattern is malformed, or says the same as another one.
    pub fn of(config: &Config) -> Result<Self, Vec<Unmatchable>> {
        Self::new(config.endpoints.iter().map(Endpoint::from).collect(), Endpoint::unlisted())
    }
}

impl From<&config::Endpoint> for Endpoint {
    fn from(of: &config::Endpoint) -> Self {
        Self {
            method: of.method.clone(),
            class: of.class,
            replies: match of.replies {
                config::Replies::Json => Replies::Json,
                config::Replies::Any => Replies::Any,
            },
            deadline: of.deadline.unwrap_or(Self::DEADLINE),
            pool: of.pool.as_deref().map(Into::into),
            expose_upstream: of.expose_upstream,
            attempt_timeout: of.attempt_timeout,
            retry: of.retry,
            fallback: of
                .fallback
                .map(|config::Fallback::Cached| Fallback { stale_for: of.stale_for, public: of.public }),
            ..Self::new(of.path.as_str())
        }
    }
}
