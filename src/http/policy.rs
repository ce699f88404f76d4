//! What the host said about its endpoints, and which of it holds for a request.
//!
//! Patterns are written as axum's (`/api/auth/{*rest}`), and matched by the same crate in the same version, so
//! that a path is never one endpoint to the router and another one here: no decoding, no trailing-slash
//! tolerance. The most specific pattern wins; a pattern with a method wins over the same pattern without one.
//!
//! The **label** of a request (in metrics, incidents, log lines, and as its operation at the gate) is a
//! configured pattern or `other`. A path that a caller has made up is never a label, so the number of series
//! and the memory here are what was configured, whatever traffic comes.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use http::Method;
use matchit::{InsertError, Router};
use selfheal_actors::{level::Class, signal::Name};

/// The label of requests that no configured pattern matches.
pub const OTHER: &str = "other";

/// How far the replies of an endpoint are made into JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Replies {
    /// Every reply parses: what is not JSON is wrapped or replaced.
    #[default]
    Json,
    /// Errors parse, and so does what is declared as JSON; a page or a file passes as it is. This is what
    /// requests get that no endpoint was configured for.
    Errors,
    /// Replies pass as they are; only what this layer itself says is JSON.
    Any,
}

/// What the host said about one endpoint. Plain values; a set of them is checked by [`Endpoints::new`].
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The pattern of its path, as axum's.
    pub path: Name,
    /// The method it holds for; `None` is every method. `GET` holds for `HEAD` too unless that has its own.
    pub method: Option<Method>,
    /// Who goes first when connections are short.
    pub class: Class,
    /// How far its replies are made into JSON.
    pub replies: Replies,
    /// How long a request may take up to the end of its reply's head, and of its body where that is checked.
    pub deadline: Duration,
    /// The pool whose gate decides about its requests; `None` is the first pool of the registry.
    pub pool: Option<Name>,
    /// How many queries a request makes, if the host knows; else it is learnt.
    pub queries: Option<u32>,
    /// Whether what a handler's page or 5xx says may be shown to the caller. It is always logged.
    pub expose_upstream: bool,
    /// How long one call of the handler may take; `None` is as long as the request may.
    pub attempt_timeout: Option<Duration>,
    /// Whether a call that has failed may be made again.
    pub retry: bool,
    /// What is answered to a GET that failed; `None` is a refusal.
    pub fallback: Option<Fallback>,
}

/// The last good reply, in place of one that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// How old it may be; an older one only stands in the refusal. A reply's own `stale-if-error` goes before it.
    pub stale_for: Duration,
    /// Whether everybody is answered alike, so that one caller's reply may be given to another.
    pub public: bool,
}

impl Endpoint {
    /// The deadline of endpoints that name none.
    pub const DEADLINE: Duration = Duration::from_secs(30);

    /// The endpoint with `path`, and the default of everything else.
    #[must_use]
    pub fn new(path: impl Into<Name>) -> Self {
        Self {
            path: path.into(),
            method: None,
            class: Class::Normal,
            replies: Replies::Json,
            deadline: Self::DEADLINE,
            pool: None,
            queries: None,
            expose_upstream: false,
            attempt_timeout: None,
            retry: true,
            fallback: None,
        }
    }

    /// What holds where nothing was configured.
    #[must_use]
    pub fn unlisted() -> Self {
        Self { replies: Replies::Errors, ..Self::new(OTHER) }
    }
}

/// A valid set of endpoints, and what holds for all other requests.
pub struct Endpoints {
    /// All patterns.
    labels: HashSet<Name>,
    /// In the order of the config, and last what holds for unlisted requests.
    all: Vec<Arc<Endpoint>>,
    any: Router<usize>,
    /// Few: looked through, not hashed.
    by_method: Vec<(Method, Router<usize>)>,
    other: Name,
}

/// What holds for one request.
#[derive(Clone, Debug)]
pub struct Match {
    /// The endpoint, or what holds for unlisted requests.
    pub endpoint: Arc<Endpoint>,
    /// Its place in [`Endpoints::all`].
    pub place: usize,
    /// A configured pattern, or [`OTHER`].
    pub label: Name,
    /// The pattern that axum's router has matched, of a request that no configured pattern matches.
    pub route: Option<Name>,
}

/// An endpoint that cannot be matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmatchable {
    /// Its pattern.
    pub path: Name,
    /// Its method.
    pub method: Option<Method>,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Unmatchable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = self.method.as_ref().map_or("", Method::as_str);
        write!(
            f,
            "endpoint {method}{}{}: {}",
            if method.is_empty() { "" } else { " " },
            self.path,
            self.reason
        )
    }
}

impl std::error::Error for Unmatchable {}

