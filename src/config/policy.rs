//! What can be configured, with its defaults.
//!
//! These structs are the one place that knows the keys. Their doc comments become the comments of
//! `config/reference.toml` and the descriptions of the JSON Schema; their attributes become its ranges, which
//! the file and the environment are checked against ([`shape`](super::shape)); their `Default` is what a key
//! that nobody set is worth. So a key, its text, its range and its default cannot drift apart.
//!
//! What concerns several keys at once is in [`validate`](super::validate). A `Config` that was
//! [loaded](Config::load) has passed both.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use schemars::JsonSchema;
use selfheal_actors::level::{Class, Mode};
use serde::{Deserialize, Serialize};

use super::{
    breaker::{Breaker, BreakerKeys},
    retry::Retry,
    supervision::{Supervision, Tree},
    value::{self, Secret, duration},
};

/// Everything that a file and the environment can say, with the defaults filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The service that is to heal itself.
    pub service: Service,
    /// The runtime as a whole.
    pub runtime: Runtime,
    /// One table for each pool that is handed to the builder, under the name given there. A pool without a
    /// table has the defaults.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pools: BTreeMap<String, Pool>,
    /// What one user may have while a pool is under pressure. Critical requests are exempt.
    pub users: Users,
    /// One table for each route with a policy of its own; the most specific pattern wins. A route without a
    /// table has the defaults.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// How calls that have failed are made again.
    pub retry: Retry,
    /// When circuits open, for how long, and what closes them. `[endpoints.breaker]` has the same keys, for one
    /// endpoint.
    pub breaker: Breaker,
    /// How many queries are combined into one.
    pub batching: Batching,
    /// Which status may become which: a table for each kind of thing, and in it a list for each status. What is
    /// not listed is not allowed; a status without a list is final.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "value::transitions")]
    pub transitions: BTreeMap<String, Transitions>,
    /// One table for each long operation, under the name that it has in the code.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub batches: BTreeMap<String, Batch>,
    /// How the runtime restarts its own actors.
    pub supervision: Supervision,
    /// Supervision trees to try out; only `selfheal simulate` reads them.
    #[serde(rename = "tree", skip_serializing_if = "Vec::is_empty")]
    pub trees: Vec<Tree>,
    /// The admin page, its API, and the metrics.
    pub admin: Admin,
}

/// `[transitions.NAME]`: what each status may become.
pub type Transitions = BTreeMap<String, Vec<String>>;

/// `[service]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Service {
    /// What the page and the alerts call the service.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
}

impl Default for Service {
    fn default() -> Self {
        Self { name: "desk".into() }
    }
}

/// `[runtime]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Runtime {
    /// How far the runtime may go: "act" heals; "observe" decides and counts, and acts on nothing; "off" passes
    /// everything through, the kill switch.
    #[schemars(schema_with = "value::mode")]
    pub mode: Mode,
}

