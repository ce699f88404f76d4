//! Faults that are planted in the desk on purpose: `serve --faults`, and the drills.
//!
//! A fault sits where real ones do: in front of the database, so that a query fails as it does when the server has too
//! many clients, or in a handler, so that it answers with a page, with nothing, or not at all. Each lasts until it is
//! taken off, for a time, or for a number of hits. Behind the guard nobody can tell it from a real one.

use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware::Next,
    response::{IntoResponse as _, Response},
    routing::post,
};
use parking_lot::Mutex;
use selfheal::clock::{Clock, Tick};
use serde::{Deserialize, Serialize};
use sqlx::error::{DatabaseError, ErrorKind};

/// The target that stands for every query.
const DB: &str = "db";
/// So many targets can have a fault at once.
const TARGETS: usize = 64;
/// What a slow target takes longer.
const SLOW: Duration = Duration::from_millis(1_500);
/// How often whoever hangs looks whether the fault has passed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// The database has too many clients; a handler answers with a bare 500.
    Error,
    /// A handler answers with a page.
    Html,
    /// It takes longer.
    Slow,
    /// It does not answer while the fault lasts.
    Hang,
    /// It panics.
    Panic,
    /// Nothing: the fault is taken off.
    Off,
}

/// All planted faults. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    planted: Arc<Mutex<HashMap<String, Planted>>>,
    clock: Clock,
}

#[derive(Clone, Copy, Debug)]
struct Planted {
    mode: Mode,
    until: Tick,
    hits_left: u32,
}

/// What `POST /faults` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    target: String,
    mode: Mode,
    /// How long it lasts, "2s"; else until it is taken off.
    #[serde(rename = "for")]
    lasts: Option<String>,
    /// How often it strikes; else whenever it can.
    times: Option<u32>,
}

#[derive(Serialize)]
struct Done {
    success: bool,
    target: String,
    mode: Mode,
}

impl Faults {
    /// None yet.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { planted: Arc::default(), clock }
    }

    /// Plants a fault for a time, or takes it off.
    pub(crate) fn plant(&self, target: &str, mode: Mode, lasts: Option<Duration>, times: Option<u32>) {
        let until = lasts.map_or(Tick::MAX, |lasts| self.clock.now() + lasts);
        let mut planted = self.planted.lock();
        if mode == Mode::Off {
            planted.remove(target);
        } else if planted.len() < TARGETS || planted.contains_key(target) {
            planted.insert(target.to_owned(), Planted { mode, until, hits_left: times.unwrap_or(u32::MAX) });
        }
    }

    /// Strikes a query, if there is a fault in front of the database.
    ///
    /// # Errors
    ///
    /// What PostgreSQL says when it has too many clients.
    pub(crate) async fn strike_query(&self) -> Result<(), sqlx::Error> {
        match self.hit(DB) {
            None | Some(Mode::Off | Mode::Html) => Ok(()),
            Some(Mode::Error) => Err(sqlx::Error::Database(Box::new(TooManyClients))),
            Some(Mode::Panic) => panic(),
            Some(Mode::Slow) => {
                tokio::time::sleep(SLOW).await;
                Ok(())
            }
            Some(Mode::Hang) => {
                self.hang(DB).await;
                Ok(())
            }
        }
    }

    /// Strikes a handler, if there is a fault in it.
    async fn strike_handler(&self, path: &str) -> Option<Response> {
        match self.hit(path)? {
            Mode::Off => None,
            Mode::Error => Some(StatusCode::INTERNAL_SERVER_ERROR.into_response()),
            Mode::Html => Some(page()),
            Mode::Panic => panic(),
            Mode::Slow => {
                tokio::time::sleep(SLOW).await;
                None
            }
            Mode::Hang => {
                self.hang(path).await;
                None
            }
        }
    }

    /// The fault that strikes `target` now. What has passed is forgotten; what hangs is not used up by one.
    fn hit(&self, target: &str) -> Option<Mode> {
        let mut planted = self.planted.lock();
        let fault = planted.get_mut(target)?;
        if fault.hits_left == 0 || self.clock.now() >= fault.until {
            planted.remove(target);
            return None;
        }
        fault.hits_left -= 1;
        Some(fault.mode)
    }

    /// Until the fault has passed. One that strikes a number of times hangs for ever: its caller gives up.
    async fn hang(&self, target: &str) {
        let lasts = || {
            let planted = self.planted.lock();
            let fault = planted.get(target).filter(|fault| fault.mode == Mode::Hang);
            fault.is_some_and(|fault| fault.until == Tick::MAX || self.clock.now() < fault.until)
        };
        while lasts() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Lets the faults strike the handlers of `router`.
    pub(crate) fn strike(&self, router: Router) -> Router {
        router.layer(axum::middleware::from_fn_with_state(self.clone(), strike))
    }

    /// `POST /faults`.
    pub(crate) fn router(&self) -> Router {
        Router::new().route("/faults", post(plant)).with_state(self.clone())
    }
}

