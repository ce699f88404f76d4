//! The patterns of `[[endpoints]]`: axum's, so that what the router takes is what the config takes. And what names
//! pools.

use std::collections::{BTreeMap, BTreeSet};

use super::{Rules, repeated};
use crate::config::{
    finding::Mistake,
    key::{Key, shown},
    policy::{Batch, Endpoint, Pool},
    suggest::nearest,
};

pub(super) fn endpoints(rules: &mut Rules<'_>, endpoints: &[Endpoint], pools: &BTreeMap<String, Pool>) {
    let at = |index| Key::of(["endpoints"]).item(index);
    for (index, endpoint) in endpoints.iter().enumerate() {
        if let Err(mistake) = check(&endpoint.path) {
            rules.broken(&[at(index).child("path")], mistake);
        }
        if let Some(name) = endpoint.pool.as_ref().filter(|name| !pools.contains_key(*name)) {
            rules.broken(&[at(index).child("pool")], no_pool(name, pools));
        }
    }
    let routes = endpoints.iter().map(|endpoint| {
        let method = endpoint.method.as_ref().map(|method| method.as_str());
        (outline(&endpoint.path), method)
    });
    for (first, again) in repeated(routes.enumerate()) {
        let message =
            format!("{} takes the same requests as endpoints[{first}]", shown(&endpoints[again].path));
        let mistake = Mistake::new(message, "each route once").help("keep one of the two".to_owned());
        rules.broken(&[at(again).child("path"), at(first).child("path")], mistake);
    }
}

/// Operations name pools, too, and their deadlines leave time to be answered in.
pub(super) fn batches(
    rules: &mut Rules<'_>,
    batches: &BTreeMap<String, Batch>,
    pools: &BTreeMap<String, Pool>,
) {
    for (name, batch) in batches {
        let at = Key::of(["batches", name]);
        if let Some(pool) = batch.pool.as_ref().filter(|pool| !pools.contains_key(*pool)) {
            rules.broken(&[at.child("pool")], no_pool(pool, pools));
        }
        let policy = batch.policy();
        let kept = policy.kept_back();
        if kept >= policy.deadline {
            let kept = humantime::format_duration(kept);
            let message = format!("{kept} of the deadline are kept back for the reply, and nothing is left");
            let mistake = Mistake::new(message, format!("a deadline above {kept}"));
            rules.broken(&[at.child("deadline")], mistake.help("raise deadline".to_owned()));
        }
    }
}

fn no_pool(name: &str, pools: &BTreeMap<String, Pool>) -> Mistake {
    let help = nearest(name, pools.keys().map(String::as_str)).map_or_else(
        || format!("add [pools.{name}], which may be empty"),
        |meant| format!("did you mean pool = {meant:?}?"),
    );
    Mistake::new(format!("there is no pool {}", shown(name)), "the NAME of a [pools.NAME]").help(help)
}

/// The pattern without the names of its parameters: two patterns with one outline take the same requests.
fn outline(path: &str) -> String {
    let segments = path.split('/').map(|segment| match segment.as_bytes() {
        [b'{', b'*', ..] => "{*}",
        [b'{', second, ..] if *second != b'{' => "{}",
        _ => segment,
    });
    segments.collect::<Vec<_>>().join("/")
}

/// Whether axum takes the pattern.
fn check(path: &str) -> Result<(), Mistake> {
    let Some(segments) = path.strip_prefix('/') else {
        return Err(Mistake::new("a path begins with \"/\"", "/…").help(format!("path = \"/{path}\"")));
    };
    if let Some(extra) = path.find(['?', '#']) {
        let help = format!("path = {:?}", &path[..extra]);
        return Err(Mistake::new("a path has no query and no fragment", "the path alone").help(help));
    }
    if path.contains(|c: char| c.is_whitespace() || !c.is_ascii()) {
        let help = "percent-encode it, as it comes in requests: a space is %20".to_owned();
        return Err(Mistake::new("a path has no spaces and is ASCII", "an encoded path").help(help));
    }
    let mut names = BTreeSet::new();
    let last = segments.split('/').count() - 1;
    for (index, segment) in segments.split('/').enumerate() {
        let Some(name) = parameter(segment)? else { continue };
        if name.starts_with('*') && index != last {
            let help = format!("use {{{}}} here", &name[1..]);
            return Err(Mistake::new("{*…} takes all that follows", "{*…} as the last segment").help(help));
        }
        if !names.insert(name.trim_start_matches('*')) {
            let help = format!("rename the second {{{name}}}");
            return Err(Mistake::new("a name stands twice in one path", "different names").help(help));
        }
    }
    Ok(())
}

/// The parameter that a segment is, if it is one: `id` for `{id}`, `*rest` for `{*rest}`.
fn parameter(segment: &str) -> Result<Option<&str>, Mistake> {
    if segment.starts_with([':', '*']) {
        let (mark, name) = segment.split_at(1);
        let braced = format!("{{{}{name}}}", mark.trim_start_matches(':'));
        let mistake =
            Mistake::new(format!("a parameter is written in braces, not as {}", shown(segment)), &*braced);
        return Err(mistake.help(format!("write {braced} for {segment}")));
    }
    if !segment.replace("{{", "").replace("}}", "").contains(['{', '}']) {
        return Ok(None);
    }
    let inner = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    match inner.filter(|inner| is_name(inner.strip_prefix('*').unwrap_or(inner))) {
        Some(name) => Ok(Some(name)),
        None => {
            let message =
                format!("{} is not a parameter: one has a name and fills its whole segment", shown(segment));
            let help = "for example /a/{id} or /a/{*rest}; a literal brace is doubled".to_owned();
            Err(Mistake::new(message, "{name} or {*name}").help(help))
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['{', '}', '*'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_what_axum_takes() {
        let right = ["/", "/a", "/a/", "/a/{id}", "/{*rest}", "/a/{id}/b/{other}", "/a/{{b}}", "/%7Euser"];
        for path in right {
            assert_eq!(check(path), Ok(()), "{path}");
            // axum panics at a pattern that it does not take.
            let _ = axum::Router::<()>::new().route(path, axum::routing::get(|| async {}));
        }
        let wrong = [
            "",
            "a",
            "/a?b",
            "/a b",
            "/:id",
            "/*rest",
            "/{}",
            "/{*}",
            "/a{id}",
            "/{id}b",
            "/{*rest}/b",
            "/{id",
            "/id}",
            "/{a}/{a}",
            "/{a}{b}",
            "/{**r}",
            "/é",
        ];
        for path in wrong {
            assert!(check(path).is_err(), "{path}");
        }
    }

    #[test]
    fn names_of_parameters_make_no_difference() {
        assert_eq!(outline("/a/{id}/b"), outline("/a/{name}/b"));
        assert_ne!(outline("/a/{id}"), outline("/a/{*id}"));
        assert_ne!(outline("/a/{{id}}"), outline("/a/{id}"));
    }
}
