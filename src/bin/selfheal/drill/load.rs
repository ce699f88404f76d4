//! The load of a drill: who asks for what, and when.
//!
//! It is an open loop: every request has a moment at which it is due, drawn beforehand from a seed, and is sent
//! then, whether or not earlier ones have been answered. A closed loop would wait for a struggling service and
//! so hide what its users see. Latency counts from the due moment.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method};
use selfheal::clock::{Clock, Tick};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::web::{Answer, Web};

/// Users who open the dashboard.
pub(crate) const DASHBOARDS: u32 = 10;
/// The span over which they do.
const CLICKS_OVER: Duration = Duration::from_millis(500);
/// The base load runs for this long before the first of them.
pub(crate) const LEAD: Duration = Duration::from_millis(1_500);
/// The base load runs for this long in all.
const BASE_FOR: Duration = Duration::from_millis(4_000);
/// Requests a second of the base load: they keep about 70 connections busy, 45 of them with heavy aggregates.
const BASE_RATE: f64 = 300.0;
/// Users behind the base load.
const BASE_USERS: u64 = 200;
/// A request without a reply after this long is given up as lost; twice the deadline of a dashboard.
const GIVE_UP: Duration = Duration::from_secs(20);

/// A route of the desk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Login,
    Assign,
    Dashboard,
    Assistance,
    Reports,
    Analytics,
}

impl Route {
    /// Whether the desk counts it as critical.
    pub(crate) const fn is_critical(self) -> bool {
        matches!(self, Self::Login | Self::Assign)
    }

    /// Its method and path.
    pub(crate) const fn name(self) -> (Method, &'static str) {
        match self {
            Self::Login => (Method::POST, "/api/auth/login"),
            Self::Assign => (Method::POST, "/api/tasks/assign"),
            Self::Dashboard => (Method::GET, "/api/dashboard"),
            Self::Assistance => (Method::GET, "/api/manager/assistance"),
            Self::Reports => (Method::GET, "/api/reports"),
            Self::Analytics => (Method::GET, "/api/analytics"),
        }
    }
}

/// A request that is due at a moment, counted from the start of the load.
#[derive(Clone, Debug)]
pub(crate) struct Shot {
    pub(crate) due: Duration,
    pub(crate) route: Route,
    pub(crate) user: String,
    /// Written to the row that the request makes, if it makes one: a row too many is an effect doubled.
    pub(crate) id: String,
}

/// What became of a shot.
#[derive(Debug)]
pub(crate) struct Fate {
    pub(crate) shot: Shot,
    /// How long after the due moment it was sent: the machine was busy with something else.
    pub(crate) late: Duration,
    /// From the due moment.
    pub(crate) took: Duration,
    /// None if there was no reply at all.
    pub(crate) reply: Option<Reply>,
}

/// A reply, as far as the figures need it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// None if it does not parse.
    pub(crate) json: Option<Value>,
    /// The beginning of its text.
    pub(crate) text: String,
}

impl Fate {
    /// Whether the caller got what was asked for, in JSON.
    pub(crate) fn is_ok(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| reply.status < 300 && reply.json.is_some())
    }

    /// Whether the service said in its own words that it will not do this now.
    pub(crate) fn is_refused(&self) -> bool {
        let code = |reply: &Reply| reply.json.as_ref().is_some_and(|json| json["code"].is_string());
        self.reply.as_ref().is_some_and(|reply| matches!(reply.status, 429 | 503) && code(reply))
    }

    /// When the caller knew, counted from the start of the load.
    pub(crate) fn known_at(&self) -> Duration {
        self.shot.due + self.took
    }
}

/// The whole load of the incident in the order in which it is due.
pub(crate) fn schedule(seed: u64) -> Vec<Shot> {
    INCIDENT.shots(seed)
}

/// A base load, and dashboards that are opened during it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// What the ids of its requests begin with.
    pub(crate) name: &'static str,
    /// The base load runs for this long.
    pub(crate) base_for: Duration,
    /// Which route a request of it takes, by a roll from 0 to 1.
    pub(crate) route: fn(f64) -> Route,
    /// When the first dashboard is opened.
    pub(crate) lead: Duration,
    /// Dashboards, spread evenly over this span.
    pub(crate) dashboards: u32,
    pub(crate) clicks_over: Duration,
}

/// The incident's own.
const INCIDENT: Load = Load {
    name: "",
    base_for: BASE_FOR,
    route: base_route,
    lead: LEAD,
    dashboards: DASHBOARDS,
    clicks_over: CLICKS_OVER,
};