impl Endpoints {
    /// A set that matches `endpoints`, and `unlisted` where none does.
    ///
    /// # Errors
    /// Every endpoint whose pattern is malformed, or says the same as an earlier one.
    pub fn new(endpoints: Vec<Endpoint>, unlisted: Endpoint) -> Result<Self, Vec<Unmatchable>> {
        let endpoints: Vec<_> = endpoints.into_iter().map(Arc::new).collect();
        let mut mistakes = Vec::new();
        let any = router(&endpoints, None, &mut mistakes);
        let mut by_method: Vec<(Method, _)> = Vec::new();
        for method in endpoints.iter().filter_map(|endpoint| endpoint.method.as_ref()) {
            if !by_method.iter().any(|(known, _)| known == method) {
                by_method.push((method.clone(), router(&endpoints, Some(method), &mut mistakes)));
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let labels = endpoints.iter().map(|e| Arc::clone(&e.path)).collect();
        let all = endpoints.into_iter().chain([Arc::new(unlisted)]).collect();
        Ok(Self { labels, all, any, by_method, other: OTHER.into() })
    }

    /// The endpoints in the order of the config, and last what holds for unlisted requests.
    #[must_use]
    pub fn all(&self) -> &[Arc<Endpoint>] {
        &self.all
    }

    /// What holds for a request to `path`; `matched` is the pattern that axum's router found, if it did.
    #[must_use]
    pub fn find(&self, method: &Method, path: &str, matched: Option<&str>) -> Match {
        let found = self.router(method).at(path).ok().map(|found| *found.value);
        let place = found.unwrap_or(self.all.len() - 1);
        let endpoint = &self.all[place];
        let own = |pattern: &str| found.is_some() && *pattern == *endpoint.path;
        let label = matched
            .and_then(|pattern| if own(pattern) { Some(&endpoint.path) } else { self.labels.get(pattern) })
            .or_else(|| found.map(|_| &endpoint.path))
            .unwrap_or(&self.other);
        let route = matched.filter(|_| found.is_none()).map(Name::from);
        Match { endpoint: Arc::clone(endpoint), place, label: Arc::clone(label), route }
    }

    fn router(&self, method: &Method) -> &Router<usize> {
        let of =
            |method: &Method| self.by_method.iter().find(|(of, _)| of == method).map(|(_, router)| router);
        let lent = || of(&Method::GET).filter(|_| method == Method::HEAD);
        of(method).or_else(lent).unwrap_or(&self.any)
    }
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            labels: HashSet::new(),
            all: vec![Arc::new(Endpoint::unlisted())],
            any: Router::new(),
            by_method: Vec::new(),
            other: OTHER.into(),
        }
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoints").field(&self.labels).finish()
    }
}

/// The patterns that hold for `method`: its own first, then those of every method that it does not override.
fn router(
    endpoints: &[Arc<Endpoint>],
    method: Option<&Method>,
    mistakes: &mut Vec<Unmatchable>,
) -> Router<usize> {
    let mut router = Router::new();
    let mut taken: HashMap<String, &Endpoint> = HashMap::new();
    let places = || endpoints.iter().enumerate();
    let own = places().filter(|(_, endpoint)| endpoint.method.as_ref() == method);
    let every = places().filter(|(_, endpoint)| method.is_some() && endpoint.method.is_none());
    for (place, endpoint) in own.chain(every) {
        let shape = shape(&endpoint.path);
        let overridden = endpoint.method.is_none() && taken.get(&shape).is_some_and(|by| by.method.is_some());
        if overridden {
            continue;
        }
        match router.insert(shape.as_str(), place) {
            Ok(()) => drop(taken.insert(shape, endpoint)),
            Err(error) => tell(endpoint, reason(&error, &taken), mistakes),
        }
    }
    router
}

/// Each endpoint is told of once: a pattern of every method is met by the router of each.
fn tell(endpoint: &Endpoint, reason: String, mistakes: &mut Vec<Unmatchable>) {
    let (path, method) = (Arc::clone(&endpoint.path), endpoint.method.clone());
    if !mistakes.iter().any(|told| told.path == path && told.method == method) {
        mistakes.push(Unmatchable { path, method, reason });
    }
}

/// The router's reason, with the patterns as the host wrote them.
fn reason(error: &InsertError, taken: &HashMap<String, &Endpoint>) -> String {
    let InsertError::Conflict { with } = error else { return error.to_string() };
    let theirs = taken.get(with).map_or(with.as_str(), |endpoint| &*endpoint.path);
    format!("a path could be both this and {theirs}")
}