/// `[pools.NAME]`: when a pool is under pressure, and what is kept for whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Pool {
    /// Connections of the pool. Only `selfheal simulate` reads it: the runtime asks the pool itself.
    #[schemars(range(min = 1, max = 100_000))]
    pub max: u32,
    /// Warning: sheddable requests are refused, batches grow, users are limited. A share of the connections.
    #[schemars(schema_with = "value::ratio")]
    pub warning: f64,
    /// Warning is left below this share, which must be lower than `warning`.
    #[schemars(schema_with = "value::ratio")]
    pub warning_exit: f64,
    /// Critical: only critical work is newly admitted. A share of the connections, above `warning`.
    #[schemars(schema_with = "value::ratio")]
    pub critical: f64,
    /// Critical is left below this share, which must be lower than `critical`.
    #[schemars(schema_with = "value::ratio")]
    pub critical_exit: f64,
    /// How much the measured use is smoothed: after this time a change is 63 % visible. "0s": not at all.
    #[serde(with = "duration")]
    #[schemars(schema_with = "value::up_to_1m_or_none")]
    pub smoothing: Duration,
    /// How long the use must stay above a threshold before the level rises. "0s": at once.
    #[serde(with = "duration")]
    #[schemars(schema_with = "value::up_to_1h_or_none")]
    pub up: Duration,
    /// How long the use must stay below `warning_exit` before Warning is left.
    #[serde(with = "duration")]
    #[schemars(schema_with = "value::up_to_1h")]
    pub down: Duration,
    /// How long the use must stay below `critical_exit` before Critical is left.
    #[serde(with = "duration")]
    #[schemars(schema_with = "value::up_to_1h")]
    pub down_critical: Duration,
    /// Who may use the last connections: "auto" serves the better class first and keeps none idle; "static"
    /// keeps those above `critical` for critical requests, and those above `warning` from sheddable ones.
    pub reserve: Reserve,
    /// Operations known to hold a connection for long may use this share of the connections together.
    #[schemars(schema_with = "value::ratio")]
    pub long_share: f64,
    /// A critical request that has waited this long for a connection has the longest-running statement of
    /// sheddable or background work cancelled at the server. Unset: no statement is cancelled. PostgreSQL only.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value::deadline")]
    pub cancel_after: Option<Duration>,
    /// A connection held for longer than this is reported as a leak, with its operation and call site.
    #[serde(with = "duration")]
    #[schemars(schema_with = "value::up_to_1d")]
    pub leak_after: Duration,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            max: 100,
            warning: 0.85,
            warning_exit: 0.80,
            critical: 0.92,
            critical_exit: 0.88,
            smoothing: Duration::from_millis(100),
            up: Duration::from_millis(20),
            down: Duration::from_secs(2),
            down_critical: Duration::from_millis(250),
            reserve: Reserve::Auto,
            long_share: 0.85,
            cancel_after: None,
            leak_after: Duration::from_secs(30),
        }
    }
}

/// Who may use a pool's last connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reserve {
    /// Whoever is first by class; no connection is kept idle.
    #[default]
    Auto,
    /// Fixed ceilings for each class.
    Static,
}

/// `[users]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Users {
    /// Requests in flight of one user, and connections held by one user, from Warning on. Further requests are
    /// answered with 429, further connections are waited for.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub concurrent_under_pressure: u32,
}

impl Default for Users {
    fn default() -> Self {
        Self { concurrent_under_pressure: 5 }
    }
}

/// `[[endpoints]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["path"]))]
#[non_exhaustive]
pub struct Endpoint {
    /// The route's pattern, as axum writes it: `{name}` stands for one segment, `{*rest}` for all that follow.
    #[schemars(length(min = 1, max = 1024), extend("examples" = ["/api/auth/{*rest}"]))]
    pub path: String,
    /// Only requests with this method; unset: with any.
    #[serde(with = "value::method", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value::methods")]
    pub method: Option<http::Method>,
    /// Who goes first: "critical" is never shed by a level, "sheddable" is refused first, and nobody waits for
    /// "background".
    #[schemars(schema_with = "value::class")]
    pub class: Class,
    /// What the route answers: "json" makes every reply valid JSON, also that of a panic or a timeout; "any"
    /// leaves replies as they are.
    pub replies: Replies,
    /// The time that a request has, its waits and retries included; unset: 30s.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value::deadline")]
    pub deadline: Option<Duration>,
    /// The pool whose pressure decides about the route; unset: the only one, or else `main`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("examples" = ["main"]))]
    pub pool: Option<String>,
    /// The time that one call of the handler has; what takes longer is given up and, if it may be, made again.
    /// Unset: as long as the request has.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value::deadline")]
    pub attempt_timeout: Option<Duration>,
    /// Whether `[retry]` holds for the route: GET, HEAD, OPTIONS, PUT and DELETE are made again if they failed,
    /// and what has an Idempotency-Key if nothing of it has been done.
    pub retry: bool,
    /// What is answered to a GET that failed: "cached", the last good reply to the same caller, marked
    /// `"cached":true`. Unset: a refusal that says when to come back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["cached"]))]
    pub fallback: Option<Fallback>,
    /// How old a reply may be to be given instead of a new one; an older one only stands in the refusal, as
    /// `cachedData`. A reply's own `stale-if-error` goes before it.
    #[serde(with = "duration")]
    #[schemars(schema_with = "value::up_to_1d")]
    pub stale_for: Duration,
    /// Whether the route answers everybody alike, so that one caller's reply may be given to another.
    pub public: bool,
    /// Whether callers may be shown what an error page of the handler says; it is always logged.
    pub expose_upstream: bool,
    /// The endpoint's own circuit: any key of `[breaker]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [{ "open_for": "10s" }]))]
    pub breaker: Option<BreakerKeys>,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self {
            path: String::new(),
            method: None,
            class: Class::default(),
            replies: Replies::default(),
            deadline: None,
            pool: None,
            attempt_timeout: None,
            retry: true,
            fallback: None,
            stale_for: Duration::from_secs(3_600),
            public: false,
            expose_upstream: false,
            breaker: None,
        }
    }
}