async fn strike(State(faults): State<Faults>, request: Request, next: Next) -> Response {
    match faults.strike_handler(request.uri().path()).await {
        Some(struck) => struck,
        None => next.run(request).await,
    }
}

async fn plant(State(faults): State<Faults>, Json(order): Json<Order>) -> Response {
    let lasts = order.lasts.as_deref().map(humantime::parse_duration).transpose();
    let target = order.target.as_str();
    match lasts {
        Ok(lasts) if target == DB || target.starts_with('/') => {
            faults.plant(target, order.mode, lasts, order.times);
            Json(Done { success: true, target: order.target, mode: order.mode }).into_response()
        }
        Ok(_) => (StatusCode::BAD_REQUEST, "target is \"db\" or a path").into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("for: {error}")).into_response(),
    }
}

/// As a platform's error page looks, capitals and all.
fn page() -> Response {
    const PAGE: &str = "<HTML><HEAD><TITLE>500 Internal Server Error</TITLE></HEAD>\
                        <BODY><H1>Internal Server Error</H1></BODY></HTML>";
    (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/html")], PAGE).into_response()
}

#[expect(clippy::panic, reason = "that is the fault")]
fn panic() -> ! {
    panic!("a planted panic")
}

/// What PostgreSQL says when it has too many clients.
#[derive(Debug)]
struct TooManyClients;

impl fmt::Display for TooManyClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for TooManyClients {}

impl DatabaseError for TooManyClients {
    fn message(&self) -> &str {
        "Too many database connections opened: FATAL: sorry, too many clients already"
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed("53300"))
    }

    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fault_strikes_for_its_time_or_as_often_as_it_was_told() {
        let faults = Faults::new(Clock::tokio());
        assert_eq!(faults.hit("/a"), None);
        faults.plant("/a", Mode::Html, Some(Duration::from_secs(2)), None);
        faults.plant("db", Mode::Error, None, Some(2));
        assert_eq!((faults.hit("/a"), faults.hit("/b")), (Some(Mode::Html), None));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(faults.hit("/a"), None);
        let struck: Vec<_> = (0..3).map(|_| faults.hit("db").is_some()).collect();
        assert_eq!(struck, [true, true, false]);
        faults.plant("/a", Mode::Panic, None, None);
        faults.plant("/a", Mode::Off, None, None);
        assert_eq!(faults.hit("/a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_hangs_is_let_go_when_the_fault_has_passed_and_the_database_speaks_for_itself() {
        let faults = Faults::new(Clock::tokio());
        faults.plant("/a", Mode::Hang, Some(Duration::from_secs(3)), None);
        let start = faults.clock.now();
        assert!(faults.strike_handler("/a").await.is_none());
        let hung = faults.clock.now().since(start).as_secs();
        assert!((3..=4).contains(&hung), "{hung} s");
        faults.plant("db", Mode::Error, None, None);
        let error = faults.strike_query().await.expect_err("it is struck");
        assert_eq!(selfheal::db::classify(&error), selfheal::db::ErrorClass::Overload);
        assert!(error.to_string().contains("too many clients already"));
    }
}