impl Load {
    /// Its requests in the order in which they are due.
    pub(crate) fn shots(&self, seed: u64) -> Vec<Shot> {
        let mut dice = Dice(seed);
        let mut shots = self.clicks();
        let mut due = 0.0;
        loop {
            due += -(1.0 - dice.roll()).ln() / BASE_RATE;
            if due >= self.base_for.as_secs_f64() {
                break;
            }
            let number = shots.len();
            shots.push(Shot {
                due: Duration::from_secs_f64(due),
                route: (self.route)(dice.roll()),
                user: format!("user-{}", dice.next() % BASE_USERS),
                id: format!("{}request-{number}", self.name),
            });
        }
        shots.sort_by_key(|shot| shot.due);
        shots
    }

    fn clicks(&self) -> Vec<Shot> {
        let click = |number| Shot {
            due: self.lead + self.clicks_over * number / self.dashboards.max(1),
            route: Route::Dashboard,
            user: format!("manager-{number}"),
            id: format!("{}dashboard-{number}", self.name),
        };
        (0..self.dashboards).map(click).collect()
    }
}

/// One fifth is critical, one tenth can be shed.
fn base_route(roll: f64) -> Route {
    match roll {
        ..0.1 => Route::Login,
        ..0.2 => Route::Assign,
        ..0.9 => Route::Assistance,
        ..0.95 => Route::Reports,
        _ => Route::Analytics,
    }
}

/// One fifth is critical, and no request keeps its connection for long.
pub(crate) fn short_route(roll: f64) -> Route {
    match roll {
        ..0.1 => Route::Login,
        ..0.2 => Route::Assign,
        _ => Route::Assistance,
    }
}

/// splitmix64: enough to spread arrivals, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 inclusive to 1 exclusive.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    fn roll(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Sends the whole load, the caller's requests spread over the `services`, and waits for its end.
pub(crate) async fn fire(shots: Vec<Shot>, services: &[String], start: Tick, clock: &Clock) -> Vec<Fate> {
    let web = Web::new();
    let mut flying = JoinSet::new();
    for (number, shot) in shots.into_iter().enumerate() {
        sleep_until(start + shot.due, clock).await;
        let url = format!("{}{}", services[number % services.len()], shot.route.name().1);
        flying.spawn(follow(shot, url, web.clone(), start, clock.clone()));
    }
    flying.join_all().await
}

async fn sleep_until(moment: Tick, clock: &Clock) {
    let left = moment.since(clock.now());
    if !left.is_zero() {
        tokio::time::sleep(left).await;
    }
}

async fn follow(shot: Shot, url: String, web: Web, start: Tick, clock: Clock) -> Fate {
    let late = clock.now().since(start + shot.due);
    let headers: Vec<_> = HeaderValue::from_str(&shot.user)
        .map(|user| (HeaderName::from_static("x-user-id"), user))
        .into_iter()
        .collect();
    let body = (shot.route == Route::Assign).then(|| format!(r#"{{"requestId":"{}"}}"#, shot.id));
    let sent = web.send(shot.route.name().0, &url, &headers, body);
    let answer = tokio::time::timeout(GIVE_UP, sent).await;
    let took = clock.now().since(start + shot.due);
    Fate { shot, late, took, reply: answer.ok().and_then(Result::ok).as_ref().map(Reply::from) }
}

impl From<&Answer> for Reply {
    fn from(answer: &Answer) -> Self {
        Self {
            status: answer.status.as_u16(),
            json: serde_json::from_slice(&answer.body).ok(),
            text: String::from_utf8_lossy(&answer.body).chars().take(200).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_load_and_another_is_another() {
        let due = |seed| schedule(seed).iter().map(|shot| shot.due).collect::<Vec<_>>();
        assert_eq!(due(7), due(7));
        assert_ne!(due(7), due(8));
    }

    #[test]
    fn ten_dashboards_arrive_within_half_a_second_on_a_base_load_of_every_other_route() {
        let load = schedule(1);
        let clicks: Vec<_> = load.iter().filter(|shot| shot.route == Route::Dashboard).collect();
        assert_eq!(clicks.len(), 10);
        assert!(clicks.iter().all(|shot| shot.due >= LEAD && shot.due < LEAD + CLICKS_OVER));
        for route in [Route::Login, Route::Assign, Route::Assistance, Route::Reports, Route::Analytics] {
            assert!(load.iter().filter(|shot| shot.route == route).count() > 40, "{route:?}");
        }
        assert!(load.is_sorted_by_key(|shot| shot.due));
    }
}