/// What is answered instead of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// The last good reply.
    Cached,
}

/// What a route answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Replies {
    /// JSON, always: what is not is replaced or wrapped.
    #[default]
    Json,
    /// Anything; replies are left as they are.
    Any,
}

/// `[batching]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Batching {
    /// Queries combined into one at most, in calm times.
    #[schemars(range(min = 1, max = 10_000))]
    pub normal: u32,
    /// The same from Warning on; not less than `normal`.
    #[schemars(range(min = 1, max = 10_000))]
    pub under_pressure: u32,
}

impl Default for Batching {
    fn default() -> Self {
        Self { normal: 10, under_pressure: 50 }
    }
}

/// `[batches.NAME]`: an operation over many items, which is cut if it is too long for its caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Batch {
    /// The pool in whose database the operation works, and whose pressure it gives way to; unset: the only one, or
    /// else `main`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("examples" = ["main"]))]
    pub pool: Option<String>,
    /// How long its callers wait for a reply. What would take longer is cut into chunks of a tenth of it.
    #[serde(with = "duration")]
    #[schemars(schema_with = "value::up_to_1h")]
    pub deadline: Duration,
    /// What an item is taken to cost, until it is known.
    #[serde(with = "duration")]
    #[schemars(schema_with = "value::item")]
    pub per_item: Duration,
    /// The most items of a chunk, however cheap they turn out: what is undone at once, if one of them fails.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub most: u32,
    /// When the caller of an operation that is too long is answered: "first_chunk", after the first chunk; "fill",
    /// when no further chunk fits into the deadline.
    pub reply: BatchReply,
}

impl Default for Batch {
    fn default() -> Self {
        let (deadline, per_item) = (Duration::from_secs(10), Duration::from_millis(10));
        Self { pool: None, deadline, per_item, most: 500, reply: BatchReply::FirstChunk }
    }
}

/// When the caller of an operation is answered that is too long to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchReply {
    /// After the first chunk.
    #[default]
    FirstChunk,
    /// When no further chunk fits.
    Fill,
}

/// `[admin]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Admin {
    /// Refuse every action: the page and the API only show.
    pub read_only: bool,
    /// Who may read `/metrics`: "open", everybody; "guarded", whoever may see the page.
    pub metrics: Metrics,
    /// The token that may see and act. Without a token only loopback peers may. Better set by the environment:
    /// SELFHEAL__ADMIN__TOKEN.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["change me: 16 characters or more"]))]
    pub token: Option<Secret>,
    /// The token that may see but not act.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["change me to something else"]))]
    pub read_only_token: Option<Secret>,
    /// A listener of its own for all of this; unset: it is mounted on the service. An address that others can
    /// reach needs a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value::address")]
    pub listen: Option<SocketAddr>,
}

/// Who may read the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metrics {
    /// Everybody.
    #[default]
    Open,
    /// Whoever may see the admin page.
    Guarded,
}
