//! The patterns of `[[endpoints]]`: axum's, so that what the router takes is what the config takes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Rules, repeated};
use crate::config::{
    key::{Key, shown},
    policy::{Endpoint, Pool},
};

pub(super) fn endpoints(rules: &mut Rules<'_>, endpoints: &[Endpoint], pools: &BTreeMap<String, Pool>) {
    let at = |index| Key::of(["endpoints"]).item(index);
    for (index, endpoint) in endpoints.iter().enumerate() {
        if let Err((message, help)) = check(&endpoint.path) {
            rules.broken(&[at(index).child("path")], message, help);
        }
        if let Some(pool) = endpoint.pool.as_ref().filter(|pool| !pools.contains_key(*pool)) {
            let message = format!("there is no pool {}", shown(pool));
            rules.broken(
                &[at(index).child("pool")],
                message,
                format!("add [pools.{pool}], which may be empty"),
            );
        }
    }
    let routes = endpoints
        .iter()
        .map(|endpoint| (outline(&endpoint.path), endpoint.method.as_ref().map(|m| m.as_str())));
    for (first, again) in repeated(routes.enumerate()) {
        let message =
            format!("{} takes the same requests as endpoints[{first}]", shown(&endpoints[again].path));
        rules.broken(&[at(again).child("path"), at(first).child("path")], message, "keep one of the two");
    }
}

/// The pattern without the names of its parameters: two patterns with one outline take the same requests.
fn outline(path: &str) -> String {
    path.split('/')
        .map(|segment| match segment.as_bytes() {
            [b'{', b'*', ..] => "{*}",
            [b'{', second, ..] if *second != b'{' => "{}",
            _ => segment,
        })
        .collect::<Vec<_>>()
        .join("/")
}

/// What is wrong with a pattern, and what would be right.
fn check(path: &str) -> Result<(), (String, String)> {
    let refuse = |message: &str, help: String| Err((message.to_owned(), help));
    let Some(segments) = path.strip_prefix('/') else {
        return refuse("a path begins with \"/\"", format!("path = \"/{path}\""));
    };
    if let Some(extra) = path.find(['?', '#']) {
        return refuse("a path has no query and no fragment", format!("path = \"{}\"", &path[..extra]));
    }
    if path.contains(|c: char| c.is_whitespace() || !c.is_ascii()) {
        return refuse(
            "a path has no spaces and is ASCII: it is matched as it comes, percent-encoded",
            "encode it".into(),
        );
    }
    let mut names = BTreeSet::new();
    let count = segments.split('/').count();
    for (index, segment) in segments.split('/').enumerate() {
        let Some(name) = parameter(segment)? else { continue };
        if name.starts_with('*') && index + 1 != count {
            return refuse(
                "{*…} takes all that follows, so it is the last segment",
                format!("use {{{}}} here", &name[1..]),
            );
        }
        if !names.insert(name.trim_start_matches('*')) {
            return refuse("a name stands twice in one path", format!("rename the second {{{name}}}"));
        }
    }
    Ok(())
}

/// The parameter that a segment is, if it is one: `id` for `{id}`, `*rest` for `{*rest}`.
fn parameter(segment: &str) -> Result<Option<&str>, (String, String)> {
    if let Some(name) = segment.strip_prefix(':') {
        return Err(("a parameter is written in braces".into(), format!("write {{{name}}} for :{name}")));
    }
    if let Some(name) = segment.strip_prefix('*') {
        return Err(("a wildcard is written in braces".into(), format!("write {{*{name}}} for *{name}")));
    }
    let literal = segment.replace("{{", "").replace("}}", "");
    if !literal.contains(['{', '}']) {
        return Ok(None);
    }
    let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    match name.filter(|name| {
        !name.trim_start_matches('*').is_empty() && !name.trim_start_matches('*').contains(['{', '}', '*'])
    }) {
        Some(name) if !name.starts_with("**") => Ok(Some(name)),
        _ => Err((
            format!("{} is not a parameter: one fills its whole segment and has a name", shown(segment)),
            "for example /a/{id} or /a/{*rest}; a literal brace is doubled: {{".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_axum_takes_is_taken_and_what_it_panics_at_is_refused() {
        let right = ["/", "/a", "/a/", "/a/{id}", "/{*rest}", "/a/{id}/b/{other}", "/a/{{b}}", "/%7Euser"];
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
        for path in right {
            assert_eq!(check(path), Ok(()), "{path}");
            let _ = axum::Router::<()>::new().route(path, axum::routing::get(|| async {}));
        }
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