/// The pattern with its parameters numbered, so that `/a/{id}` and `/a/{name}` are seen to say the same.
fn shape(pattern: &str) -> String {
    let (mut shape, mut rest, mut count) = (String::with_capacity(pattern.len()), pattern, 0);
    while let Some(open) = rest.find('{') {
        let (before, from) = rest.split_at(open);
        shape.push_str(before);
        let close = if from.starts_with("{{") { None } else { from.find('}') };
        match close {
            Some(close) => {
                let star = if from[1..close].starts_with('*') { "*" } else { "" };
                shape.push_str(&if close == 1 { "{}".into() } else { format!("{{{star}p{count}}}") });
                count += 1;
                rest = &from[close + 1..];
            }
            None => {
                let literal = from.len().min(2);
                shape.push_str(&from[..literal]);
                rest = &from[literal..];
            }
        }
    }
    shape + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(list: &[(&str, Option<Method>, Class)]) -> Result<Endpoints, Vec<Unmatchable>> {
        let endpoint = |(path, method, class): &(&str, Option<Method>, Class)| Endpoint {
            method: method.clone(),
            class: *class,
            ..Endpoint::new(*path)
        };
        Endpoints::new(list.iter().map(endpoint).collect(), Endpoint::unlisted())
    }

    fn class(of: &Endpoints, method: &Method, path: &str) -> Class {
        of.find(method, path, None).endpoint.class
    }

    #[test]
    fn the_most_specific_pattern_wins() {
        let set = endpoints(&[
            ("/api/{*rest}", None, Class::Background),
            ("/api/auth/{*rest}", None, Class::Critical),
            ("/api/auth/logout", None, Class::Sheddable),
        ])
        .expect("they differ");
        let found = |path| class(&set, &Method::GET, path);
        assert_eq!(found("/api/auth/login"), Class::Critical);
        assert_eq!(found("/api/auth/logout"), Class::Sheddable);
        assert_eq!(found("/api/reports"), Class::Background);
        assert_eq!(found("/"), Class::Normal, "unlisted");
    }

    #[test]
    fn a_pattern_with_a_method_wins_over_the_same_without_and_a_less_specific_one_stays_in_reach() {
        let set = endpoints(&[
            ("/api/tasks/{id}", None, Class::Sheddable),
            ("/api/tasks/{task}", Some(Method::POST), Class::Critical),
            ("/api/tasks/assign", Some(Method::PUT), Class::Background),
        ])
        .expect("they differ");
        assert_eq!(class(&set, &Method::POST, "/api/tasks/7"), Class::Critical);
        assert_eq!(class(&set, &Method::GET, "/api/tasks/7"), Class::Sheddable);
        assert_eq!(class(&set, &Method::PUT, "/api/tasks/assign"), Class::Background);
        assert_eq!(class(&set, &Method::GET, "/api/tasks/assign"), Class::Sheddable, "not a PUT");
    }

    #[test]
    fn head_is_matched_as_get_unless_it_has_its_own() {
        let set = endpoints(&[("/a", Some(Method::GET), Class::Critical)]).expect("it is valid");
        assert_eq!(class(&set, &Method::HEAD, "/a"), Class::Critical);
        assert_eq!(class(&set, &Method::POST, "/a"), Class::Normal);
    }

    #[test]
    fn every_mistake_is_told_once() {
        let mistakes = endpoints(&[
            ("/a/{x}", None, Class::Normal),
            ("/a/{y}", None, Class::Critical),
            ("no/slash/{", None, Class::Normal),
            ("/b/{*rest}/more", Some(Method::GET), Class::Normal),
        ])
        .expect_err("three are wrong");
        let told: Vec<_> = mistakes.iter().map(|m| &*m.path).collect();
        assert_eq!(told, ["/a/{y}", "no/slash/{", "/b/{*rest}/more"]);
    }

    #[test]
    fn a_label_is_the_routers_pattern_if_that_was_configured_else_ours_else_other() {
        let set = endpoints(&[("/a/{id}", None, Class::Normal), ("/a/{id}/{*rest}", None, Class::Normal)])
            .expect("they differ");
        let label = |path, matched| set.find(&Method::GET, path, matched).label;
        assert_eq!(&*label("/a/7", Some("/a/{id}")), "/a/{id}");
        assert_eq!(&*label("/a/7/x", Some("/{a}/{b}/{c}")), "/a/{id}/{*rest}");
        assert_eq!(&*label("/made/up", Some("/{*rest}")), OTHER);
    }

    #[test]
    fn escaped_braces_are_letters() {
        assert_eq!(shape("/{{a}}/{id}/{*rest}"), "/{{a}}/{p0}/{*p1}");
        let set = endpoints(&[("/{{a}}/{id}", None, Class::Critical)]).expect("it is valid");
        assert_eq!(class(&set, &Method::GET, "/{a}/7"), Class::Critical);
    }
}
